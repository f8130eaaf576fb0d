"""Reading a published `config.json` into a frozen dataclass, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Self

from fromnoise.runtime.errors import FromnoiseError

LIBRARY_FIELDS = {"architectures", "torch_dtype", "dtype", "transformers_version", "model_type"}


class Config:
    """Base of the model configs. `FIXED` lists fields we know but support at one value (or several) only."""

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The config that a parsed `config.json` states; unknown or unsupported fields are a FromnoiseError."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        for name, value in values.items():
            if name not in known and not cls._harmless(name, value):
                raise FromnoiseError(f"{cls.__name__}: {name} = {value!r} is not supported")
        return cls(**{name: _frozen(value) for name, value in values.items() if name in known})

    @classmethod
    def _harmless(cls, name: str, value: Any) -> bool:
        if name.startswith("_") or name in LIBRARY_FIELDS or name in cls.IGNORED:
            return True
        return _frozen(value) in cls.FIXED.get(name, (None, False))

    def to_json(self) -> dict[str, Any]:
        """Every field with its value, and the class name that diffusers looks for."""
        return {**asdict(self), **{name: values[0] for name, values in self.FIXED.items()}}  # type: ignore[call-overload]


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value
