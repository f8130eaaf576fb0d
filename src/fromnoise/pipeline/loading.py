"""From a checkpoint on disk to a pipeline that draws. Nothing is ever downloaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fromnoise.checkpoints import Checkpoint, Part, open_checkpoint
from fromnoise.checkpoints.building import build, eight_bit_names
from fromnoise.checkpoints.loading import Ready, leave
from fromnoise.checkpoints.tokenizers import tokenizer_of
from fromnoise.engines.eager import LARGE, pack, pack_numbers, pays, prepare
from fromnoise.engines.names import AUTO, EAGER, INT8
from fromnoise.hub import found
from fromnoise.nn.eight_bit import plain_layers, supported
from fromnoise.pipeline.agreeing import require_agreeing, require_readable, require_steerable
from fromnoise.pipeline.drawing import Pipeline
from fromnoise.pipeline.scheduler import HABITS, Habits, Scheduler
from fromnoise.pipeline.turns import Turns
from fromnoise.runtime.device import pick_device, pick_dtype
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.memory import kept
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.text import PromptEncoder, TextEncoder
from fromnoise.text.conditioning import READINGS

NEEDED = ("unet", "vae", "text_encoder")
FLAGS = {"unet": "--unet", "vae": "--vae", "controlnet": "--control"}
TEXTS = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))


def load(
    model: str | Path | None = None,
    *,
    unet: str | Path | None = None,
    vae: str | Path | None = None,
    controls: Sequence[str | Path] = (),
    prediction: str | None = None,
    wildcards: str | Path | None = None,
    lora_folder: str | Path | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    engine: str = AUTO,
    low_memory: bool = False,
) -> Pipeline:
    """A pipeline from a Stable Diffusion folder or file in any published layout, or the embedded model.

    A name that `fromnoise pull owner/name` fetched does for a path; nothing is fetched here. `unet` and `vae` name
    checkpoints, or lone parts, that replace the model's own; `controls` are ControlNets, which a request calls by the
    same names. `prediction` ("epsilon" or "v_prediction") is for files that don't tell. The
    animal.txt of `wildcards` answers `__animal__` in a prompt, the cat.safetensors of `lora_folder` `<lora:cat:0.8>`.
    With `low_memory` text encoder, U-Net and autoencoder take turns in memory, read anew each time; eager, on a CPU,
    for models that aren't in int8.
    `dtype` None (or "auto") is bfloat16 for networks of ten million parameters and more on hardware that computes with
    it, else float32; a model that `fromnoise optimize` wrote computes in int8 then, and with any other dtype in that.
    `engine` is one of `engines.names.ENGINES`.
    Raises UsageError when there is no such model, FromnoiseError naming the file when a part is damaged, of another
    family or doesn't fit the others.
    """
    path = EMBEDDED_MODEL if model is None else found(model)
    checkpoint = open_checkpoint(path, prediction=prediction)
    if missing := [name for name in NEEDED if name not in checkpoint.parts]:
        raise UsageError(f"{path} has no {missing[0]}, so it can't draw by itself{_use(checkpoint)}")
    others = {name: open_checkpoint(found(other)) for name, other in (("unet", unet), ("vae", vae)) if other}
    replaced = {name: _taken(name, other).instead_of(checkpoint.parts[name]) for name, other in others.items()}
    parts = {**checkpoint.parts, **replaced}
    require_agreeing(parts)
    steering = {str(each): _taken("controlnet", open_checkpoint(found(each))) for each in controls}
    for control in steering.values():
        require_steerable(parts["unet"], control)
    if prediction is None and "unet" in others:
        prediction = others["unet"].scheduler.get("prediction_type")
    where = pick_device(device)
    size = parameters(parts["unet"])
    form = dtype if isinstance(dtype, torch.dtype) else pick_dtype(None if dtype == INT8 else dtype, where, size)

    in_numbers = dtype in (None, AUTO, INT8) and computes_in_int8(parts["unet"], where, dtype == INT8)
    if low_memory:
        _require_turns(parts["unet"], where, engine, in_numbers)
    turns = Turns()
    plain = where.type == "cpu" and engine in (AUTO, EAGER) and not eight_bit_names(parts["unet"].config)
    at_once = plain and size >= LARGE and pays(size)

    def loaded(part: Part) -> Any:
        module = (packed if at_once and part is parts["unet"] else filled)(part, where, form)
        if not in_numbers:
            plain_layers(module, form)
        return module

    def built(part: Part) -> Any:
        return waiting(part, form, turns, size) if low_memory else loaded(part)

    pipe = Pipeline(
        prompts=_prompts(checkpoint, built),
        unet=built(parts["unet"]),
        autoencoder=built(parts["vae"]),
        scheduler=Scheduler.from_json(checkpoint.scheduler, prediction),
        habits=HABITS.get(checkpoint.family, Habits()),
        controls={name: loaded(control) for name, control in steering.items()},
        path=path,
        source=parts["unet"].source,
        wildcards=None if wildcards is None else _folder(wildcards),
        lora_folder=None if lora_folder is None else _folder(lora_folder),
        engine=EAGER if low_memory else engine,
        turns=turns,
        dtype=form,
    )
    if vae is not None and "vae" in replaced:
        pipe.wardrobe.vae = Path(vae).stem, replaced["vae"].source
    return pipe


def parameters(part: Part) -> int:
    """How many numbers a part has, by its file's header."""
    return sum(math.prod(each.shape) for each in part.tensors.values())


def computes_in_int8(part: Part, device: torch.device, asked: bool) -> bool:
    """True when a part's 8-bit layers compute as such here; said when they can't.

    UsageError when it was `asked` for and the part has none.
    """
    if not eight_bit_names(part.config):
        if asked:
            raise UsageError(f"{part.source} is not in int8; make it so with: fromnoise optimize MODEL -o OUT")
        return False
    if device.type == "cpu" and supported():
        return True
    note(
        "this model was optimised for int8, which needs a CPU with AVX512-VNNI or AMX; here it is drawn with the "
        "weights that its whole numbers stand for, no faster than any other"
    )
    return False


def filled(part: Part, device: torch.device, dtype: torch.dtype, ready: Ready = leave) -> nn.Module:
    """The part as a module of ours, its weights read from its file; `ready` is told of each layer as it has them."""
    module = build(part.config).eval().requires_grad_(False)
    part.load_into(module, dtype, device, ready)
    return module


def packed(part: Part, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The same, laid out for a CPU, each convolution before the next is read.

    Ordinary weights that are cast and dropped take the same few pages, one after another: twice as fast as packing all
    of them afterwards.
    """
    with kept():
        module = filled(part, device, dtype, pack)
    prepare(module, parameters(part))
    return module


def _require_turns(unet: Part, device: torch.device, engine: str, in_numbers: bool) -> None:
    """UsageError where parts can't take turns in memory."""
    if device.type != "cpu" or engine not in (AUTO, EAGER):
        raise UsageError("with low memory parts take turns on a CPU, run by the eager engine; leave --engine out")
    if eight_bit_names(unet.config) and not in_numbers:
        raise UsageError("a model in int8 takes turns in memory only where it computes so; leave --low-memory out")


def waiting(part: Part, dtype: torch.dtype, turns: Turns, size: int) -> nn.Module:
    """The part as a module without weights, which reads them, and packs them, whenever its turn comes.

    `size` is the U-Net's, in parameters.
    """

    def fill(module: nn.Module) -> None:
        part.load_into(module, dtype, ready=pack if pays(size) else leave)
        prepare(module, size)
        pack_numbers(module)

    module = build(part.config).to(dtype).eval().requires_grad_(False)
    turns.add(module, fill)
    return module


def text_encoders(model: str | Path) -> list[TextEncoder]:
    """A checkpoint's text encoders alone, in float32 on the CPU, without loading the rest of it."""
    return _text_encoders(open_checkpoint(found(model)), lambda part: filled(part, torch.device("cpu"), torch.float32))


def _text_encoders(checkpoint: Checkpoint, built: Callable[[Part], Any]) -> list[TextEncoder]:
    parts = checkpoint.parts
    pairs = [(tokenizer_of(checkpoint, name), parts[text]) for text, name in TEXTS if text in parts]
    for tokenizer, part in pairs:
        require_readable(tokenizer, part)
    return [TextEncoder(tokenizer, built(part)) for tokenizer, part in pairs]


def _prompts(checkpoint: Checkpoint, built: Callable[[Part], Any]) -> PromptEncoder:
    encoders = _text_encoders(checkpoint, built)
    reading = READINGS["sdxl" if len(encoders) > 1 else "sd1"]
    return PromptEncoder(encoders, replace(reading, zero_negative=reading.zero_negative and checkpoint.zero_negative))


def _taken(name: str, other: Checkpoint) -> Part:
    """The part called `name` of another checkpoint, or of a file that holds nothing else."""
    if name not in other.parts:
        raise UsageError(f"{other.path} has no {name}; it has {', '.join(other.parts)}")
    return other.parts[name]


def _folder(path: str | Path) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"there is no folder at {path}")
    return folder


def _use(checkpoint: Checkpoint) -> str:
    """What a checkpoint that is one part is good for."""
    flag = next((FLAGS[name] for name in checkpoint.parts if name in FLAGS), None)
    return f"; use it with {flag}" if flag else ""
