"""Stable Diffusion from scratch: start from noise, and take steps that pull a picture out of it.

>>> import fromnoise as fn
>>> fn.load()("a red apple, noto style")[0].save("apple.png")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fromnoise.diffusion.samplers import Step
    from fromnoise.pipeline import Picture, Pipeline, load
    from fromnoise.request import Request
    from fromnoise.runtime.errors import FromnoiseError, UsageError

__version__ = "0.1.0"

__all__ = ["FromnoiseError", "Picture", "Pipeline", "Request", "Step", "UsageError", "__version__", "load"]

_HOMES = {
    "FromnoiseError": "runtime.errors",
    "Picture": "pipeline",
    "Pipeline": "pipeline",
    "Request": "request",
    "Step": "diffusion.samplers",
    "UsageError": "runtime.errors",
    "load": "pipeline",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import fromnoise` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fromnoise' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fromnoise.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
