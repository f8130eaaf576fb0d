"""Pictures a second while a LoRA learns: this trainer against diffusers' example script, in turns, in one run.

usage: python benchmarks/tuning_throughput.py PICTURES [--batch N] [--steps N] [--rounds N]

The peer is the loop of diffusers' `train_text_to_image_lora.py`, built from the same modules of diffusers,
transformers and peft, in float32 (its default) and with what `--mixed_precision bf16` does: pictures are encoded and
captions read at every step. Both learn twice: with factors beside attention's four projections, as the script has them
(ours with `--attention`), and beside every linear and convolutional layer of the blocks, as ours has them by default.
Ours makes latents and captions' states once. All read the same pictures from memory. The script's own batch is 16.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.images.convert import to_tensor
from fromnoise.runtime.device import cpu_name
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.training.callbacks import MixedPrecision
from fromnoise.training.learner import Learner
from fromnoise.training.optimizers import adamw
from fromnoise.training.tuning.factors import learning_factors
from fromnoise.training.tuning.lora import LoraRecipe, new_factors
from fromnoise.training.tuning.pictures import Captioned, fitted, read_captioned
from fromnoise.training.tuning.running import opened
from fromnoise.training.tuning.samples import Pool, encoded
from fromnoise.training.tuning.task import TuningTask

RANK, RATE, CLIP = 8, 1e-4, 1.0
ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}

Step = Callable[[int], float]
"""Makes one training step and gives its loss."""


def ours(pictures: list[Captioned], batch: int, *, attention: bool = False) -> tuple[Step, int, list[str]]:
    """A step of this trainer, how many parameters learn, and the layers that have factors."""
    recipe = LoraRecipe(rank=RANK, batch=batch, rate=RATE, attention=attention)
    pipeline = opened(recipe)
    factors = new_factors(pipeline, recipe)
    samples = encoded(pipeline, pictures, [(str(each.caption),) for each in pictures])
    task = TuningTask(pipeline, learning_factors(pipeline, factors), [Pool(samples)], recipe)
    learner = Learner(task, adamw(factors.parameters()), [MixedPrecision()])

    def step(index: int) -> float:
        learner.step_index = index
        learner.one_step()
        return learner.last_loss

    return step, sum(each.numel() for each in factors.parameters()), list(factors.loras["unet"])


class Script:
    """The example script's loop: `dtype` is what its frozen weights are cast to, `layers` get factors."""

    def __init__(
        self, model: Path, pictures: list[Captioned], batch: int, dtype: torch.dtype, layers: list[str]
    ) -> None:
        import diffusers
        import peft
        from transformers import CLIPTextModel, CLIPTokenizer

        self.batch, self.dtype = batch, dtype
        self.noise = diffusers.DDPMScheduler.from_pretrained(model, subfolder="scheduler")
        self.vae = diffusers.AutoencoderKL.from_pretrained(model, subfolder="vae").requires_grad_(False).to(dtype)
        self.text = CLIPTextModel.from_pretrained(model, subfolder="text_encoder").requires_grad_(False).to(dtype)
        self.unet = diffusers.UNet2DConditionModel.from_pretrained(model, subfolder="unet").requires_grad_(False)
        self.unet.to(dtype)
        config = peft.LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=layers)
        self.unet.add_adapter(config)
        self.learns = [each for each in self.unet.parameters() if each.requires_grad]
        for each in self.learns:
            each.data = each.data.float()
        self.optimizer = torch.optim.AdamW(self.learns, lr=RATE, weight_decay=1e-2)
        size = (int(self.vae.config.sample_size),) * 2
        self.pixels = torch.cat([to_tensor(fitted(each.open(), size)) for each in pictures])
        tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
        padded: dict[str, Any] = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        captions = [str(each.caption) for each in pictures]
        self.tokens = tokenizer(captions, max_length=tokenizer.model_max_length, **padded).input_ids

    def __call__(self, index: int) -> float:
        """Encode, make noisy, predict, step."""
        chosen = torch.randint(len(self.pixels), (self.batch,), generator=torch.Generator().manual_seed(index))
        latents = self.vae.encode(self.pixels[chosen].to(self.dtype)).latent_dist.sample()
        latents = latents * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        times = torch.randint(0, self.noise.config.num_train_timesteps, (self.batch,))
        noisy = self.noise.add_noise(latents, noise, times)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            words = self.text(self.tokens[chosen], return_dict=False)[0]
            answer = self.unet(noisy, times, words, return_dict=False)[0]
        loss = F.mse_loss(answer.float(), self._target(latents, noise, times).float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learns, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def _target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        v = self.noise.config.prediction_type == "v_prediction"
        return self.noise.get_velocity(latents, noise, times) if v else noise


def seconds_a_step(step: Step, first: int, steps: int) -> float:
    """The mean of so many steps."""
    before = time.perf_counter()
    for index in range(first, first + steps):
        step(index)
    return (time.perf_counter() - before) / steps


def main() -> None:
    """Take turns, and print medians as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4, help="steps a turn")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    pictures = read_captioned([asked.pictures])[:40]
    made = {name: ours(pictures, asked.batch, attention=name == "attention") for name in ("attention", "all")}
    steppers: dict[str, Step] = {f"this trainer, {name}": step for name, (step, _, _) in made.items()}
    learnt = {f"this trainer, {name}": count for name, (_, count, _) in made.items()}
    for (name, (_, _, layers)), (said, dtype) in product(made.items(), DTYPES.items()):
        script = Script(EMBEDDED_MODEL, pictures, asked.batch, dtype, ATTENTION if name == "attention" else layers)
        steppers[f"script, {name}, {said}"] = script
        learnt[f"script, {name}, {said}"] = sum(each.numel() for each in script.learns)
    for step in steppers.values():
        seconds_a_step(step, 0, 2)
    taken: dict[str, list[float]] = {name: [] for name in steppers}
    for turn in range(asked.rounds):
        for name, step in steppers.items():
            taken[name].append(seconds_a_step(step, 2 + turn * asked.steps, asked.steps))
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, batch {asked.batch}\n")
    print("| | parameters that learn | s a step, median | pictures/s | this trainer, same layers |")
    print("|---|---|---|---|---|")
    for name, each in taken.items():
        own = taken[f"this trainer, {name.split(', ')[1]}"]
        ratio = median(other / mine for other, mine in zip(each, own, strict=True))
        print(f"| {name} | {learnt[name]:,} | {median(each):.3f} | {asked.batch / median(each):.1f} | {ratio:.2f}× |")


if __name__ == "__main__":
    main()
