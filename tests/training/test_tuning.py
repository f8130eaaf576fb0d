"""Textual inversion, LoRA, fine-tuning and DreamBooth at toy size: what learns, what stays, what is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from fromnoise.adapters import Adapter, match, read_adapter, read_embedding
from fromnoise.adapters import Lora as Factored
from fromnoise.checkpoints import Checkpoint, open_checkpoint
from fromnoise.checkpoints.convert import write_checkpoint
from fromnoise.checkpoints.folder import read_tensors
from fromnoise.engines import eager
from fromnoise.pipeline import Pipeline, load, loading
from fromnoise.request import Lora, Request
from fromnoise.runtime import device
from fromnoise.runtime.errors import UsageError
from fromnoise.text.conditioning import Conditioning
from fromnoise.training.learner import Stop
from fromnoise.training.tuning import dreambooth, finetune, inversion, lora, running
from fromnoise.training.tuning.factors import Factors
from fromnoise.training.tuning.samples import Pool, Sample
from fromnoise.training.tuning.task import Learns, Tuning, TuningTask, Words
from tests.adapters.models import bits, same_bits
from tests.training.killing import kill_when_saved

QUICK: dict[str, Any] = {"steps": 6, "batch": 2, "check_every": 3, "sample_every": 0, "sample_steps": 2, "rate": 0.01}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of two shapes, with captions beside them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, (colour, size) in enumerate([("red", (20, 20)), ("green", (20, 18)), ("blue", (40, 16))]):
        Image.new("RGB", size, colour).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"dot {index}\n")
    return folder


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Pipeline]:
    """The pipelines that trainers open."""
    opened: list[Pipeline] = []

    def remember(*arguments: Any, **named: Any) -> Pipeline:
        opened.append(load(*arguments, **named))
        return opened[-1]

    monkeypatch.setattr(running, "load", remember)
    return opened


def recipe(kind: type, model: Path, **fields: Any) -> Any:
    return kind(**{**QUICK, "model": str(model), **fields})


def invert(model: Path, **fields: Any) -> inversion.InversionRecipe:
    return recipe(inversion.InversionRecipe, model, **{"token": "<x>", "init": "dot", "rate": 1.0, **fields})


def test_inversion_changes_its_rows_and_no_other_weight(
    tmp_path: Path, pictures: Path, tiny_model: Path, kept: list[Pipeline]
) -> None:
    made = invert(tiny_model, vectors=2)
    inversion.train([pictures], tmp_path / "run", made, tmp_path / "x.safetensors")
    plain, pipeline = load(tiny_model), kept[0]
    parts = (pipeline.unet, plain.unet), (pipeline.autoencoder, plain.autoencoder)
    for used, untouched in (*parts, (pipeline.text.clip_text, plain.text.clip_text)):
        assert same_bits(used, bits(untouched))
    found = read_embedding(tmp_path / "x.safetensors")
    rows, first = next(iter(found.vectors.values())), inversion.first_rows(plain, made)["text_encoder"]
    assert (found.token, rows.shape) == ("<x>", first.shape)
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)["rows.text_encoder"]
    now = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["model"]["rows.text_encoder"]
    assert torch.equal(rows, best)
    assert not torch.equal(now[0], first[0]) and not torch.equal(now[1], first[1])
    picture = plain(Request("a <x>", seed=0, steps=2, embeddings=(str(tmp_path / "x.safetensors"),)))[0]
    assert picture.image.size == (16, 16)


@pytest.mark.parametrize(("token", "words"), [("a", "a word that the model has"), ("my cat", "can't be a token")])
def test_a_token_must_be_new(tmp_path: Path, pictures: Path, tiny_model: Path, token: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        inversion.train([pictures], tmp_path / "run", invert(tiny_model, token=token), tmp_path / "x.safetensors")
    assert not (tmp_path / "run").exists()


TRAINERS = {
    "inversion": (inversion.train, inversion.InversionRecipe, {"token": "<x>", "init": "dot"}),
    "lora": (lora.train, lora.LoraRecipe, {"rank": 2, "dropout": 0.2, "text_encoder": True, "flip": True}),
    "finetune": (
        finetune.train,
        finetune.FinetuneRecipe,
        {"average": 4, "noise_offset": 0.1, "steps": 9, "rate": 1e-3},
    ),
    "dreambooth": (
        dreambooth.train,
        dreambooth.DreamboothRecipe,
        {"token": "x", "subject": "dot", "class_pictures": 2, "lora": True},
    ),
}


def train(name: str, pictures: Path, model: Path, run: Path, *, resume: bool = False, **more: Any) -> Path:
    trainer, kind, fields = TRAINERS[name]
    output = run.parent / f"{run.name}.safetensors"
    trainer([pictures], run, recipe(kind, model, **{**fields, **more}), output, resume=resume)  # type: ignore[operator]
    return output


def learnt(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoint.pt", weights_only=True)["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class _Power(Stop):
    pass


@pytest.mark.parametrize("name", TRAINERS)
def test_resuming_equals_not_stopping(tmp_path: Path, pictures: Path, tiny_model: Path, name: str) -> None:
    whole = train(name, pictures, tiny_model, tmp_path / "whole")
    trainer, kind, fields = TRAINERS[name]

    def cut(done: int, *figures: float) -> None:
        if done == 4:
            raise _Power

    with pytest.raises(_Power):
        trainer(
            [pictures], tmp_path / "parts", recipe(kind, tiny_model, **fields), tmp_path / "p.safetensors", show=cut
        )
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["step"] == 4
    parts = train(name, pictures, tiny_model, tmp_path / "parts", resume=True)
    assert same(learnt(tmp_path / "whole"), learnt(tmp_path / "parts"))
    assert same(read_tensors(whole), read_tensors(parts))


def test_a_resumed_run_keeps_what_was_computed_before(
    tmp_path: Path, pictures: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("finetune", pictures, tiny_model, tmp_path / "whole")

    def cut(done: int, *figures: float) -> None:
        if done == 4:
            raise _Power

    trainer, kind, fields = TRAINERS["finetune"]
    given = [pictures], tmp_path / "parts", recipe(kind, tiny_model, **fields), tmp_path / "p.safetensors"
    with pytest.raises(_Power):
        trainer(*given, show=cut)
    exactly = Words._encode

    def roughly(self: Words, captions: Sequence[str]) -> Conditioning:
        return Conditioning(exactly(self, captions).words * 1.01)

    monkeypatch.setattr(Words, "_encode", roughly)
    parts = train("finetune", pictures, tiny_model, tmp_path / "parts", resume=True)
    assert same(read_tensors(whole), read_tensors(parts))


def test_a_run_is_not_resumed_with_other_pictures(tmp_path: Path, pictures: Path, tiny_model: Path) -> None:
    train("finetune", pictures, tiny_model, tmp_path / "run")
    Image.new("RGB", (20, 20), "white").save(pictures / "0.png")
    (tmp_path / "run.safetensors").unlink()
    with pytest.raises(UsageError, match="aren't those"):
        train("finetune", pictures, tiny_model, tmp_path / "run", resume=True)


def test_sigkill_loses_nothing_that_a_resume_needs(tmp_path: Path, pictures: Path, tiny_model: Path) -> None:
    steps = {"steps": 20, "minutes": 0.0001}
    whole = train("lora", pictures, tiny_model, tmp_path / "whole", **steps)
    code = f"""
from pathlib import Path
import torch
from tests.training.test_tuning import train
torch.set_num_threads(1)
train("lora", *map(Path, {[str(pictures), str(tiny_model), str(tmp_path / "killed")]!r}), **{steps!r})
"""
    assert 0 < kill_when_saved(code, tmp_path / "killed" / "checkpoint.pt") < 20
    resumed = train("lora", pictures, tiny_model, tmp_path / "killed", resume=True, **steps)
    assert same(read_tensors(whole), read_tensors(resumed))


def test_a_run_goes_on_only_with_its_own_settings(tmp_path: Path, pictures: Path, tiny_model: Path) -> None:
    train("lora", pictures, tiny_model, tmp_path / "run")
    with pytest.raises(UsageError, match="has a checkpoint"):
        train("lora", pictures, tiny_model, tmp_path / "run")
    with pytest.raises(UsageError, match="started with other settings"):
        train("lora", pictures, tiny_model, tmp_path / "run", resume=True, seed=3)


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_a_lora_is_written_and_the_base_stays(
    tmp_path: Path, pictures: Path, tiny_model: Path, kept: list[Pipeline], layout: str
) -> None:
    made = recipe(lora.LoraRecipe, tiny_model, rank=2, alpha=4.0, layout=layout, text_encoder=True)
    result = lora.train([pictures], tmp_path / "run", made, tmp_path / "x.safetensors")
    assert result.best < result.first
    plain = load(tiny_model)
    assert same_bits(kept[0].unet, bits(plain.unet))
    adapter = read_adapter(result.path)
    assert {part: len(named) for part, named in adapter.parts.items()} == {"unet": 79, "text_encoder": 12}
    request = Request("dot 0", seed=0, steps=2)
    drawn = [plain(each)[0].image for each in (request, request.with_(loras=(Lora(str(result.path)),)))]
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_a_written_lora_draws_as_the_one_that_learnt(tmp_path: Path, pictures: Path, tiny_model: Path) -> None:
    files = []
    for layout in ("kohya", "peft"):
        made = recipe(lora.LoraRecipe, tiny_model, rank=2, alpha=3.0, layout=layout)
        files.append(lora.train([pictures], tmp_path / layout, made, tmp_path / f"{layout}.safetensors").path)
    one, other = (read_adapter(each).parts["unet"] for each in files)
    deltas = zip(one.values(), (other[name] for name in sorted_as(one, other)), strict=True)
    for mine, theirs in deltas:
        torch.testing.assert_close(mine.delta(), theirs.delta(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layout", ["kohya", "peft"])
@pytest.mark.parametrize("more", [{}, {"rank": 5, "alpha": 2.0}])
def test_a_lora_goes_on_from_another(
    tmp_path: Path, pictures: Path, tiny_model: Path, layout: str, more: dict[str, Any]
) -> None:
    """What it begins with acts as the file does, whatever the ranks and strengths: rows of its own start at nothing."""
    file = train("lora", pictures, tiny_model, tmp_path / "first", layout=layout, dropout=0.0)
    made = recipe(lora.LoraRecipe, tiny_model, **{"rank": 2, "text_encoder": True, "init": str(file), **more})
    pipeline = load(tiny_model)
    begun, modules = lora.new_factors(pipeline, made).adapter(), lora.modules_of(pipeline)
    theirs, ours = (match(each, modules).places for each in (read_adapter(file), begun))
    assert theirs.keys() == ours.keys() == {"unet", "text_encoder"}
    for part, places in theirs.items():
        assert places.keys() == ours[part].keys()
        for name, place in places.items():
            assert torch.allclose(ours[part][name].factors.delta(), place.factors.delta().float(), atol=1e-6)
    assert any(bool(each.factors.delta().any()) for each in ours["unet"].values())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rank": 1}, "has rank 2 and 1 is learnt; give --rank 2"),
        ({"text_encoder": False}, "which doesn't learn here; give --text-encoder"),
        ({"attention": True}, "which doesn't learn here; leave out --attention"),
        ({"init": "none.safetensors"}, "none.safetensors"),
    ],
)
def test_what_a_lora_can_not_go_on_from_is_said_before_anything_is_written(
    tmp_path: Path, pictures: Path, tiny_model: Path, fields: dict[str, Any], words: str
) -> None:
    file = train("lora", pictures, tiny_model, tmp_path / "first")
    with pytest.raises(UsageError, match=words):
        train("lora", pictures, tiny_model, tmp_path / "second", **{"init": str(file), **fields})
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("layer", "mid", "words"),
    [
        ("conv_in", False, "unet conv_in, which doesn't learn here; only the U-Net's blocks do"),
        ("down_blocks.9.resnets.0.conv1", False, "changes what the model lacks"),
        (None, True, "is no plain LoRA"),
    ],
)
def test_nothing_of_a_lora_is_lost_in_silence(tiny_model: Path, layer: str | None, mid: bool, words: str) -> None:
    pipeline = load(tiny_model)
    modules, block = lora.modules_of(pipeline), "mid_block.resnets.0.conv1"
    width = pipeline.unet.get_submodule(block).weight.shape[0]
    middle = torch.ones(1, 1, 3, 3) if mid else None
    down = torch.ones(1, width) if mid else torch.ones(1, width, 3, 3)
    its: dict[str, Any] = {block: Factored(torch.ones(width, 1), down, middle)}
    if layer is not None:
        inputs = pipeline.unet.config.in_channels
        wide = pipeline.unet.conv_in.weight.shape[0]
        its[layer] = Factored(torch.ones(wide, 1), torch.ones(1, inputs, 3, 3))
    begun = Factors(modules, 2, 2.0, 0.0, 0)
    with pytest.raises(UsageError, match=words):
        begun.take(match(Adapter("x", "lora", {"unet": its}), modules))


def test_a_whole_model_does_not_go_on_from_a_lora(tmp_path: Path, pictures: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="init is a LoRA to go on from; give --lora"):
        train("dreambooth", pictures, tiny_model, tmp_path / "run", lora=False, init="x.safetensors")
    assert not (tmp_path / "run").exists()


def sorted_as(one: Any, other: Any) -> list[str]:
    """The other layout's names in the order of the first's."""
    names = {name.replace(".", "_"): name for name in other}
    return [names[name] for name in one]


def test_finetuning_writes_a_model(tmp_path: Path, pictures: Path, tiny_model: Path) -> None:
    made = recipe(finetune.FinetuneRecipe, tiny_model, average=4, empty=0.3, rate=1e-3, warmup=1, steps=16)
    result = finetune.train([pictures], tmp_path / "run", made, tmp_path / "model")
    assert result.best < result.first
    unet = load(tmp_path / "model").unet
    assert same(bits(unet), torch.load(tmp_path / "run" / "best.pt", weights_only=True))
    assert not same_bits(unet, bits(load(tiny_model).unet))
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(theirs.unet.conv_in.weight, unet.conv_in.weight)


def test_dreambooth_keeps_the_class(tmp_path: Path, pictures: Path, tiny_model: Path) -> None:
    made = recipe(dreambooth.DreamboothRecipe, tiny_model, token="sks", subject="dot", class_pictures=2, rate=1e-3)
    result = dreambooth.train([pictures], tmp_path / "run", made, tmp_path / "model")
    assert sorted(each.name for each in (tmp_path / "run" / "class").glob("*.png")) == ["0000.png", "0001.png"]
    assert load(result.path).unet.config == load(tiny_model).unet.config
    with pytest.raises(UsageError, match="--class dog"):
        dreambooth.train([pictures], tmp_path / "no", replace(made, subject=""), tmp_path / "no-model")


def test_it_stops_when_nothing_gets_better_and_says_why(
    tmp_path: Path, pictures: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "fromnoise"):
        train("lora", pictures, tiny_model, tmp_path / "run", steps=50, check_every=2, patience=2, rate=1e-12)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] < 50
    assert "the loss on nearer views of the pictures has not got better" in caplog.text
    assert "parameters learn" in caplog.text and "s a step" in caplog.text
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    written = read_tensors(tmp_path / "run.safetensors")
    ups = {key: each for key, each in best.items() if key.endswith("/up")}
    assert sum(key.endswith("lora_up.weight") for key in written) == len(ups)


def test_pictures_are_drawn_on_the_way(tmp_path: Path, pictures: Path, tiny_model: Path) -> None:
    train("inversion", pictures, tiny_model, tmp_path / "run", sample_every=3)
    names = {each.name for each in (tmp_path / "run" / "samples").iterdir()}
    assert {"step-000000.png", "step-000003.png", "step-000006.png"} <= names
    assert (tmp_path / "run" / "sheet.png").exists()


@pytest.mark.parametrize(("asked", "taken"), [(0, None), (2, 2)])
def test_a_class_is_drawn_in_the_models_own_steps_unless_told(
    asked: int, taken: int | None, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[Request] = []
    drawn = Pipeline.__call__
    monkeypatch.setattr(Pipeline, "__call__", lambda self, it: requests.append(it) or drawn(self, it.with_(steps=1)))
    settings = recipe(dreambooth.DreamboothRecipe, tiny_model, subject="dot", class_pictures=2, sample_steps=asked)
    dreambooth.class_samples(load(tiny_model), tmp_path, settings, lambda *_: None)
    assert [each.steps for each in requests] == [taken, taken]


@pytest.mark.parametrize("name", ["finetune", "dreambooth"])
def test_what_is_drawn_is_said_as_it_is_learnt(tmp_path: Path, pictures: Path, tiny_model: Path, name: str) -> None:
    """A caption has no grammar: a tag in it asks for no adapter."""
    said = "dot <lora:foo:1> {a|b} (c:1.3)"
    for each in pictures.glob("*.txt"):
        each.write_text(said)
    more = {"subject": said} if name == "dreambooth" else {}
    train(name, pictures, tiny_model, tmp_path / "run", sample_every=3, **more)
    assert (tmp_path / "run" / "sheet.png").exists()


def test_sizes_take_turns_by_how_many_they_have() -> None:
    samples = [Sample(torch.zeros(1, 4, 2, width), (str(width),)) for width in (2, 2, 2, 4)]
    pool = Pool(samples)
    widths = [pool.batch(0, step, 3)[0][0].shape[2] for step in range(40)]
    assert (widths.count(2), widths.count(4)) == (30, 10)
    assert all(len({each.shape for each, _ in pool.batch(0, step, 3)}) == 1 for step in range(40))
    fresh = Pool(samples)
    assert [draw for _, draw in fresh.batch(0, 25, 3)] == [draw for _, draw in pool.batch(0, 25, 3)]


def test_a_base_without_a_network_is_named(tmp_path: Path, pictures: Path, tiny_model: Path) -> None:
    vae = open_checkpoint(tiny_model).parts["vae"]
    write_checkpoint(Checkpoint(tmp_path, "custom", {"vae": vae}), tmp_path / "vae.safetensors")
    with pytest.raises(UsageError, match="has no unet"):
        running.opened(lora.LoraRecipe(model=str(tmp_path / "vae.safetensors")))


@pytest.mark.parametrize(("whole", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_what_learns_as_a_whole_is_float32_and_no_network_that_learns_is_packed(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, whole: bool, dtype: torch.dtype
) -> None:
    for module, size in ((running, "LARGE"), (loading, "LARGE"), (eager, "LARGE"), (eager, "SMALL"), (device, "SMALL")):
        monkeypatch.setattr(module, size, 1)
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: True)
    opened = running.opened(lora.LoraRecipe(model=str(tiny_model)), whole=whole)
    opened("a cat", seed=1, steps=1)
    assert {(each.dtype, each.is_mkldnn) for each in opened.unet.parameters()} == {(dtype, False)}
    assert any(each.is_mkldnn for each in opened.autoencoder.parameters())


@pytest.mark.parametrize(("gamma", "alike"), [(0.0, True), (5.0, False)])
def test_without_gamma_all_noise_levels_count_alike(tiny_model: Path, gamma: float, alike: bool) -> None:
    pipe = load(tiny_model)
    task = TuningTask(pipe, Learns(nn.Module(), pipe.prompts), (), Tuning(gamma=gamma))
    latents = [torch.zeros(pipe.unet.config.in_channels, 4, 4)] * 2
    weights = task.noisy(latents, latents, [10, 900], ["", ""]).example.weight
    assert (weights.tolist() == [1.0, 1.0]) is alike
