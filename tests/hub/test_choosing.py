import pytest

from fromnoise.checkpoints.weights import ENDINGS as READ_ENDINGS
from fromnoise.checkpoints.weights import STEMS as READ_STEMS
from fromnoise.checkpoints.weights import VARIANTS as READ_VARIANTS
from fromnoise.hub.choosing import ENDINGS, STEMS, VARIANTS, chosen, matching
from fromnoise.runtime.errors import UsageError

PUBLISHED = """
.gitattributes LICENSE.md README.md model_index.json v1-5-pruned.ckpt v1-5-pruned.safetensors v1-5-pruned-emaonly.ckpt
feature_extractor/preprocessor_config.json safety_checker/config.json safety_checker/model.safetensors
scheduler/scheduler_config.json tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json
tokenizer/vocab.json text_encoder/config.json text_encoder/model.safetensors text_encoder/model.fp16.safetensors
text_encoder/pytorch_model.bin unet/config.json unet/diffusion_pytorch_model.bin
unet/diffusion_pytorch_model.safetensors unet/diffusion_pytorch_model.fp16.safetensors
unet/diffusion_pytorch_model.non_ema.safetensors vae/config.json
vae/diffusion_pytorch_model.bin vae/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.fp16.safetensors
unet/model.onnx pipeline.py flax_model.msgpack
"""
"""What the published SD 1.5 and others like it have, more or less."""

SD15 = PUBLISHED.split()

COMMON = {
    "LICENSE.md", "README.md", "model_index.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json",
    "text_encoder/config.json", "unet/config.json", "vae/config.json",
}  # fmt: skip


def weights(variant: str = "") -> set[str]:
    vision = {f"{part}/diffusion_pytorch_model{variant}.safetensors" for part in ("unet", "vae")}
    return {*vision, f"text_encoder/model{variant}.safetensors"}


def test_a_folder_needs_one_set_of_weights_and_nothing_else():
    assert set(chosen(SD15)) == COMMON | weights()


def test_what_fast_drawings_need_comes_along():
    tiny = {"vae_tiny/config.json", "vae_tiny/diffusion_pytorch_model.safetensors"}
    assert set(chosen([*SD15, "fast.safetensors", *tiny])) == COMMON | weights() | tiny | {"fast.safetensors"}


def test_the_variant_that_was_asked_for():
    assert set(chosen(SD15, "fp16")) == COMMON | weights(".fp16")


def test_a_part_without_the_variant_comes_in_full():
    files = [name for name in SD15 if name != "vae/diffusion_pytorch_model.fp16.safetensors"]
    assert {name for name in chosen(files, "fp16") if name.startswith("vae/")} == {
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }


def test_a_variant_that_no_part_has():
    with pytest.raises(UsageError, match="no bf16 variant; there is fp16, non_ema"):
        chosen(SD15, "bf16")


def test_safetensors_of_any_variant_before_pickles():
    files = [name for name in SD15 if name != "unet/diffusion_pytorch_model.safetensors"]
    unet = [name for name in chosen(files) if name.startswith("unet/")]
    assert unet == ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"]


@pytest.mark.parametrize(
    ("index", "shard"),
    [
        ("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model-{}.safetensors"),
        ("diffusion_pytorch_model.safetensors.index.fp16.json", "diffusion_pytorch_model.fp16-{}.safetensors"),
        ("diffusion_pytorch_model.safetensors.index.fp16.json", "diffusion_pytorch_model-{}.fp16.safetensors"),
    ],
)
def test_shards_come_with_their_index(index: str, shard: str):
    shards = [f"unet/{shard.format(number)}" for number in ("00001-of-00002", "00002-of-00002")]
    other = "unet/diffusion_pytorch_model-00001-of-00002.bin"
    unet = [f"unet/{index}", *shards]
    kept = [name for name in SD15 if not name.startswith("unet/diffusion")]
    assert {name for name in chosen([*kept, *unet, other]) if name.startswith("unet/")} == {"unet/config.json", *unet}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("config.json diffusion_pytorch_model.safetensors diffusion_pytorch_model.bin", "config.json diffusion_pytorch_"
         "model.safetensors"),
        ("adapter_config.json adapter_model.safetensors README.md", "adapter_model.safetensors adapter_config.json "
         "README.md"),
        ("pytorch_lora_weights.safetensors pytorch_lora_weights.bin image.png", "pytorch_lora_weights.safetensors"),
        ("learned_embeds.bin token_identifier.txt concept_images/1.jpeg", "learned_embeds.bin"),
        ("style.safetensors style.ckpt sub/other.safetensors.txt", "style.safetensors"),
    ],
)  # fmt: skip
def test_what_is_no_folder_of_diffusers(files: str, expected: str):
    assert chosen(files.split()) == expected.split()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("a.safetensors b.safetensors", "several models; choose one with --file: a.safetensors, b.safetensors"),
        ("README.md model.gguf", "no weights that fromnoise knows"),
        ("model_index.json transformer/config.json vae/config.json", "not of a Stable Diffusion"),
        ("model_index.json unet/config.json unet/flax.msgpack", "its unet has no weights that fromnoise reads"),
    ],
)
def test_nothing_to_choose(files: str, words: str):
    with pytest.raises(UsageError, match=words):
        chosen(files.split())


def test_patterns():
    assert matching(SD15, ["*.py", "vae/c*"]) == ["pipeline.py", "vae/config.json", "README.md"]
    with pytest.raises(UsageError, match=r"no file is called \*\.onnxx"):
        matching(SD15, ["*.py", "*.onnxx"])


def test_what_is_chosen_is_what_loading_takes():
    assert STEMS == READ_STEMS
    assert ENDINGS == READ_ENDINGS
    assert tuple(f".{each}" if each else "" for each in VARIANTS) == READ_VARIANTS
