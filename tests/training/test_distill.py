"""Distillation at toy size: what a jump is, what is learnt from, what changes, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fromnoise.adapters import read_adapter
from fromnoise.checkpoints.folder import read_tensors
from fromnoise.diffusion.denoiser import scalings
from fromnoise.diffusion.samplers import sample_euler
from fromnoise.pipeline import Pipeline, load
from fromnoise.request import Request
from fromnoise.runtime.errors import UsageError
from fromnoise.text.known import KnownConcepts
from fromnoise.training.learner import Stop
from fromnoise.training.tuning import distill, running, trajectories
from fromnoise.training.tuning.distill import DistillRecipe, jump_example
from tests.adapters.models import bits, same_bits

QUICK: dict[str, Any] = {
    "teacher_steps": 8, "trajectories": 12, "steps": 12, "batch": 4, "check_every": 6, "sample_every": 0, "rank": 2,
    "rate": 5e-3, "warmup": 1, "patience": 99,
}  # fmt: skip


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n  a dog\na house\n")
    return path


def recipe(model: Path, **fields: Any) -> DistillRecipe:
    return DistillRecipe(**{**QUICK, "model": str(model), **fields})


def states(run: Path) -> torch.Tensor:
    return torch.cat([torch.load(each)["states"] for each in sorted((run / "trajectories").glob("*.pt"))])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_target_leads_to_the_next_state_in_one_euler_step(prediction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, following = torch.randn(2, 3, 4, 8, 8, generator=generator)
    sigma, sigma_next = torch.tensor([14.6, 1.6, 0.7]), torch.tensor([4.1, 0.7, 0.0])
    made = jump_example(x, following, sigma, sigma_next, prediction)
    for index in range(3):
        levels = torch.stack([sigma[index], sigma_next[index]]).double()

        def answered(noisy: torch.Tensor, level: torch.Tensor, index: int = index) -> torch.Tensor:
            scale = scalings(prediction, level)
            assert torch.allclose(scale.input * noisy, made.input[index], atol=1e-6)
            return scale.skip * noisy + scale.out * made.target[index]

        (step,) = sample_euler(answered, x[index : index + 1], levels)
        assert torch.allclose(step.x, following[index : index + 1], atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_without_noise_a_state_is_its_own_picture(prediction: str) -> None:
    """The boundary condition of a consistency function (Song et al. 2023, section 3), whatever the network says."""
    x, answer = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    scale = scalings(prediction, torch.zeros(2))
    assert torch.equal(scale.skip * x + scale.out * answer, x)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_errors_count_as_in_v(prediction: str) -> None:
    x, following = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma, sigma_next = torch.tensor([1.6]), torch.tensor([0.7])
    made = jump_example(x, following, sigma, sigma_next, prediction)
    off = 1.0 / scalings(prediction, sigma).out  # one unit off in the picture
    assert float(made.weight * off.square().mean()) == pytest.approx(1 + 1.6**-2)


def test_the_trajectories_are_the_teachers_drawings(tmp_path: Path, prompts: Path, tiny_model: Path) -> None:
    asked = recipe(tiny_model, guidance=3.0, seed=5)
    distill.train([prompts], tmp_path / "run", asked, tmp_path / "fast.safetensors")
    pipeline = load(tiny_model)
    captions = torch.load(tmp_path / "run" / "trajectories" / "000000.pt")["captions"]
    drawn = states(tmp_path / "run")
    assert set(captions) == {"a cat", "a dog", "a house"} and drawn.shape == (12, 5, 4, 8, 8)
    teacher = {"steps": 8, "guidance": 3.0, "sampler": "dpmpp-2m", "schedule": "trailing"}
    for index in (0, 7):
        steps = list(pipeline.steps(captions[index], seed=5 + index, **teacher))
        wanted = [steps[0].x0 if hasattr(steps[0], "x0") else drawn[index, 0], *(each.x[0] for each in steps[1::2])]
        error = (drawn[index] - torch.stack(wanted)).flatten(1).norm(dim=1) / torch.stack(wanted).flatten(1).norm(dim=1)
        assert float(error.max()) < 0.03  # the teacher may draw in bfloat16, from sigma instead of sqrt(sigma^2 + 1)


def test_the_loss_falls_and_the_base_stays(
    tmp_path: Path, prompts: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Pipeline] = []

    def remembered(*arguments: Any, **named: Any) -> Pipeline:
        opened.append(load(*arguments, **named))
        return opened[-1]

    monkeypatch.setattr(running, "load", remembered)
    result = distill.train([prompts], tmp_path / "run", recipe(tiny_model, steps=24), tmp_path / "fast.safetensors")
    assert result.best < 0.98 * result.first
    plain = load(tiny_model)
    for used, untouched in ((opened[0].unet, plain.unet), (opened[0].text.clip_text, plain.text.clip_text)):
        assert same_bits(used, bits(untouched))
    assert set(read_adapter(result.path).parts) == {"unet"}
    tensors = read_tensors(result.path)
    assert all(each.dtype == torch.float16 for name, each in tensors.items() if "lora_" in name.split(".", 1)[1])


class _Power(Stop):
    pass


def test_resuming_equals_not_stopping(tmp_path: Path, prompts: Path, tiny_model: Path) -> None:
    asked = recipe(tiny_model)
    whole = distill.train([prompts], tmp_path / "whole", asked, tmp_path / "whole.safetensors")

    def cut(done: int, *figures: float) -> None:
        if done == 7:
            raise _Power

    with pytest.raises(_Power):
        distill.train([prompts], tmp_path / "parts", asked, tmp_path / "parts.safetensors", show=cut)
    kept = tmp_path / "parts" / "trajectories" / "000000.pt"
    before = kept.stat().st_mtime_ns
    parts = distill.train([prompts], tmp_path / "parts", asked, tmp_path / "parts.safetensors", resume=True)
    assert kept.stat().st_mtime_ns == before
    one, other = read_tensors(whole.path), read_tensors(parts.path)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_kept_was_drawn_for_these_prompts(tmp_path: Path, prompts: Path, tiny_model: Path) -> None:
    distill.train([prompts], tmp_path / "run", recipe(tiny_model, steps=1), tmp_path / "fast.safetensors")
    prompts.write_text("a tree\n")
    with pytest.raises(UsageError, match="drawings of other prompts"):
        distill.train([prompts], tmp_path / "run", recipe(tiny_model, steps=1), tmp_path / "x", resume=True)


def test_prompts_from_captions_and_from_what_the_model_knows(tmp_path: Path, tiny_model: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    pipeline = load(tiny_model)
    with pytest.raises(UsageError, match=r"a\.png has no caption; write a\.txt beside it, or give a \.txt file"):
        trajectories.read_prompts([tmp_path], pipeline, 3, 0)
    (tmp_path / "a.txt").write_text("a black square")
    assert trajectories.read_prompts([tmp_path], pipeline, 2, 0) == ["a black square"] * 2
    with pytest.raises(UsageError, match="give prompts"):
        trajectories.read_prompts([], pipeline, 3, 0)
    pipeline.path = tmp_path
    known = KnownConcepts(["apple", "sun"], torch.eye(2), torch.zeros(2), 0.4, ["noto", "blob"])
    known.save(tmp_path)
    asked = trajectories.read_prompts([], pipeline, 60, 0)
    names = {f"{article} {label}" for article, label in (("an", "apple"), ("a", "sun"))}
    styled = {f"{name}, {style} style" for name in names for style in ("noto", "blob")}
    assert set(asked) == names | styled and sum(each in names for each in asked) == 6
    assert asked == trajectories.read_prompts([], pipeline, 60, 0) != trajectories.read_prompts([], pipeline, 60, 1)


def test_jumps_that_do_not_divide_the_teachers_steps(tmp_path: Path, prompts: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="3 jumps don't divide 8 steps of the teacher; try 12"):
        distill.train([prompts], tmp_path / "run", recipe(tiny_model, jumps=3), tmp_path / "fast.safetensors")


def test_the_file_says_how_to_draw_with_it(tmp_path: Path, prompts: Path, tiny_model: Path) -> None:
    asked = recipe(tiny_model, jumps=2, layout="peft")
    result = distill.train([prompts], tmp_path / "run", asked, tmp_path / "fast.safetensors")
    said = json.loads(read_adapter(result.path).metadata["fromnoise.fast"])
    assert said == {"steps": 2, "guidance": 1.0, "sampler": "euler", "schedule": "trailing"}
    assert isinstance(Request(**said), Request)


def test_it_goes_on_from_a_file_without_its_gain(tmp_path: Path, prompts: Path, tiny_model: Path) -> None:
    """The loss at the first step is the one that the file's run ended with, not that of a LoRA 1.3 times as strong."""
    first = recipe(tiny_model)
    distill.train([prompts], tmp_path / "first", first, tmp_path / "fast.safetensors")
    again = recipe(tiny_model, init=str(tmp_path / "fast.safetensors"), layout="peft")
    distill.train([prompts], tmp_path / "again", again, tmp_path / "more.safetensors")
    ended, begun = (losses(tmp_path / run) for run in ("first", "again"))
    assert begun[0] == pytest.approx(min(ended), rel=1e-3) and begun[0] < 0.99 * ended[0]


def test_a_gain_of_nothing_is_refused(tmp_path: Path, prompts: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="gain is 0; it has to be above 0"):
        distill.train([prompts], tmp_path / "run", recipe(tiny_model, gain=0.0), tmp_path / "fast.safetensors")


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["held_out_loss"] for line in lines if "held_out_loss" in line]
