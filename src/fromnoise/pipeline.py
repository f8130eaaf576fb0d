"""The whole story of drawing: start from noise, and take steps that pull a picture out of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from fromnoise.checkpoints.folder import load_module, read_json
from fromnoise.diffusion.denoiser import Denoiser, denoiser
from fromnoise.diffusion.guidance import batched_pair, classifier_free
from fromnoise.diffusion.samplers import SAMPLERS, VARIANCE_PRESERVING, Step
from fromnoise.diffusion.schedules import SPACINGS, NoiseSchedule
from fromnoise.images.convert import to_images, to_tensor
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.models.unet import UNet, UNetConfig
from fromnoise.request import Request
from fromnoise.runtime.device import pick_device
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import note
from fromnoise.runtime.paths import EMBEDDED_MODEL
from fromnoise.runtime.seeds import PictureNoise, fresh_seed
from fromnoise.text import TextEncoder, Tokenizer

BATCH = 8
"""Pictures drawn in one call at most."""


@dataclass(frozen=True)
class Picture:
    """A finished picture and the request that draws just this one again."""

    image: Image.Image
    request: Request

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the picture with its settings inside; the ending chooses PNG, JPEG or WebP."""
        from fromnoise.images.saving import save_picture

        return save_picture(self.image, self.request, Path(path), overwrite=overwrite)

    def _repr_png_(self) -> bytes:
        """How a notebook shows it."""
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True)
class Scheduler:
    """What `scheduler_config.json` says that matters for drawing."""

    schedule: NoiseSchedule
    prediction: str
    spacing: str
    offset: int

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Scheduler:
        """From a parsed config, with diffusers' defaults for what it leaves out."""
        if values.get("rescale_betas_zero_snr") or values.get("trained_betas"):
            raise FromnoiseError("this scheduler config asks for zero-terminal SNR or own betas; not supported yet")
        schedule = NoiseSchedule.from_betas(
            values.get("beta_schedule", "scaled_linear"),
            values.get("beta_start", 0.00085),
            values.get("beta_end", 0.012),
            values.get("num_train_timesteps", 1000),
        )
        return cls(
            schedule=schedule,
            prediction=values.get("prediction_type", "epsilon"),
            spacing=values.get("timestep_spacing", "leading"),
            offset=values.get("steps_offset", 0),
        )

    def sigmas(self, name: str, steps: int) -> Tensor:
        """The noise levels of the schedule called `name`, "model" being the config's own."""
        return SPACINGS[self.spacing if name == "model" else name](self.schedule, steps, self.offset)

    def first_scale(self, request: Request, sigma: float) -> float:
        """What the first unit noise is multiplied by: diffusers' `init_noise_sigma`, in sigma space."""
        spacing = self.spacing if request.schedule == "model" else request.schedule
        if spacing == "leading" or request.sampler in VARIANCE_PRESERVING:
            return (sigma**2 + 1) ** 0.5
        return sigma


class Pipeline:
    """A loaded model that draws. It holds no request's state, so several threads may use one."""

    def __init__(
        self, text: TextEncoder, unet: UNet, autoencoder: Autoencoder, scheduler: Scheduler, path: Path | None = None
    ) -> None:
        self.text, self.unet, self.autoencoder, self.scheduler, self.path = text, unet, autoencoder, scheduler, path
        self.device, self.dtype = unet.conv_in.weight.device, unet.conv_in.weight.dtype

    def __call__(self, request: Request | str, **fields: Any) -> list[Picture]:
        """Draw: a Request, or a prompt and any of a Request's fields. One Picture for each of `count`."""
        request = self.resolve(request, **fields)
        return [picture for part in self.parts(request) for picture in self.finish(last(self.steps(part)), part)]

    def resolve(self, request: Request | str, **fields: Any) -> Request:
        """The request with everything stated: seed, size, model. UsageError for a size that the model can't draw."""
        if isinstance(request, str):
            request = Request(prompt=request)
        request = request.with_(**fields)
        size = request.size or self._init_size(request) or self.size
        seed = fresh_seed() if request.seed is None else request.seed
        request = request.with_(size=size, seed=seed, model=self.name, model_hash=self.hash)
        if any(side % self.multiple for side in size):
            raise UsageError(f"this model draws sizes that are multiples of {self.multiple}, not {size[0]}x{size[1]}")
        if request.init is not None and self._init_size(request) != size:
            raise UsageError(f"the picture to start from is {self._init_size(request)}, not {size}; resize it first")
        return request

    def parts(self, request: Request) -> Iterator[Request]:
        """A resolved request cut into those drawn in one call each: `BATCH` pictures, or one when `exact`."""
        assert request.seed is not None
        batch = 1 if request.exact else BATCH
        for first in range(0, request.count, batch):
            yield request.with_(seed=request.seed + first, count=min(batch, request.count - first))

    @torch.inference_mode()
    def steps(self, request: Request | str, *, start: Step | None = None, **fields: Any) -> Iterator[Step]:
        """Draw step by step, all pictures of the request in one batch; `start` goes on from a saved Step.

        Each Step holds the noisy latents, the predicted picture and sigma; `decode` makes pictures of them.
        Raises FromnoiseError when the numbers stop being finite.
        """
        request = self.resolve(request, **fields)
        noise = PictureNoise(seeds(request), self._latent_shape(request))
        sigmas = self.sigmas(request)
        x = self._from_picture(request, sigmas, noise) if request.init else self._from_noise(request, sigmas, noise)
        if len(sigmas) == 1:
            yield Step(0, 0.0, x, x, x)
            return
        draw = SAMPLERS[request.sampler]
        for step in draw(self._guided(request), x, sigmas, noise=noise, start=start):
            if not bool(torch.isfinite(step.x).all()):
                raise FromnoiseError(f"step {step.index} gave values that are not finite; try float32 or less guidance")
            yield step

    def sigmas(self, request: Request) -> Tensor:
        """The noise levels that the request visits; image to image enters at the last `int(steps * strength)`."""
        sigmas = self.scheduler.sigmas(request.schedule, request.steps)
        return sigmas[len(sigmas) - 1 - self.run_steps(request) :]

    def run_steps(self, request: Request) -> int:
        """How many steps the request really runs (diffusers' rule)."""
        return request.steps if request.init is None else min(int(request.steps * request.strength), request.steps)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, h, w) as pictures."""
        parts = [self.autoencoder.decode(each.to(self.dtype)) for each in latents.to(self.device).split(1)]
        return to_images(torch.cat(parts).float().cpu())

    def finish(self, step: Step, request: Request) -> list[Picture]:
        """The pictures of a last step, each with the request that draws it alone."""
        images = self.decode(step.x)
        alone = (request.with_(seed=seed, count=1) for seed in seeds(request))
        return [Picture(image, each) for image, each in zip(images, alone, strict=True)]

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
        """The model's name: its folder's, or "fromnoise" for the embedded one."""
        return "fromnoise" if self.path == EMBEDDED_MODEL else self.path.name if self.path else "model"

    @cached_property
    def hash(self) -> str | None:
        """The first ten hex digits of the U-Net file's SHA-256, which say what drew a picture."""
        return None if self.path is None else unet_hash(self.path)

    def _init_size(self, request: Request) -> tuple[int, int] | None:
        return None if request.init is None else open_init(request.init).size

    def _latent_shape(self, request: Request) -> tuple[int, int, int]:
        assert request.size is not None
        width, height = request.size
        return self.autoencoder.config.latent_channels, height // self.multiple, width // self.multiple

    def _from_noise(self, request: Request, sigmas: Tensor, noise: PictureNoise) -> Tensor:
        return noise().to(self.device) * self.scheduler.first_scale(request, float(sigmas[0]))

    def _from_picture(self, request: Request, sigmas: Tensor, noise: PictureNoise) -> Tensor:
        """The picture's latents, noisy as at the first level. Strength 0 is the autoencoder alone."""
        assert request.init is not None
        pixels = to_tensor(open_init(request.init)).to(self.device, self.dtype)
        if len(sigmas) == 1:
            note("strength times steps is below 1: this is the picture through the autoencoder, with nothing drawn")
            return self.autoencoder.encode(pixels).float().expand(request.count, -1, -1, -1)
        latents = self.autoencoder.encode(pixels, noise().to(pixels)).float()
        return latents + float(sigmas[0]) * noise().to(self.device)

    def _guided(self, request: Request) -> Denoiser:
        """The network with the request's words and guidance; without guidance it is called once, not twice."""
        negative, positive = self.text.encode([request.negative, request.prompt]).to(self.device, self.dtype)
        single = request.guidance == 1.0
        words = positive[None] if single else torch.stack([negative, positive])
        words = words.repeat_interleave(request.count, 0)

        def predict(x: Tensor, time: Tensor) -> Tensor:
            return self.unet(x.to(self.dtype), time, words).float()

        denoise = denoiser(predict, self.scheduler.schedule, self.scheduler.prediction)
        return denoise if single else classifier_free(batched_pair(denoise), request.guidance)


def load(model: str | Path | None = None, *, device: str | None = None, dtype: torch.dtype = torch.float32) -> Pipeline:
    """A pipeline from a Stable Diffusion folder, or the embedded model. Nothing is ever downloaded.

    Raises UsageError when there is no such folder, FromnoiseError naming the file when a part is damaged.
    """
    path = EMBEDDED_MODEL if model is None else Path(model).expanduser()
    if not (path / "model_index.json").is_file():
        raise UsageError(f"no Stable Diffusion folder at {path} (it has no model_index.json)")
    where = pick_device(device)

    def part(kind: type[nn.Module], config: Any, folder: str, file: str) -> Any:
        with torch.device("meta"):
            module = kind(config.from_json(read_json(path / folder / "config.json")))
        return load_module(module, path / folder / file, dtype=dtype)[0].requires_grad_(False).to(where)

    weights = "diffusion_pytorch_model.safetensors"
    text = TextEncoder(
        Tokenizer.read(path / "tokenizer"), part(ClipText, TextConfig, "text_encoder", "model.safetensors")
    )
    unet = part(UNet, UNetConfig, "unet", weights)
    autoencoder = part(Autoencoder, AutoencoderConfig, "vae", weights)
    scheduler = Scheduler.from_json(read_json(path / "scheduler" / "scheduler_config.json"))
    return Pipeline(text, unet, autoencoder, scheduler, path)


def seeds(request: Request) -> list[int]:
    """One seed per picture: seed, seed + 1, …"""
    assert request.seed is not None
    return [request.seed + index for index in range(request.count)]


def last(steps: Iterator[Step]) -> Step:
    """Run a drawing to its end."""
    step = None
    for step in steps:  # noqa: B007
        pass
    assert step is not None
    return step


def open_init(png: bytes) -> Image.Image:
    """The picture that image to image starts from; UsageError when the bytes are no picture."""
    try:
        return Image.open(io.BytesIO(png)).convert("RGB")
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture to start from is damaged: {error}") from error


def unet_hash(model: Path) -> str:
    """The first ten hex digits of the SHA-256 of a model folder's U-Net file."""
    with (model / "unet" / "diffusion_pytorch_model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:10]
