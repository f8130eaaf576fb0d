"""Counted work against torch's own counter, on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fromnoise.checkpoints.building import build
from fromnoise.models import work
from fromnoise.models.controlnet import ControlNet
from fromnoise.models.extras import Extras, Reuse
from fromnoise.models.published import FAMILIES
from fromnoise.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from fromnoise.models.unet import UNet
from tests.tiny import UNET

WORDS = 11


def counted(call: Callable[[], object]) -> int:
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def built(family: str, part: str):
    with torch.device("meta"):
        return build(FAMILIES[family].parts[part])


@pytest.mark.parametrize(("family", "size"), [("sd1", (8, 12)), ("sd2", (9, 5)), ("sdxl", (8, 8))])
def test_unets(family: str, size: tuple[int, int]):
    unet = built(family, "unet")
    assert isinstance(unet, UNet)

    def call(reuse: Reuse | None = None) -> None:
        x, words = torch.empty(2, 4, *size), torch.empty(2, WORDS, unet.config.cross_attention_dim)
        unet(x, torch.empty(2), words, Extras(torch.empty(2, 1280), torch.empty(2, 6), reuse=reuse))

    assert work.unet_work(unet.config, 2, size, WORDS).flops == pytest.approx(counted(call), rel=0.003)
    for outer in (1, 2, 3):
        reuse = Reuse(2, outer)
        counted(lambda reuse=reuse: call(reuse))
        shallow = counted(lambda reuse=reuse: call(reuse))
        assert work.unet_work(unet.config, 2, size, WORDS, outer=outer).flops == pytest.approx(shallow, rel=0.05)


def test_merged_tokens():
    with torch.device("meta"):
        unet = UNet(replace(UNET, block_out_channels=(64, 64)))

    def call() -> None:
        unet(torch.empty(2, 4, 16, 16), torch.empty(2), torch.empty(2, WORDS, 32), Extras(merge=0.5))

    exact, merged = (work.unet_work(unet.config, 2, (16, 16), WORDS, merge=share).flops for share in (0.0, 0.5))
    assert merged < exact
    assert merged == pytest.approx(counted(call), rel=0.003)


def test_control_nets_are_a_u_nets_way_down_and_middle():
    (config,) = FAMILIES["controlnet-sd1"].parts.values()
    with torch.device("meta"):
        net = build(config)
    assert isinstance(net, ControlNet)

    def call() -> None:
        net(torch.empty(2, 4, 8, 8), torch.empty(2), torch.empty(2, WORDS, 768), torch.empty(2, 3, 64, 64))

    # What the picture to follow is embedded by, and the convolutions behind, are left out: 5 %.
    assert work.control_work(net.config, 2, (8, 8), WORDS).flops == pytest.approx(counted(call), rel=0.1)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_autoencoders(family: str):
    vae = built(family, "vae")
    size = (8, 6)
    decoded = counted(lambda: vae.decode(torch.empty(2, 4, *size)))
    assert work.decoder_work(vae.config, 2, size).flops == decoded
    encoded = counted(lambda: vae.encode(torch.empty(2, 3, 8 * size[0], 8 * size[1])))
    assert work.encoder_work(vae.config, 2, size).flops == encoded


def test_tiny_autoencoders():
    with torch.device("meta"):
        tiny = TinyAutoencoder(TinyAutoencoderConfig())
    decoded = counted(lambda: tiny.decode(torch.empty(1, 4, 8, 6)))
    assert work.decoder_work(tiny.config, 1, (8, 6)).flops == decoded
    encoded = counted(lambda: tiny.encode(torch.empty(1, 3, 64, 48)))
    assert work.encoder_work(tiny.config, 1, (8, 6)).flops == encoded


def test_text_encoders():
    text = built("sd2", "text_encoder")
    counts = counted(lambda: text(torch.zeros(2, 77, dtype=torch.int64)))
    assert work.text_work(text.config, 2).flops == pytest.approx(counts, rel=0.001)


def test_memory_is_that_of_the_largest_piece_and_of_what_is_kept():
    one, two = work.conv(10, 4, 4), work.conv(100, 4, 4)
    assert work.Work((one, two), kept=7.0).values == two.values + 7
