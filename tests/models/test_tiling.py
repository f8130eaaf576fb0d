from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fromnoise.checkpoints.folder import load_module, read_json
from fromnoise.images.convert import to_tensor
from fromnoise.models.autoencoder import Autoencoder, AutoencoderConfig
from fromnoise.models.tiling import decode_sliced, decode_tiled, encode_tiled
from fromnoise.runtime.paths import EMBEDDED_MODEL
from tests.tiny import AUTOENCODER, randomise

TILE, OVERLAP = 16, 8


@pytest.fixture(scope="module")
def trained() -> Autoencoder:
    folder = EMBEDDED_MODEL / "vae"
    with torch.device("meta"):
        module = Autoencoder(AutoencoderConfig.from_json(read_json(folder / "config.json")))
    return load_module(module, folder / "diffusion_pytorch_model.safetensors")[0].requires_grad_(False)


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """A drawing like those that the model was trained on, twice as large: discs on white, one per quarter."""
    image = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(image)
    for index, colour in enumerate(["crimson", "goldenrod", "seagreen", "royalblue"]):
        left, top = 128 * (index % 2) + 20, 128 * (index // 2) + 20
        draw.ellipse((left, top, left + 88, top + 88), fill=colour)
    return to_tensor(image)


@pytest.fixture(scope="module")
def latents(trained: Autoencoder, picture: Tensor) -> Tensor:
    return trained.encode(picture)


@pytest.fixture(scope="module")
def whole(trained: Autoencoder, latents: Tensor) -> Tensor:
    return trained.decode(latents)


@pytest.fixture(scope="module")
def tiled(trained: Autoencoder, latents: Tensor) -> Tensor:
    return decode_tiled(trained, latents, TILE, OVERLAP)


@pytest.fixture(scope="module")
def apart(trained: Autoencoder, latents: Tensor) -> Tensor:
    """Decoded in four quarters that know nothing of each other."""
    return _quarters(trained.decode, latents)


def _quarters(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    rows = (torch.cat([run(part) for part in row.chunk(2, 3)], 3) for row in x.chunk(2, 2))
    return torch.cat(list(rows), 2)


def test_decoding_in_tiles_is_decoding(whole: Tensor, tiled: Tensor, apart: Tensor) -> None:
    off = (tiled - whole).abs()
    assert off.max() <= 0.06 and off.mean() <= 0.008
    assert (apart - whole).abs().max() > 0.15, "the picture is too easy"


def test_no_seam_shows(whole: Tensor, tiled: Tensor, apart: Tensor) -> None:
    """From column to column, what tiling adds changes no more where tiles begin and end than elsewhere."""
    borders = torch.zeros(255, dtype=torch.bool)
    borders[[63, 127, 191]] = True

    def seam(decoded: Tensor) -> float:
        steps = (decoded - whole).diff(dim=3).abs().mean((0, 1, 2))
        return float(steps[borders].max() / steps[~borders].median())

    assert seam(tiled) <= 1.5 < 5 < seam(apart)


def test_encoding_in_tiles_is_encoding(trained: Autoencoder, picture: Tensor, latents: Tensor) -> None:
    size = latents.abs().max()
    off = (encode_tiled(trained, picture, None, TILE, OVERLAP) - latents).abs()
    assert off.max() <= 0.15 * size and off.mean() <= 0.03 * size
    assert (_quarters(trained.encode, picture) - latents).abs().max() > 0.3 * size, "the picture is too easy"


def test_encoding_in_tiles_samples(trained: Autoencoder, picture: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 8, 32, 32, generator=generator)
    mean, sampled = (encode_tiled(trained, picture, each, TILE, OVERLAP) for each in (None, noise))
    there = (trained.encode(picture, noise) - trained.encode(picture)).std()
    assert abs((sampled - mean).std() / there - 1) < 0.2


def test_what_fits_a_tile_is_untouched(trained: Autoencoder, latents: Tensor, picture: Tensor) -> None:
    assert torch.equal(decode_tiled(trained, latents, 32), trained.decode(latents))
    assert torch.equal(encode_tiled(trained, picture, None, 32), latents)


@pytest.mark.parametrize("side", [(9, 23), (16, 4), (8, 17)])
def test_any_size_comes_back_whole(side: tuple[int, int]) -> None:
    autoencoder = randomise(Autoencoder(AUTOENCODER)).eval()
    latents = torch.randn(2, 4, *side)
    with torch.no_grad():
        tiled = decode_tiled(autoencoder, latents, 8, 2)
        assert tiled.shape == autoencoder.decode(latents).shape and bool(tiled.isfinite().all())
        assert encode_tiled(autoencoder, tiled, None, 8, 2).shape == latents.shape


def test_pictures_of_a_batch_do_not_mix_and_weights_stay() -> None:
    autoencoder = randomise(Autoencoder(AUTOENCODER)).eval()
    before = {key: value.clone() for key, value in autoencoder.state_dict().items()}
    latents = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        both = decode_tiled(autoencoder, latents, 8, 2)
        alone = torch.cat([decode_tiled(autoencoder, each, 8, 2) for each in latents.split(1)])
        assert torch.allclose(both, alone, atol=1e-5)
        assert torch.allclose(decode_sliced(autoencoder, latents), autoencoder.decode(latents), atol=1e-5)
    after = autoencoder.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
