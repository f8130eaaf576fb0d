"""What a request may ask of ControlNets, and what is remembered of them."""

from pathlib import Path

import pytest
from PIL import Image

from fromnoise.hub import pulled
from fromnoise.images.opening import to_png
from fromnoise.pipeline import Pipeline, load
from fromnoise.request import Control, Hires
from fromnoise.runtime.errors import UsageError
from tests.tiny import write_controlnet


def picture(size: tuple[int, int] = (16, 16)) -> bytes:
    return to_png(Image.new("RGB", size, "red"))


@pytest.fixture
def net(tmp_path: Path) -> str:
    return str(write_controlnet(tmp_path / "net"))


@pytest.fixture
def pipe(tiny_model: Path, net: str) -> Pipeline:
    return load(tiny_model, controls=[net], dtype="float32")


def test_its_picture_steers(pipe: Pipeline, net: str):
    steered, free = (pipe("a", seed=0, steps=1, controls=each)[0] for each in ((Control(net, picture()),), ()))
    assert steered.image.tobytes() != free.image.tobytes()
    assert [each.kind for each in steered.request.hashes] == ["control"]


@pytest.mark.parametrize("size", [(8, 8), (17, 17)])
def test_a_picture_of_another_size_is_refused(pipe: Pipeline, net: str, size: tuple[int, int]):
    with pytest.raises(UsageError, match=rf"the picture that .*net follows is \({size[0]}, .*, not \(16, 16\)"):
        pipe("a", seed=0, steps=1, controls=(Control(net, picture(size)),))


def test_an_upscaled_picture_s_are_fitted(pipe: Pipeline, net: str):
    given = {"init": picture(), "hires": Hires(2.0, "lanczos", strength=0.5), "seed": 0, "steps": 2}
    assert pipe("a", controls=(Control(net, picture((32, 32))),), **given)[0].image.size == (32, 32)


def test_what_is_no_picture_is_refused(pipe: Pipeline, net: str):
    with pytest.raises(UsageError, match="a control's picture must be a picture's bytes"):
        Control(net, "edges.png")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="none that can be read"):
        pipe("a", seed=0, steps=1, controls=(Control(net, b"abc"),))
    with pytest.raises(UsageError, match="the ControlNet other isn't loaded"):
        pipe("a", seed=0, steps=1, controls=(Control("other", picture()),))


def test_one_from_the_hub_is_remembered_too(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pulled, "cache_root", lambda: tmp_path)
    write_controlnet(tmp_path / "models--me--net" / "snapshots" / "main")
    pipe = load(tiny_model, controls=["me/net"], dtype="float32")
    request = pipe.resolve("a", seed=0, steps=1, controls=(Control("me/net", picture()),))
    assert [each.kind for each in request.hashes] == ["control"]
    pipe.controls = {"me/gone": pipe.controls["me/net"]}
    assert pipe.resolve("a", seed=0, steps=1, controls=(Control("me/gone", picture()),)).hashes == ()
