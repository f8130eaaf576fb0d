"""How a repository on the hub is called: `owner/name`, `owner/name@revision`, `owner/name/file.safetensors`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fromnoise.runtime.errors import UsageError

MAIN = "main"

LONGEST = 96
"""Characters that the hub lets an owner's or a repository's name have."""

_WORD = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_AT = r"refs/pr/\d+|[\w.-]+"
_NAME = re.compile(rf"(?P<owner>{_WORD})/(?P<name>{_WORD})(?:@(?P<revision>{_AT}))?(?:/(?P<file>.+))?", re.ASCII)
_REVISION = re.compile(r"\w[\w./-]*", re.ASCII)


@dataclass(frozen=True)
class Name:
    """A repository, a revision of it, and perhaps one file in it.

    Spelt as text, a revision may have slashes only when it is a pull request's, as refs/pr/1.
    """

    repository: str
    revision: str = MAIN
    file: str | None = None

    def __str__(self) -> str:
        at = "" if self.revision == MAIN else f"@{self.revision}"
        return f"{self.repository}{at}{f'/{self.file}' if self.file else ''}"


def parse_name(text: str) -> Name | None:
    """The name that `text` spells; None when it is none, as a path that starts with a dot, slash or tilde."""
    match = _NAME.fullmatch(text)
    if match is None or any(bad in text for bad in ("--", "..", "\\")):
        return None
    if max(len(match["owner"]), len(match["name"])) > LONGEST or match["name"].endswith(".git"):
        return None
    return Name(f"{match['owner']}/{match['name']}", match["revision"] or MAIN, match["file"])


def require_name(text: str, revision: str | None = None) -> Name:
    """The same, at a revision if one is given; UsageError when either is none."""
    if (name := parse_name(text)) is None:
        raise UsageError(f"{text!r} is no name on the hub; it looks like owner/name")
    if revision is None:
        return name
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise UsageError(f"{revision!r} is no revision; give a branch, a tag or a commit")
    return replace(name, revision=revision)
