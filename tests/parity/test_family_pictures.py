"""Every family's whole line: the same checkpoint, seed and settings in diffusers and here, within 1/255 per pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.images.convert import to_images
from fromnoise.images.opening import to_png
from fromnoise.models.published import FAMILIES
from fromnoise.pipeline import load
from fromnoise.pipeline.scheduler import HABITS, Habits
from fromnoise.request import Control
from tests.small_families import small

EULER = {"sampler": "euler", "schedule": "linspace"}
INPAINTED_WITH = {
    "euler": diffusers.EulerDiscreteScheduler,
    "euler-a": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
}
PROMPT, NEGATIVE = "a red apple on a table", "blurry"


def drawn_with(habits: Habits) -> dict[str, Any]:
    return {name: getattr(habits, name) for name in ("steps", "guidance", "sampler", "schedule")}


def picture(side: int, seed: int = 3) -> Image.Image:
    """Smooth random colours."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return to_images(torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic"))[0]


def reference(
    kind: Any, folder: Path, scheduler: Any = None, parts: Mapping[str, Any] | None = None, **settings: Any
) -> Image.Image:
    pipe = kind.from_pretrained(folder, **(parts or {}))
    pipe.set_progress_bar_config(disable=True)
    if scheduler:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, timestep_spacing="linspace")
    return pipe(PROMPT, generator=torch.Generator().manual_seed(5), **settings).images[0]


def require_same(ours: Image.Image, theirs: Image.Image) -> None:
    mine, other = (np.asarray(each).astype(int) for each in (ours, theirs))
    assert other.std() > 5, "a flat picture proves nothing"
    assert np.abs(mine - other).max() <= 1


@pytest.mark.parametrize("family", ["sd1", "sd2-base", "sd2", "sdxl"])
def test_text_to_image(folders: Callable[[str], Path], family: str) -> None:
    kind = getattr(diffusers, FAMILIES[family].pipeline_class)
    theirs = reference(
        kind,
        folders(family),
        scheduler=diffusers.EulerDiscreteScheduler,
        negative_prompt=NEGATIVE,
        num_inference_steps=4,
        guidance_scale=3.0,
    )
    ours = load(folders(family), dtype="float32")(PROMPT, negative=NEGATIVE, seed=5, steps=4, guidance=3.0, **EULER)
    require_same(ours[0].image, theirs)


def test_sdxl_without_a_negative_prompt_and_another_size(folders: Callable[[str], Path]) -> None:
    theirs = reference(
        diffusers.StableDiffusionXLPipeline,
        folders("sdxl"),
        scheduler=diffusers.EulerDiscreteScheduler,
        num_inference_steps=3,
        guidance_scale=4.0,
        height=96,
        width=160,
    )
    ours = load(folders("sdxl"), dtype="float32")(PROMPT, seed=5, steps=3, guidance=4.0, **EULER, size=(160, 96))
    require_same(ours[0].image, theirs)


@pytest.mark.parametrize(("family", "steps"), [("sd-turbo", 1), ("sdxl-turbo", 2)])
def test_turbo(folders: Callable[[str], Path], family: str, steps: int) -> None:
    kind = getattr(diffusers, FAMILIES[family].pipeline_class)
    theirs = reference(kind, folders(family), num_inference_steps=steps, guidance_scale=0.0)
    habits = drawn_with(HABITS[family]) | {"steps": steps}
    require_same(load(folders(family), dtype="float32")(PROMPT, seed=5, **habits)[0].image, theirs)


def test_latent_consistency(folders: Callable[[str], Path]) -> None:
    theirs = reference(
        diffusers.LatentConsistencyModelPipeline, folders("lcm"), num_inference_steps=3, guidance_scale=8.5
    )
    habits = drawn_with(HABITS["lcm"]) | {"steps": 3, "guidance": 8.5}
    require_same(load(folders("lcm"), dtype="float32")(PROMPT, seed=5, **habits)[0].image, theirs)


@pytest.mark.parametrize("sampler", INPAINTED_WITH)
@pytest.mark.parametrize("strength", [1.0, 0.7])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sd1-inpaint", "sd2-inpaint"])
def test_inpainting(folders: Callable[[str], Path], family: str, strength: float, sampler: str) -> None:
    """With an ordinary network (4 channels) the latents are blended at every step, with the others nothing is."""
    side = 8 * small(family, "unet")["sample_size"]
    start, mask = picture(side), Image.new("L", (side, side))
    mask.paste(255, (3, 13, 43, 45))
    theirs = reference(
        diffusers.StableDiffusionInpaintPipeline,
        folders(family),
        scheduler=INPAINTED_WITH[sampler],
        image=start,
        mask_image=mask,
        strength=strength,
        num_inference_steps=4,
        guidance_scale=3.0,
        height=side,
        width=side,
    )
    given = {"init": to_png(start), "mask": to_png(mask), "strength": strength, "like": "diffusers"}
    ours = load(folders(family), dtype="float32")(
        PROMPT, seed=5, steps=4, guidance=3.0, **EULER | {"sampler": sampler}, **given
    )
    require_same(ours[0].image, theirs)


@pytest.mark.parametrize("family", ["sd1", "sd1-inpaint"])
def test_inpainting_the_surroundings_of_a_mask_alone(folders: Callable[[str], Path], family: str) -> None:
    """diffusers' `padding_mask_crop`: the region is cut out, drawn at the model's size and put back."""
    side = 8 * small(family, "unet")["sample_size"]
    start, mask = picture(2 * side), Image.new("L", (2 * side, 2 * side))
    mask.paste(255, (30, 41, 70, 80))
    theirs = reference(
        diffusers.StableDiffusionInpaintPipeline,
        folders(family),
        scheduler=diffusers.EulerDiscreteScheduler,
        image=start,
        mask_image=mask,
        strength=1.0,
        num_inference_steps=3,
        guidance_scale=3.0,
        height=side,
        width=side,
        padding_mask_crop=7,
    )
    given = {"init": to_png(start), "mask": to_png(mask), "strength": 1.0, "mask_padding": 7, "mask_blur": 0}
    settings = {"seed": 5, "steps": 3, "guidance": 3.0, "like": "diffusers", "size": (side, side)}
    ours = load(folders(family), dtype="float32")(PROMPT, **EULER, **settings, **given)
    require_same(ours[0].image, theirs)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("sd1", diffusers.StableDiffusionControlNetPipeline),
        ("sd2", diffusers.StableDiffusionControlNetPipeline),
        ("sdxl", diffusers.StableDiffusionXLControlNetPipeline),
    ],
)
def test_two_control_nets(folders: Callable[[str], Path], family: str, kind: Any) -> None:
    nets = f"controlnet-{family}"
    side = 8 * small(family, "unet")["sample_size"]
    hints = [picture(side, seed) for seed in (7, 8)]
    net = diffusers.ControlNetModel.from_pretrained(folders(nets))
    theirs = reference(
        kind,
        folders(family),
        parts={"controlnet": [net, net]},
        scheduler=diffusers.EulerDiscreteScheduler,
        image=hints,
        controlnet_conditioning_scale=[0.8, 0.4],
        control_guidance_start=[0.0, 0.25],
        control_guidance_end=[0.75, 1.0],
        num_inference_steps=4,
        guidance_scale=3.0,
    )
    name = str(folders(nets))
    controls = (Control(name, to_png(hints[0]), 0.8, 0.0, 0.75), Control(name, to_png(hints[1]), 0.4, 0.25, 1.0))
    pipe = load(folders(family), controls=[folders(nets)], dtype="float32")
    ours = pipe(PROMPT, seed=5, steps=4, guidance=3.0, **EULER, controls=controls)
    require_same(ours[0].image, theirs)


@pytest.mark.parametrize(
    ("family", "name", "kind"),
    [
        ("sd1", "taesd", diffusers.StableDiffusionPipeline),
        ("sdxl", "taesdxl", diffusers.StableDiffusionXLPipeline),
    ],
)
def test_a_tiny_autoencoder_in_place_of_the_models(
    folders: Callable[[str], Path], family: str, name: str, kind: Any
) -> None:
    tiny = diffusers.AutoencoderTiny.from_pretrained(folders(name))
    theirs = reference(
        kind,
        folders(family),
        parts={"vae": tiny},
        scheduler=diffusers.EulerDiscreteScheduler,
        num_inference_steps=4,
        guidance_scale=3.0,
    )
    ours = load(folders(family), vae=folders(name), dtype="float32")(PROMPT, seed=5, steps=4, guidance=3.0, **EULER)
    require_same(ours[0].image, theirs)
