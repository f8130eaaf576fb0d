"""What a picture says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fromnoise.request import Request

OWN = "fromnoise"


@dataclass(frozen=True)
class Settings:
    """The tool that drew a picture, the words as it had them, and its own settings by name, as it wrote them.

    `request` is what they come to here, as far as they say; None for what no single request draws (a contact sheet),
    or where nothing could be read. `missing` are sentences about what the picture needs and does not carry; `unread`
    are settings by the tool's own name that have no counterpart here or make no sense, with what they say.
    """

    tool: str
    prompt: str
    negative: str
    values: Mapping[str, str]
    request: Request | None = None
    missing: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True when the request is all there is to the picture, the model apart."""
        return self.request is not None and not self.missing and not self.unread
