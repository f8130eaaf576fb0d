"""The whole story of drawing: start from noise, and take steps that pull a picture out of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from fromnoise.adapters import Adapted
from fromnoise.diffusion.guidance import ByLoss, Guided, Loss
from fromnoise.diffusion.samplers import BROWNIAN, SAMPLERS, TWO_DENOISERS, Step, last
from fromnoise.engines.names import AUTO, INT8
from fromnoise.engines.running import Engines
from fromnoise.hub import name_of
from fromnoise.hub.hashing import remembered_digest
from fromnoise.images.convert import to_images, to_tensor
from fromnoise.models.autoencoder import Autoencoder
from fromnoise.models.controlnet import ControlNet
from fromnoise.models.extras import Reuse
from fromnoise.models.preview import linear_preview
from fromnoise.models.tiling import TILE, decode_circular, decode_tiled, encode_tiled
from fromnoise.models.tiny_autoencoder import TinyAutoencoder
from fromnoise.models.unet import UNet
from fromnoise.models.work import decoding_bytes
from fromnoise.nn.circular import circularly
from fromnoise.nn.eight_bit import eight_bit_layers
from fromnoise.pipeline.adapting import Wardrobe
from fromnoise.pipeline.fast import fast_habits, fast_lora, tiny_autoencoder
from fromnoise.pipeline.guiding import plan
from fromnoise.pipeline.inpainting import Inpainting, drawing_size, mask_tensor, open_picture, shown
from fromnoise.pipeline.network import Following, Network, Said, reusing
from fromnoise.pipeline.passes import Second, in_two_passes, told_otherwise
from fromnoise.pipeline.scheduler import Habits, Scheduler, likeness
from fromnoise.pipeline.starting import (
    Noise,
    begin,
    begin_again,
    kept,
    picture_tensor,
    require_controls,
    require_going_on,
    singles,
    source,
    with_variation_seed,
)
from fromnoise.pipeline.turns import Turns
from fromnoise.pipeline.words import Wording
from fromnoise.request import SAMPLERS as SAMPLERS_LABELS
from fromnoise.request import Control, Request
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import note, warn
from fromnoise.runtime.memory import free_bytes
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.runtime.seeds import BrownianNoise, fresh_seed
from fromnoise.text import Conditioning, PromptEncoder, TextEncoder, resolve

BATCH = 8
"""Pictures drawn in one call at most."""

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
"""What diffusers calls them, in order."""

TILED_FROM = 1280 * 1280
"""Pixels from which a picture is decoded in tiles."""


@dataclass(frozen=True)
class Picture:
    """A finished picture and the request that draws just this one again."""

    image: Image.Image
    request: Request

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the picture with its settings inside; the ending chooses PNG, JPEG or WebP."""
        from fromnoise.images.saving import save_picture

        return save_picture(self.image, self.request, Path(path).expanduser(), overwrite=overwrite)

    def _repr_png_(self) -> bytes:
        """How a notebook shows it."""
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()


class Pipeline:
    """A loaded model that draws. It holds no request's state, so several threads may use one."""

    def __init__(
        self,
        prompts: PromptEncoder,
        unet: UNet,
        autoencoder: Autoencoder | TinyAutoencoder,
        scheduler: Scheduler,
        *,
        habits: Habits = Habits(),  # noqa: B008
        controls: Mapping[str, ControlNet] = MappingProxyType({}),
        path: Path | None = None,
        source: Path | None = None,
        wildcards: Path | None = None,
        lora_folder: Path | None = None,
        engine: str = AUTO,
        turns: Turns | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """The parts as `load` puts them together.

        `turns` says which of them take turns in memory, `dtype` what the weights are when they aren't there yet.
        `source` is the file that the U-Net's weights came from; `wildcards` is a folder of files to choose lines from,
        `lora_folder` one of adapters that prompts may name.
        """
        self.prompts, self.unet, self.autoencoder, self.scheduler = prompts, unet, autoencoder, scheduler
        self.habits, self.controls, self.path, self.source = habits, controls, path, source
        self.wildcards = wildcards
        texts = zip(TEXT_ENCODERS, prompts.encoders, strict=False)
        modules: dict[str, nn.Module] = {"unet": unet, **{name: each.clip_text for name, each in texts}}
        self.wardrobe = Wardrobe(modules, () if lora_folder is None else (lora_folder,), path)
        self.turns = turns or Turns()
        if self.turns:
            prompts.wake = partial(self.turns.take, *(each.clip_text for each in prompts.encoders))
        weight = unet.conv_in.weight
        self.device, self.dtype = torch.device("cpu") if self.turns else weight.device, dtype or weight.dtype
        self.engines = Engines(unet, autoencoder, engine)

    def __call__(
        self,
        request: Request | str,
        *,
        loss: Loss | None = None,
        loss_scale: float = 1.0,
        words: Conditioning | None = None,
        **fields: Any,
    ) -> list[Picture]:
        """Draw: a Request, or a prompt and any of a Request's fields. One Picture for each of `count`.

        `loss`, `loss_scale` and `words` are those of `steps`; a picture drawn with them can't replay itself.
        """
        request = self.resolve(request, **fields)

        def drawn(part: Request) -> Step:
            return last(self.steps(part, loss=loss, loss_scale=loss_scale, words=words))

        return [picture for part in self.parts(request) for picture in self.finish(drawn(part), part)]

    def resolve(self, request: Request | str, **fields: Any) -> Request:
        """The request with everything stated: seed, size, model. UsageError for what the model can't draw."""
        if not isinstance(request, Request):
            request = Request(prompt=request)
        request = self.fill(request.with_(**fields))
        size = request.size or drawing_size(request, self.size, self.multiple) or self.size
        seed = fresh_seed() if request.seed is None else request.seed
        drawn_by = {"model": self.name, "model_hash": self.hash, "engine": None, "dtype": None}
        request = with_variation_seed(request.with_(size=size, seed=seed, **drawn_by))
        self._require_drawable(request, size)
        request = self._hashed(request, request.with_(**self._chosen(request, seed)))
        if request.hires is not None:
            request = request.with_(hires=replace(request.hires, steps=self.scheduler.second_steps(request)))
        if request.like and (unlike := likeness(request).unlike.get(SAMPLERS_LABELS[str(request.sampler)])):
            warn(f"{request.sampler} can't be followed all the way: {unlike}")
        return request

    def parts(self, request: Request) -> Iterator[Request]:
        """A resolved request cut into those drawn in one call each: `BATCH` pictures, or one when `exact`.

        It is one in bfloat16 and int8 too, whose rounding depends on the batch and would show: a picture must replay
        alone. Where the prompt leaves choices (`{red|green}`, `__animal__`), each picture's seed makes its own.
        """
        alone = self.alone(request)
        same = all(each.with_(seed=request.seed, count=request.count) == request for each in alone)
        batch = BATCH if same and not request.exact and self.format == "float32" else 1
        for first in range(0, request.count, batch):
            yield alone[first].with_(count=min(batch, request.count - first))

    def alone(self, request: Request) -> list[Request]:
        """A resolved request cut into one for each of its pictures, their prompts' choices made."""
        each = (one.with_(**self._chosen(request, one.seed or 0)) for one in singles(request))
        return [self._hashed(one, one) for one in each]

    @torch.inference_mode()
    def steps(
        self,
        request: Request | str,
        *,
        start: Step | None = None,
        loss: Loss | None = None,
        loss_scale: float = 1.0,
        words: Conditioning | None = None,
        **fields: Any,
    ) -> Iterator[Step]:
        """Draw step by step, all pictures of the request in one batch; `start` goes on from a saved Step.

        Each Step holds the noisy latents, the predicted picture and sigma; `decode` makes pictures of them. The steps
        of a second pass (`hires`) count on, and are larger. `loss` takes the predicted picture (1, 3, H, W) in [-1, 1]
        to a number that is made smaller, `loss_scale` times as eagerly; `words` stands in for the prompt (`text.mix`
        of two, say). Raises FromnoiseError when the numbers stop being finite.
        """
        request = self.resolve(request, **fields)

        def run(part: Request, start: Step | None, second: Second | None = None) -> Iterator[Step]:
            return self._run(part, start, second, loss, loss_scale, words)

        def first(part: Request, start: Step | None) -> Iterator[Step]:
            return run(part, start) if part.begun is None else told_otherwise(part, start, run)

        if request.hires is None:
            yield from first(request, start)
        else:
            yield from in_two_passes(self, request, start, first, run)

    def _run(
        self,
        request: Request,
        start: Step | None,
        second: Second | None,
        loss: Loss | None,
        loss_scale: float,
        words: Conditioning | None,
    ) -> Iterator[Step]:
        """One run from noise, from the request's picture or, in a second pass, from its latents."""
        noise = source(request, self._latent_shape(request))
        sigmas = self.sigmas(request) if second is None else second.sigmas
        begun = begin(self, request, sigmas, noise) if second is None else begin_again(self, request, second, noise)
        x = begun.x
        if len(sigmas) == 1:
            yield Step(0, 0.0, x, x, x)
            return
        reuse = reusing(request, () if start is None else start.reused, self.device)
        guided = self._guided(request, sigmas, noise, words, None if second is None else second.tile, reuse)
        denoise = guided if loss is None else ByLoss(guided, loss, loss_scale, decode=self._differentiable)
        denoise = kept(self, denoise, request, begun, float(sigmas[0]))
        if start is not None:
            require_going_on(request, start, x, len(sigmas) - 1)
            denoise.state = start.guidance
        call = denoise.both if request.sampler in TWO_DENOISERS else denoise
        if request.tile is not None:
            call = circularly(call, request.tile)
        fresh = BrownianNoise(seeds(request), noise.shape) if request.sampler in BROWNIAN else noise
        for step in SAMPLERS[str(request.sampler)](call, x, sigmas, noise=fresh, start=start):
            if not bool(torch.isfinite(step.x).all()):
                raise FromnoiseError(f"step {step.index} gave values that are not finite; try float32 or less guidance")
            yield replace(step, guidance=denoise.state, reused=() if reuse is None else reuse.state)

    def sigmas(self, request: Request) -> Tensor:
        """The noise levels that the request visits; image to image enters late, by diffusers' or the tool's rule."""
        return self.scheduler.sigmas(self.fill(request))

    def fill(self, request: Request) -> Request:
        """The request with its gaps filled by the model's habits, or when it is to be fast by its few-step LoRA's."""
        habits = fast_habits(fast_lora(self.path)) if request.fast else self.habits
        return habits.fill(request)

    def run_steps(self, request: Request) -> int:
        """How many steps the request really runs, both passes together."""
        request = self.fill(request)
        if request.hires is None:
            return len(self.sigmas(request)) - 1
        second = len(self.scheduler.second_sigmas(request)) - 1
        return second if request.init is not None else len(self.sigmas(request)) - 1 + second

    @torch.inference_mode()
    def preview(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, h, w) as pictures to look on by, at little cost: by a tiny autoencoder or a linear map.

        Latents that neither knows are decoded.
        """
        known = self.autoencoder.config.scaling_factor
        small = None if isinstance(self.autoencoder, TinyAutoencoder) else linear_preview(latents, known)
        if small is None:
            return self.decode(latents, fast=True)
        size = latents.shape[3] * self.multiple, latents.shape[2] * self.multiple
        return [each.resize(size, Image.Resampling.BICUBIC) for each in to_images(small)]

    @torch.inference_mode()
    def decode(self, latents: Tensor, tile: str | None = None, *, fast: bool = False) -> list[Image.Image]:
        """Latents (B, C, h, w) as pictures, small ones in float32 several at a time; `tile`, `fast` as in a Request."""
        several = self.engines.decodes(latents[0, 0].numel() * self.multiple**2)
        return to_images(torch.cat([self.pixels(each, tile, fast=fast) for each in torch.split(latents, several)]))

    @torch.inference_mode()
    def pixels(self, latents: Tensor, tile: str | None = None, *, fast: bool = False) -> Tensor:
        """Latents (B, C, h, w) as float32 pictures (B, 3, H, W) about [-1, 1], not clamped; large ones in tiles.

        `tile` names the axes along which opposite edges meet; `fast` takes the tiny autoencoder, where there is one.
        """
        latents = latents.to(self.device, self.dtype)
        if fast and self.tiny is not None:
            decode = self.tiny.decode if tile is None else circularly(self.tiny.decode, tile)
            return decode(latents).float().cpu()
        self.take_autoencoder()
        if isinstance(self.autoencoder, Autoencoder) and self._tiled(latents):
            tiled = decode_tiled if tile is None else partial(decode_circular, axes=tile)
            return tiled(self.autoencoder, latents).float().cpu()
        decode = self.engines.decode if tile is None else circularly(self.autoencoder.decode, tile)
        return decode(latents).float().cpu()

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] as float32 latents (B, C, h, w), the likeliest ones; large ones in tiles."""
        pixels = pixels.to(self.device, self.dtype)
        self.take_autoencoder()
        large = pixels[0, 0].numel() >= TILED_FROM
        if large and isinstance(self.autoencoder, Autoencoder):
            return encode_tiled(self.autoencoder, pixels).float()
        return self.autoencoder.encode(pixels).float()

    def finish(self, step: Step, request: Request) -> list[Picture]:
        """The pictures of a last step, each with the request that draws it alone."""
        images = self.decode(step.x, request.tile, fast=request.fast)
        if request.mask is not None:
            images = list(map(Inpainting.of(request).finish, images))
        how = {"engine": self.engines.used, "dtype": self.format}
        alone = singles(request.with_(**how))
        return [Picture(image, each) for image, each in zip(images, alone, strict=True)]

    @cached_property
    def tiny(self) -> TinyAutoencoder | None:
        """What decodes fast drawings: the model's tiny autoencoder, unless its large one was replaced."""
        given = self.path, self.autoencoder, self.device, self.dtype
        made = None if self.wardrobe.vae else tiny_autoencoder(*given)
        if made is not None:
            self.engines.lay_out(made)
        return made

    @property
    def format(self) -> str:
        """What the U-Net computes in, by name: int8 where most of its layers do."""
        return INT8 if any(eight_bit_layers(self.unet)) else str(self.dtype).removeprefix("torch.")

    @property
    def text(self) -> TextEncoder:
        """The first text encoder, which says what a prompt means as a whole."""
        self.prompts.wake()
        return self.prompts.encoders[0]

    @property
    def size(self) -> tuple[int, int]:
        """The (width, height) that the model was trained on."""
        side = self.unet.config.sample_size * self.autoencoder.config.factor
        return side, side

    @property
    def multiple(self) -> int:
        """What a picture's sides must be multiples of."""
        return self.autoencoder.config.factor

    @property
    def name(self) -> str:
        """The model's name: its folder's or file's, on the hub if it was pulled, "fromnoise" for the embedded one."""
        if self.path is None:
            return "model"
        return "fromnoise" if self.path == EMBEDDED_MODEL else name_of(self.path) or self.path.name

    @cached_property
    def hash(self) -> str | None:
        """The first ten hex digits of the SHA-256 of the U-Net's file, which say what drew a picture."""
        return None if self.source is None else remembered_digest(self.source)[:10]

    @property
    def inpaints(self) -> bool:
        """True for a network that is shown a mask and what surrounds it."""
        return self.unet.config.in_channels == 2 * self.autoencoder.config.latent_channels + 1

    def _chosen(self, request: Request, seed: int) -> dict[str, str]:
        if request.weighting == "none":
            return {}
        return {name: resolve(getattr(request, name), seed, self.wildcards).text for name in ("prompt", "negative")}

    def _hashed(self, request: Request, said: Request) -> Request:
        """The request with the hashes of the adapters that `said` asks for."""
        return request.with_(hashes=self.wardrobe.hashes(said))

    def _require_drawable(self, request: Request, size: tuple[int, int]) -> None:
        enlarged = request.init is not None and request.hires is not None and not request.hires.in_latents
        if any(side % self.multiple for side in size) and not enlarged:
            raise UsageError(f"this model draws sizes that are multiples of {self.multiple}, not {size[0]}x{size[1]}")
        if request.mask is not None:
            Inpainting.of(request)
        elif request.init is not None and self._init_size(request) != size:
            raise UsageError(f"the picture to start from is {self._init_size(request)}, not {size}; resize it first")
        require_controls(request, size, self.controls)

    def _init_size(self, request: Request) -> tuple[int, int] | None:
        return None if request.init is None else open_picture(request.init).size

    def _latent_shape(self, request: Request) -> tuple[int, int, int]:
        assert request.size is not None
        width, height = request.size
        return self.autoencoder.config.latent_channels, height // self.multiple, width // self.multiple

    def _read(self, png: bytes) -> Tensor:
        return to_tensor(open_picture(png)).to(self.device, self.dtype)

    def _tiled(self, latents: Tensor) -> bool:
        """True for large pictures, and where decoding at once would take more memory than is free, which is said."""
        if latents[0, 0].numel() * self.multiple**2 >= TILED_FROM:
            return True
        height, width = latents.shape[-2:]
        needed, free = decoding_bytes(self.autoencoder.config, (height, width), self.dtype.itemsize), free_bytes()
        if tiled := self.device.type == "cpu" and max(height, width) > TILE and needed > free:
            note(f"decoding in tiles: at once it would take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
        return tiled

    def take_autoencoder(self) -> None:
        """Have the autoencoder there, laid out before it is first used: in bfloat16 its answers differ by that."""
        self.turns.take(self.autoencoder)
        self.engines.lay_out_autoencoder()

    def _differentiable(self, latents: Tensor) -> Tensor:
        self.turns.take(self.autoencoder)
        return self.autoencoder.decode(latents.to(self.dtype)).float()

    def _guided(
        self,
        request: Request,
        sigmas: Tensor,
        noise: Noise,
        words: Conditioning | None,
        tile: int | None,
        reuse: Reuse | None,
    ) -> Guided:
        """The network with the request's words and guidance: a Denoiser for one run."""
        if self.turns and request.hashes:
            note("adapters need all parts in memory at once")
            self.turns.pin()
        adapted = self.wardrobe(request)
        said = Wording(self.prompts, adapted, request, len(sigmas) - 1, self.device, self.dtype, words)
        embeds = self.unet.config.time_cond_proj_dim is not None
        unet = self.engines.for_run(len(sigmas) - 1, needs_eager(request, adapted))
        network = Network(
            self.turns.before(self.unet, unet),
            self.scheduler.training(request),
            self.scheduler.prediction,
            sigmas,
            self._at_once(said, len(sigmas) - 1),
            request.count,
            adapted,
            time_ids=self._time_ids(request.size if tile is None else (tile * self.multiple, tile * self.multiple)),
            known=self._known(request, noise) if self.inpaints else None,
            embedded_guidance=request.guidance if embeds else None,
            following=[self._following(each) for each in request.controls],
            tile=tile,
            merge=request.merge or 0.0,
            reuse=reuse,
        )
        return plan(request, sigmas, said.weights, embedded=embeds).start(network, self.scheduler.prediction)

    def _at_once(self, said: Wording, steps: int) -> Callable[[int], Said]:
        """The words of all steps, made before the U-Net takes its turn."""
        if not self.turns:
            return said
        return list(map(said, range(steps))).__getitem__

    def _time_ids(self, size: tuple[int, int] | None) -> Tensor | None:
        """SDXL's sizes: the original and the target are what the network sees, and nothing is cropped away."""
        if self.unet.config.addition_embed_type != "text_time":
            return None
        assert size is not None
        width, height = size
        return torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=self.device)

    def _known(self, request: Request, noise: Noise) -> Tensor:
        """The mask and what it leaves; without a picture everything is to be drawn."""
        assert request.size is not None
        width, height = request.size
        pixels = torch.zeros(1, 3, height, width, device=self.device, dtype=self.dtype)
        if request.init is not None:
            pixels = picture_tensor(request).to(pixels)
        mask = torch.ones(1, 1, height, width)
        if request.mask is not None:
            mask = mask_tensor(Inpainting.of(request).shown_mask())
        self.take_autoencoder()
        return shown(self.autoencoder, mask.to(pixels), pixels, noise().to(pixels))

    def _following(self, control: Control) -> Following:
        hint = (self._read(control.picture) + 1) / 2
        return Following(self.controls[control.model], hint, control.weight, control.start, control.end)


def needs_eager(request: Request, adapted: Adapted) -> list[str]:
    """What of a request only the eager U-Net can do, in words."""
    needs = {"adapters": bool(adapted.patches.get("unet")), "tiling textures": request.tile is not None}
    return [what for what, needed in needs.items() if needed]


def seeds(request: Request) -> list[int]:
    """One seed per picture: seed, seed + 1, …; the same for all where another seed's noise is blended in."""
    return [int(each.seed or 0) for each in singles(request)]
