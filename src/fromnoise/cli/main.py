"""The `fromnoise` command: its subcommands, and how every failure becomes one line and an exit code."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fromnoise.cli import words
from fromnoise.cli.commands import COMMANDS, command, listed
from fromnoise.cli.console import say, speaking
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.streams import forgive_characters

DEFAULT_COMMAND = "generate"
STOPPED = 130
_FOR_WORDS = {"help": "--help", "version": "--version"}


class _PromptFirst(TyperGroup):
    """A group whose first argument may be a prompt: `fromnoise "a red apple"` is `fromnoise generate "a red apple"`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command before what is no command of ours; nothing at all asks for help."""
        own = {flag for parameter in self.get_params(ctx) for flag in parameter.opts}
        if not args:
            args = ["--help"]
        elif args[0] not in self.commands and args[0].partition("=")[0] not in own:
            if not args[0].startswith("-"):
                self._refuse_typo(args[0])
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the code of the command that is asked for, and of no other."""
        if args[0] in COMMANDS:
            self.commands[args[0]] = command(args[0])
        return super().resolve_command(ctx, args)

    def _refuse_typo(self, word: str) -> None:
        """UsageError for a single word that was probably meant as a command."""
        choices = {name: name for name in self.commands} | _FOR_WORDS
        if name := words.mistyped(word, choices):
            meant = f"fromnoise {choices[name]}"
            raise UsageError(f"did you mean '{meant}'? To draw it: fromnoise {DEFAULT_COMMAND} {word!r}")


def application() -> typer.Typer:
    """The command line with all its commands."""
    app = typer.Typer(
        cls=_PromptFirst,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_fromnoise)
    app.add_typer(listed())
    return app


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"fromnoise {version('fromnoise')}")
        raise typer.Exit


def _fromnoise(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Start from noise, and take steps that pull a picture out of it.

    `fromnoise "a red apple"` is short for `fromnoise generate "a red apple"`.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 bad usage, 130 stopped by Ctrl-C."""
    forgive_characters()
    with speaking(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        try:
            code = (
                typer.main.get_command(application()).main(arguments, prog_name="fromnoise", standalone_mode=False) or 0
            )
        except FromnoiseError as error:
            return _fail(str(error), error.exit_code)
        except typer.TyperException as error:
            return _fail(_advice(error), 2)
        except KeyboardInterrupt:
            code = STOPPED
        except (MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise
            return _fail("not enough memory; ask for a smaller --size or --count", 1)
        except OSError as error:
            return _fail(str(error), 1)
        except Exception as error:
            if not _is_writing(error):
                raise
            return _fail(f"{error}; make room on the disk, or choose another folder", 1)
        if code == STOPPED:
            say("stopped; every file written so far is whole", logging.WARNING)
        return code


def _fail(message: str, code: int) -> int:
    say(message, logging.ERROR)
    return code


def _is_memory(error: Exception) -> bool:
    """True for Python's own MemoryError and for what torch raises instead."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)


def _is_writing(error: Exception) -> bool:
    """True for what safetensors raises where a file can't be written; named, so that it need not be imported."""
    return type(error).__name__ == "SafetensorError" and "I/O error" in str(error)


def _advice(error: typer.TyperException) -> str:
    """The parser's message, and where to read more."""
    message = error.format_message().rstrip(".")
    if "unexpected extra argument" in message:
        message += "; put a prompt of several words in quotes"
    if re.match(r"No such option: -\w\b", message):
        message += "; a prompt that begins with - goes after --"
    context = getattr(error, "ctx", None)
    return f"{message} (see {context.command_path if context else 'fromnoise'} --help)"
