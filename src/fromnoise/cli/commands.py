"""The commands: where the code of each is, and its line of help. It is imported when the command is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

import typer

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "generate": ("drawing.generate", "Draw pictures from words."),
        "img2img": ("drawing.img2img", "Draw from a picture and words: the picture is made noisy and drawn anew."),
        "inpaint": (
            "inpainting.inpaint",
            "Draw inside a mask; what isn't masked stays as it is, bit for bit, and the picture keeps its size.",
        ),
        "outpaint": (
            "inpainting.outpaint",
            "Draw on beyond a picture's edges. Say what is to be seen there, and how many pixels on which side.",
        ),
        "variations": (
            "variations.variations",
            "Draw pictures a little different from one that was drawn: its settings, with a second seed blended in.",
        ),
        "chain": ("chain.chain", "Run stages one after another, each starting from the picture before it."),
        "grid": ("grid.grid", "Draw a prompt over one or two options and show all pictures on one sheet."),
        "steps": (
            "steps.steps",
            "Look inside a drawing: at each step the noisy picture above the picture predicted from it.",
        ),
        "plan": ("plan.plan", "Say how long a drawing will take and how much memory, without drawing it."),
        "draft": (
            "drafts.draft",
            "Begin many pictures: draw a few of their steps, save where they stand, and show what they will be.",
        ),
        "finish": ("drafts.finish", "Go on with drafts to the end, or branch them with other words or other guidance."),
        "upscale": (
            "upscale.upscale",
            "Draw a picture larger: enlarge it, make it a little noisy, and draw it anew in overlapping tiles.",
        ),
        "replay": (
            "replay.replay",
            "Draw a picture again from its own settings and print the largest and the mean difference.",
        ),
        "info": ("info.info", "Show a picture's settings, or a model's parts, sizes, licence, styles and concepts."),
        "doctor": (
            "doctor.doctor",
            "Draw, and say whether the guidance is too weak or too strong, with figures and what to change.",
        ),
        "samplers": (
            "samplers.samplers",
            "List the samplers with order, network calls a step and when to use each, and the schedules.",
        ),
        "prompt": (
            "prompt.prompt",
            "Show how a prompt is read: which word falls into which chunk, what weighs what, what is cut, what is odd.",
        ),
        "convert": (
            "convert.convert",
            "Turn a checkpoint's folder into a single file, or a single file into a folder.",
        ),
        "optimize": (
            "optimize.optimize",
            "Make a model faster and smaller on this kind of CPU: most of its U-Net in int8.",
        ),
        "merge": ("merge.merge", "Merge two checkpoints into (1 - W) A + W B, or three into A + W (B - C)."),
        "extract": (
            "merge.extract",
            "Make a LoRA of what two checkpoints differ in, and say how much of it the LoRA leaves out.",
        ),
        "pull": (
            "hub.pull",
            "Fetch a model or an adapter from the hub, and print where it is. Only what drawing needs comes.",
        ),
        "push": ("hub.push", "Publish a model, an adapter or an embedding on the hub, and print its address."),
        "models": ("hub.models", "List the models and adapters that are here: from where, how large, licence, hash."),
        "evaluate": (
            "learning.evaluate",
            "Judge a model: concept and style accuracy, distances to real pictures, a sheet. Works offline.",
        ),
        "dataset": (
            "learning.dataset",
            "Fetch the permissive picture sets, render and caption them, and write one dataset folder.",
        ),
        "train": (
            "tuning.train_commands",
            "Train: teach the model your own pictures, or make every part of it from scratch.",
        ),
    }
)
"""By name, module and function under `fromnoise.cli`, and the help that the list of commands shows."""


def code(name: str) -> Callable[..., Any]:
    """The function behind a command; its module is imported."""
    module, _, function = COMMANDS[name][0].partition(".")
    return getattr(import_module(f"fromnoise.cli.{module}"), function)


def command(name: str) -> Any:
    """The command (a click command or group) with its parameters, ready to run."""
    app = code(name)() if name == "train" else _alone(name)
    made = typer.main.get_command(app)
    made.name = name
    return made


def listed() -> typer.Typer:
    """All commands by name and first line of help, without their code."""
    app = typer.Typer()
    for name, (_, text) in COMMANDS.items():
        app.command(name, help=text)(_later)
    return app


def _alone(name: str) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(name)(code(name))
    return app


def _later() -> None:
    """Stands in the list of commands for what is imported when it is asked for."""
