"""LoRA, LoHa and LoKr against peft, LyCORIS and diffusers, each with random factors."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from safetensors.torch import save_file
from torch import Tensor, nn

from fromnoise.adapters import Use, applied, read_adapter, read_embedding, write_embedding, write_lora
from fromnoise.adapters.embedding import Embedding
from fromnoise.adapters.keys import layers, read_key, spellings
from fromnoise.pipeline.loading import load
from tests.adapters.models import bits, drawn, for_layers, lora, parts, random, same_bits, sdxl_parts
from tests.parity.oracle import difference

LIMIT = 1e-5
LINEAR = r".*\.(to_q|to_k|to_v|to_out\.0|proj|ff\.net\.2|time_emb_proj|linear_1)"
CONV = r".*\.(conv1|conv2|conv|conv_shortcut|proj_in)"
TARGETS = f"({LINEAR}|{CONV}|conv_in|conv_out)"

PEFT = {
    "lora": peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=TARGETS,
        rank_pattern={"to_q": 2, r"down_blocks.*\.to_k": 3},
        alpha_pattern={"to_q": 5, "conv1": 1},
    ),
    "rslora": peft.LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=TARGETS),
    "loha": peft.LoHaConfig(r=3, alpha=5, target_modules=TARGETS),
    "loha-tucker": peft.LoHaConfig(r=3, alpha=2, use_effective_conv2d=True, target_modules=TARGETS),
    "lokr": peft.LoKrConfig(r=2, alpha=3, target_modules=TARGETS),
    "lokr-both": peft.LoKrConfig(r=2, alpha=3, decompose_both=True, decompose_factor=4, target_modules=TARGETS),
    "lokr-tucker": peft.LoKrConfig(r=2, alpha=1, use_effective_conv2d=True, target_modules=TARGETS),
    "lokr-full": peft.LoKrConfig(r=64, alpha=48, target_modules=TARGETS),
}


def shake(module: nn.Module, sign: str, spread: float = 0.3) -> int:
    """Every parameter whose name holds `sign` random; how many there were."""
    generator = torch.Generator().manual_seed(5)
    named = [each for name, each in module.named_parameters() if sign in name]
    for each in named:
        each.data.normal_(std=spread, generator=generator)
    return len(named)


@pytest.mark.parametrize("name", PEFT)
def test_peft(name: str, tmp_path: Path) -> None:
    unet = parts()["unet"]
    theirs = peft.get_peft_model(deepcopy(unet), PEFT[name])
    assert shake(theirs, {"lora": "lora_", "rslora": "lora_", "loha": "hada_", "lokr": "lokr_"}[name.split("-")[0]])
    theirs.save_pretrained(str(tmp_path))
    theirs.eval()
    theirs.config = unet.config
    reference, plain = drawn(theirs), drawn(unet)
    adapter = read_adapter(tmp_path)
    before = bits(unet)
    for fused in (True, False):
        with applied({"unet": unet}, [Use(adapter)], fused=fused):
            assert difference(drawn(unet), reference) <= LIMIT
    assert difference(plain, reference) > 0.01, "the adapter changed nothing"
    assert same_bits(unet, before) and torch.equal(drawn(unet), plain)


LAYERS = {
    "linear": lambda: nn.Linear(24, 32),
    "conv3": lambda: nn.Conv2d(24, 32, 3, padding=1, stride=2),
    "conv1": lambda: nn.Conv2d(24, 32, 1),
}
LYCORIS: Mapping[str, tuple[type, dict[str, Any]]] = {
    "locon": (LoConModule, {"lora_dim": 4, "alpha": 3}),
    "locon-cp": (LoConModule, {"lora_dim": 4, "alpha": 3, "use_tucker": True}),
    "locon-rs": (LoConModule, {"lora_dim": 4, "alpha": 3, "rs_lora": True}),
    "locon-scalar": (LoConModule, {"lora_dim": 4, "alpha": 3, "use_scalar": True}),
    "loha": (LohaModule, {"lora_dim": 3, "alpha": 2}),
    "loha-tucker": (LohaModule, {"lora_dim": 3, "alpha": 2, "use_tucker": True}),
    "lokr": (LokrModule, {"lora_dim": 2, "alpha": 3}),
    "lokr-factor": (LokrModule, {"lora_dim": 2, "alpha": 3, "factor": 8, "unbalanced_factorization": True}),
    "lokr-both": (LokrModule, {"lora_dim": 1, "alpha": 3, "decompose_both": True, "factor": 4}),
    "lokr-tucker": (LokrModule, {"lora_dim": 2, "alpha": 3, "use_tucker": True}),
    "lokr-full": (LokrModule, {"lora_dim": 64, "alpha": 3}),
    "lokr-matrix": (LokrModule, {"lora_dim": 2, "alpha": 3, "full_matrix": True}),
}


class Holder(nn.Module):
    """One layer under the name `proj`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.proj = layer


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", LYCORIS)
def test_lycoris(name: str, layer: str, tmp_path: Path) -> None:
    ours = Holder(LAYERS[layer]().requires_grad_(False))
    kind, settings = LYCORIS[name]
    made = kind("lora_te_proj", deepcopy(ours.proj), multiplier=1.0, **settings)
    assert shake(made, "") > 1
    x = random(2, 24, seed=1) if layer == "linear" else random(2, 24, 9, 9, seed=1)
    plain = ours.proj(x)
    state = {f"lora_te_proj.{key}": each.detach().clone().contiguous() for key, each in made.state_dict().items()}
    save_file(state, tmp_path / "made.safetensors")
    made.apply_to()
    with torch.no_grad():
        reference = made.org_module[0](x)
    adapter = read_adapter(tmp_path / "made.safetensors")
    for fused in (True, False):
        with applied({"text_encoder": ours}, [Use(adapter)], fused=fused):
            assert difference(ours.proj(x), reference) <= LIMIT
    assert difference(plain, reference) > 0.01


@pytest.fixture(scope="module")
def theirs(tiny_model: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)


def their_answers(pipe: StableDiffusionPipeline) -> tuple[Tensor, Tensor]:
    tokens = torch.tensor([[512, 5, 77, 300, 513, *[513] * 11]])
    with torch.no_grad():
        return drawn_by_theirs(pipe), pipe.text_encoder(tokens)[0]


def drawn_by_theirs(pipe: StableDiffusionPipeline) -> Tensor:
    class Called(nn.Module):
        config = parts()["unet"].config

        def forward(self, x: Tensor, time: Tensor, words: Tensor, extras: object) -> Tensor:
            return pipe.unet(x, time, words).sample

    return drawn(Called())


def our_answers(pipeline: Any) -> tuple[Tensor, Tensor]:
    tokens = torch.tensor([[512, 5, 77, 300, 513, *[513] * 11]])
    with torch.no_grad():
        return drawn(pipeline.unet), pipeline.text.clip_text(tokens)


def modules_of(pipeline: Any) -> dict[str, nn.Module]:
    return {"unet": pipeline.unet, "text_encoder": pipeline.text.clip_text}


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_diffusers_reads_what_we_write(
    layout: str, tiny_model: Path, theirs: StableDiffusionPipeline, tmp_path: Path
) -> None:
    modules = modules_of(ours := load(tiny_model))
    factors = {name: for_layers(each, lora) for name, each in modules.items()}
    write_lora(tmp_path / "ours.safetensors", factors, layout, family="sd1")
    theirs.load_lora_weights(tmp_path, weight_name="ours.safetensors")
    try:
        reference = their_answers(theirs)
    finally:
        theirs.unload_lora_weights()
    with applied(modules, [Use(read_adapter(tmp_path / "ours.safetensors", name="ours"))]):
        mine = our_answers(ours)
    for one, other, plain in zip(mine, reference, our_answers(ours), strict=True):
        assert difference(one, other) <= LIMIT
        assert difference(plain, other) > 0.01


def test_we_read_what_diffusers_writes(tiny_model: Path, theirs: StableDiffusionPipeline, tmp_path: Path) -> None:
    modules = modules_of(ours := load(tiny_model))
    unet, text = deepcopy(theirs.unet), deepcopy(theirs.text_encoder)
    unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=9, target_modules=["to_q", "to_out.0", "conv1", "proj_in"]))
    text.add_adapter(peft.LoraConfig(r=3, lora_alpha=2, target_modules=["q_proj", "fc1"]))
    assert shake(unet, "lora_") and shake(text, "lora_")
    settings = {f"{name}_lora_adapter_metadata": each.peft_config["default"].to_dict()
                for name, each in (("unet", unet), ("text_encoder", text))}  # fmt: skip
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=peft.get_peft_model_state_dict(unet),
        text_encoder_lora_layers=peft.get_peft_model_state_dict(text),
        **settings,
    )
    changed = StableDiffusionPipeline(
        theirs.vae, text, theirs.tokenizer, unet, theirs.scheduler, None, None, requires_safety_checker=False
    )
    adapter = read_adapter(tmp_path / "pytorch_lora_weights.safetensors")
    with applied(modules, [Use(adapter)]):
        mine = our_answers(ours)
    for one, other in zip(mine, their_answers(changed), strict=True):
        assert difference(one, other) <= LIMIT


def test_sgm_block_names_are_those_that_diffusers_knows() -> None:
    unet = sdxl_parts()["unet"]
    table = spellings("unet", unet)
    names = {own: spelt for spelt, own in table.items() if spelt.startswith(("input_blocks_", "middle_", "output_"))}
    attention = {own: spelt for own, spelt in names.items() if ".attentions." in own}
    state = {}
    for own, spelt in attention.items():
        weight = layers(unet)[own].weight
        state[f"lora_unet_{spelt}.lora_down.weight"] = torch.zeros(1, weight.shape[1])
        state[f"lora_unet_{spelt}.lora_up.weight"] = torch.zeros(weight.shape[0], 1)
    mapped = _maybe_map_sgm_blocks_to_diffusers(dict(state), unet.config)
    converted, _ = _convert_non_diffusers_lora_to_diffusers(mapped)
    theirs = {named.layer for key in converted if (named := read_key(key))}
    assert len(attention) > 200
    assert theirs == set(attention)


def test_textual_inversion(tiny_model: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    ours = load(tiny_model)
    embedding = Embedding("<sks>", {"": random(3, 32, spread=1.0)})
    write_embedding(tmp_path / "sks.safetensors", embedding)
    pipe.load_textual_inversion(tmp_path, weight_name="sks.safetensors")
    prompt = "a <sks>, b"
    tokens = pipe.tokenizer(
        pipe.maybe_convert_prompt(prompt, pipe.tokenizer), padding="max_length", max_length=16, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        reference = pipe.text_encoder(tokens)[0]
    adapted = applied(modules_of(ours), embeddings=[read_embedding(tmp_path / "sks.safetensors")])
    plain = ours.prompts.encode([prompt]).words
    with adapted:
        mine = adapted.prompts(ours.prompts).encode([prompt]).words
    assert difference(mine, reference) <= LIMIT
    assert torch.equal(ours.prompts.encode([prompt]).words, plain)
    assert difference(plain, reference) > 0.01
