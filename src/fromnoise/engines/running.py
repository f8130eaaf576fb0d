"""The networks of a loaded model with the engines that run them, prepared when first needed and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from threading import Lock, local
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.engines.cache import Store
from fromnoise.engines.choosing import PACES, Choice, State, Work, choose, considered
from fromnoise.engines.contract import Engine, Inputs, Prepared
from fromnoise.engines.eager import lay_out, size, unpack
from fromnoise.engines.names import AUTO, COMPILE, EAGER, ENGINES, OPENVINO
from fromnoise.engines.plain import GIVEN, PlainDecoder, PlainUNet
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.extras import NO_EXTRAS, Extras
from fromnoise.models.tiny_autoencoder import TinyAutoencoder
from fromnoise.models.unet import UNet
from fromnoise.nn.eight_bit import eight_bit_layers
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import note, warn
from fromnoise.runtime.memory import kept

KEPT = 2
"""Prepared forms kept of each network: a guided batch and an unguided one. Each may hold the weights again."""

LARGE_PICTURE = 512 * 512
"""Pixels from which a decoder's maps are so large that fetching their memory anew takes long."""

DECODED = 8 * 128 * 128
"""Pixels decoded in one call at most, but for a picture that has more."""

HOMES: Mapping[str, tuple[str, str]] = {
    EAGER: ("plain", "Plain"),
    COMPILE: ("compiled", "Compiled"),
    OPENVINO: ("by_openvino", "OpenVINO"),
}
"""Where each engine's class is; they are imported only when asked for."""

EAGER_ONLY: Mapping[str, Callable[[Extras], bool]] = {
    "ControlNets": lambda extras: extras.control is not None,
    "perturbed attention": lambda extras: extras.perturbed is not None,
    "reused features": lambda extras: extras.reuse is not None,
    "merged tokens": lambda extras: bool(extras.merge),
}
"""What rides along with the words that only the eager module takes."""


def engine(name: str) -> Engine:
    """The engine of that name; UsageError when there is none."""
    if name not in HOMES:
        raise UsageError(f"no engine {name!r}; choose one of {', '.join(ENGINES)}")
    home, kind = HOMES[name]
    return getattr(import_module(f"fromnoise.engines.{home}"), kind)()


class Runner:
    """One network's prepared forms: at most `KEPT`, by shapes. It may be used from several threads."""

    def __init__(self, asked: str = AUTO, store: Store | None = None) -> None:
        """`asked` is one of `ENGINES`; UsageError when it can't be used here."""
        self.asked, self.store = asked, store or Store()
        if asked != AUTO and (missing := engine(asked).available()):
            raise UsageError(missing)
        self._ready: OrderedDict[Any, Prepared] = OrderedDict()
        self._said: set[str] = set()
        self._lock = Lock()

    def choose(self, module: nn.Module, inputs: Inputs, work: Work) -> Choice:
        """Which engine is to run a module on such inputs."""
        names = tuple(PACES) if considered(self.asked, work) else ()
        choice = choose(self.asked, work, {name: self._state(name, module, inputs) for name in names})
        if work.needs and self.asked not in (AUTO, EAGER):
            self._once(f"{choice.why}; drawing with it instead of {self.asked}")
        return choice

    def prepared(self, name: str, module: nn.Module, inputs: Inputs, signature: Any = ()) -> Prepared:
        """The module made ready by an engine for inputs like these, made on first use.

        When "auto" chose it and it fails, the eager module takes its place and the reason is said.
        """
        key = (name, signature, *((tuple(each.shape), each.dtype) for each in inputs))
        with self._lock:
            if key not in self._ready:
                self._ready[key] = self._made(name, module, inputs)
            self._ready.move_to_end(key)
            while len(self._ready) > KEPT:
                self._ready.popitem(last=False)
            return self._ready[key]

    def _made(self, name: str, module: nn.Module, inputs: Inputs) -> Prepared:
        unpack(module)
        try:
            made = engine(name).prepare(module, inputs, self.store)
        except (FromnoiseError, RuntimeError) as error:
            if self.asked != AUTO:
                raise FromnoiseError(f"the engine {name} can't run this model ({error}); use --engine eager") from error
            warn(f"the engine {name} failed ({error}); drawing with eager")
            return engine(EAGER).prepare(module, inputs, self.store)
        source = "from the disk" if made.cached else "compiled"
        note(f"{name}: {source} in {made.seconds:.1f} s, {made.difference:.1e} from eager")
        return made

    def _state(self, name: str, module: nn.Module, inputs: Inputs) -> State:
        found = engine(name)
        missing = found.available()
        return State(missing, not missing and found.cached(module, inputs, self.store))

    def _once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            warn(message)


class Engines:
    """A model's U-Net and decoder, each run by the engine that suits the work; `ran` once there was a run."""

    def __init__(
        self, unet: UNet, autoencoder: Autoencoder | TinyAutoencoder, asked: str = AUTO, store: Store | None = None
    ) -> None:
        self.unet, self.autoencoder = unet, autoencoder
        self._unet, self._decoder = Runner(asked, store), Runner(asked, store)
        self._decode = PlainDecoder(autoencoder)
        self._used = local()
        self.ran = False

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        """Parameters of U-Net and autoencoder."""
        return size(self.unet), size(self.autoencoder)

    @cached_property
    def _in_eight_bits(self) -> bool:
        return any(eight_bit_layers(self.unet))

    @property
    def used(self) -> str:
        """The engine of this thread's last call of the U-Net."""
        return getattr(self._used, "name", EAGER)

    def for_run(self, calls: int, needs: Sequence[str] = ()) -> Callable[[Tensor, Tensor, Tensor, Extras], Tensor]:
        """The U-Net for a run of about so many calls; `needs` says what of it needs the eager module."""
        self.ran = True
        self.lay_out(self.unet)

        def predict(x: Tensor, time: Tensor, words: Tensor, extras: Extras = NO_EXTRAS) -> Tensor:
            return self.predict(x, time, words, extras, calls=calls, needs=needs)

        return predict

    def predict(
        self, x: Tensor, time: Tensor, words: Tensor, extras: Extras, *, calls: int = 1, needs: Sequence[str] = ()
    ) -> Tensor:
        """The U-Net's answer."""
        given = tuple(name for name in GIVEN if getattr(extras, name) is not None)
        inputs = tuple(each.float() for each in (x, time, words, *(getattr(extras, name) for name in given)))
        module = PlainUNet(self.unet, given)
        choice = self._unet.choose(module, inputs, self._work(x, calls, extras, needs))
        self._used.name = choice.engine
        if choice.engine == EAGER:
            return self.unet(x, time, words, extras)
        made = self._unet.prepared(choice.engine, module, inputs, given)
        self._used.name = made.engine
        return made(*inputs)

    def decodes(self, pixels: int) -> int:
        """How many pictures of so many pixels are decoded in one call: several small ones in float32, one elsewhere.

        In bfloat16 a picture would depend on the others, and other engines prepare for every number anew.
        """
        float32 = next(self.autoencoder.parameters()).dtype == torch.float32
        return max(1, DECODED // pixels) if float32 and self._decoder.asked in (AUTO, EAGER) else 1

    def decode(self, latents: Tensor, count: int = 1) -> Tensor:
        """Pictures of latents; `count` is how many such calls are to be expected."""
        choice = self._decoder.choose(self._decode, (latents.float(),), _work(self._sizes[1], latents, count))
        if choice.engine == EAGER:
            large = latents[0, 0].numel() * self.autoencoder.config.factor**2 >= LARGE_PICTURE
            with kept() if large else nullcontext():
                return self.autoencoder.decode(latents)
        return self._decoder.prepared(choice.engine, self._decode, (latents.float(),))(latents.float())

    def lay_out_autoencoder(self) -> None:
        """As the U-Net is before a run; what waits for it are drawings that end in a picture, or begin with one."""
        self.lay_out(self.autoencoder)

    def lay_out(self, network: nn.Module) -> None:
        """Lay out a part of the model for the eager engine, where that may run."""
        if self._unet.asked in (AUTO, EAGER):
            lay_out(network, self._sizes[0])

    def _work(self, x: Tensor, calls: int, extras: Extras, needs: Sequence[str]) -> Work:
        carried = [what for what, is_there in EAGER_ONLY.items() if is_there(extras)]
        graph = ["gradients"] if torch.is_grad_enabled() and x.requires_grad else []
        work = _work(self._sizes[0], x, calls, (*needs, *carried, *graph))
        if not considered(self._unet.asked, work) and self._unet.asked in (AUTO, EAGER):
            return work  # for the eager engine, whatever else it needs
        watched = ["captures"] if _is_watched(self.unet) else []
        whole = ["8-bit layers"] if self._in_eight_bits else []
        return replace(work, needs=(*work.needs, *watched, *whole))


def _work(parameters: int, x: Tensor, calls: int, needs: Sequence[str] = ()) -> Work:
    return Work(calls, parameters, len(x) * x[0, 0].numel(), x.device.type, tuple(needs))


def _is_watched(module: nn.Module) -> bool:
    """True when somebody looks inside with hooks, which only the eager module calls."""
    return any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
