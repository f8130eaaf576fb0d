"""Our tokenizer against transformers', and what becomes of prompts against diffusers' pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from fromnoise.text import Tokenizer
from fromnoise.training.vocabulary import learn_vocabulary, save_tokenizer
from tests.parity.oracle import difference, load_theirs
from tests.text.encoders import ENCODERS, config, prompt_encoder
from tests.text.examples import TEXTS

Pair = tuple[Tokenizer, CLIPTokenizer]

SEEN = ["apple", "Don't", "42", "<|endoftext|>", "naïve", "  ", "!?", "🐶", "İ", "it's we'LL", "\u200b", "ﬁ", "3.14"]
RARE = [
    "ÀÉÎ",
    "e\u0301",
    "👩🏽\u200d🚀",
    "日本語",
    "…",
    "wow!!!",
    "#wolf_01",
    "(x:1.3)",
    "\t\n",
    "they've",
    "œuvre",
    "½",
]
WORDS = st.sampled_from([*SEEN, *RARE])
SENTENCES = st.one_of(
    st.text(max_size=40), st.lists(WORDS, max_size=6).map(" ".join), st.lists(WORDS, max_size=6).map("".join)
)

LIMIT = 1e-5


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("learnt")
    save_tokenizer(folder, learn_vocabulary(TEXTS, 560, 16))
    return Tokenizer.read(folder), CLIPTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as published ones are, made of the vocabulary that ships with the package."""
    folder = tmp_path_factory.mktemp("published")
    save_tokenizer(folder, Tokenizer.clip())
    return folder


@pytest.fixture(scope="module", params=["<|endoftext|>", "!"])
def clip(request: pytest.FixtureRequest, published: Path) -> Pair:
    return Tokenizer.clip(pad=request.param), CLIPTokenizer.from_pretrained(published, pad_token=request.param)


def their_ids(theirs: CLIPTokenizer, text: str) -> list[int]:
    return theirs(text, padding="max_length", truncation=True, max_length=theirs.model_max_length).input_ids


ADDED = ["<cat>", "<Big-Dog>", "cat-toy", "sun"]
SAID = "a <cat> x<cat>y <CAT> <Big-Dog> <big-dog> cat-toy cat-toys sunflower <|endoftext|> a"


@pytest.mark.parametrize("layout", ["tokenizer.json", "added_tokens.json", "added_tokens_decoder"])
def test_added_tokens(learnt: Pair, tmp_path: Path, layout: str) -> None:
    """As diffusers' script for textual inversion saves them, through releases of transformers old and new."""
    save_tokenizer(tmp_path, learnt[0])
    ids = {token: len(learnt[0].vocabulary) + index for index, token in enumerate(ADDED)}
    if layout == "tokenizer.json":
        theirs = CLIPTokenizer.from_pretrained(tmp_path)
        theirs.add_tokens(ADDED)
        tmp_path = tmp_path / "saved"
        theirs.save_pretrained(tmp_path)
    elif layout == "added_tokens.json":
        (tmp_path / layout).write_text(json.dumps(ids))
    else:
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        decoder = {str(id): {"content": token, "single_word": token == "sun"} for token, id in ids.items()}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, layout: decoder}))
    ours, theirs = Tokenizer.read(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    assert ours.ids(SAID) == theirs(SAID, add_special_tokens=False).input_ids
    assert {token: ours.ids(token)[0] for token in ADDED} == ids
    assert {ours.piece(id) for id in ours.ids(" ".join(ADDED))} == set(ADDED)


@settings(max_examples=200, deadline=None)
@given(text=SENTENCES)
def test_same_ids(learnt: Pair, text: str) -> None:
    ours, theirs = learnt
    assert ours.encode([text])[0].tolist() == their_ids(theirs, text)


@settings(max_examples=300, deadline=None)
@given(text=SENTENCES)
def test_same_ids_in_clips_vocabulary(clip: Pair, text: str) -> None:
    ours, theirs = clip
    assert ours.encode([text])[0].tolist() == their_ids(theirs, text)


def test_transformers_reads_our_special_tokens(learnt: Pair, clip: Pair) -> None:
    for ours, theirs in (learnt, clip):
        assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.start, ours.end, ours.pad)
        assert theirs.model_max_length == ours.max_length


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("a diagram", [320, 22697]),
        ("a photo of an astronaut riding a horse on mars", [320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496]),
        ("hello world", [3306, 1002]),
    ],
)
def test_published_ids(text: str, ids: list[int]) -> None:
    """As OpenAI's and Stability's examples print them."""
    row = Tokenizer.clip().encode([text])[0].tolist()
    assert row == [49406, *ids, *[49407] * (76 - len(ids))]


def diffusers_pipeline(generation: str, folder: Path) -> Any:
    """diffusers' pipeline with nothing but tokenizers and text encoders, and our weights in them."""
    parts: dict[str, Any] = dict.fromkeys(("vae", "unet", "scheduler", "text_encoder", "tokenizer"))
    for (part, pad), ours in zip(ENCODERS[generation], prompt_encoder(generation).encoders, strict=True):
        parts[part] = theirs = load_theirs(config(generation, part), ours.clip_text)
        if not hasattr(theirs, "text_model"):  # transformers 5 has no such layer, but diffusers' clip skip looks for it
            object.__setattr__(theirs, "text_model", theirs)
        parts[part.replace("text_encoder", "tokenizer")] = CLIPTokenizer.from_pretrained(folder, pad_token=pad)
    if generation == "sdxl":
        return StableDiffusionXLPipeline(**parts)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


PROMPT, NEGATIVE = "a (red:1.3) apple, oil painting! [x] AND BREAK 🐶", "ugly, blurry"


@pytest.mark.parametrize("generation", ["sd1", "sd2"])
def test_encode_prompt(generation: str, published: Path) -> None:
    pipe = diffusers_pipeline(generation, published)
    with torch.no_grad():
        theirs = pipe.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE)
    ours = prompt_encoder(generation).pair([PROMPT], NEGATIVE, weighting="none")
    for mine, their in zip(ours, theirs, strict=True):
        assert difference(mine.words, their) <= LIMIT


@pytest.mark.parametrize("negative", [NEGATIVE, None])
def test_encode_prompt_of_sdxl(negative: str | None, published: Path) -> None:
    pipe = diffusers_pipeline("sdxl", published)
    with torch.no_grad():
        theirs = pipe.encode_prompt(PROMPT, device="cpu", negative_prompt=negative)
    one, other = prompt_encoder("sdxl").pair([PROMPT], negative or "", weighting="none")
    for mine, their in zip((one.words, other.words, one.pooled, other.pooled), theirs, strict=True):
        if their.any():
            assert difference(mine, their) <= LIMIT
        else:
            assert torch.equal(mine, their)


@pytest.mark.parametrize(("generation", "skipped", "layer"), [("sd1", 1, 2), ("sd2", 2, 3), ("sdxl", 1, 3)])
def test_clip_skip(generation: str, skipped: int, layer: int, published: Path) -> None:
    """diffusers counts the layers left out, in SDXL beyond the last; and it does so for the positive prompt alone."""
    pipe = diffusers_pipeline(generation, published)
    with torch.no_grad():
        theirs = pipe.encode_prompt(
            PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, clip_skip=skipped
        )[0]
    ours = prompt_encoder(generation).encode([PROMPT], weighting="none", clip_skip=layer)
    assert difference(ours.words, theirs) <= LIMIT
