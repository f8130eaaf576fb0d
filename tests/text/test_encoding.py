from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken

from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.runtime.errors import FromnoiseError
from fromnoise.text import KnownConcepts, TextEncoder, Tokenizer
from fromnoise.training.vocabulary import learn_vocabulary
from tests.text.examples import TEXTS
from tests.tiny import randomise


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    tokenizer = learn_vocabulary(TEXTS, 540, 16)
    config = TextConfig(
        vocab_size=len(tokenizer.vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=tokenizer.start,
        eos_token_id=tokenizer.end,
        pad_token_id=tokenizer.pad,
    )
    return TextEncoder(tokenizer, randomise(ClipText(config)).eval())


def test_an_added_token_needs_a_row(encoder: TextEncoder) -> None:
    base = encoder.tokenizer
    added = {len(base.vocabulary): AddedToken("<cat>")}
    tokenizer = Tokenizer(base.vocabulary, base.merges, max_length=16, added=added)
    assert tokenizer.ids("a <cat>")[-1] == len(base.vocabulary)
    with pytest.raises(FromnoiseError, match="knows '<cat>'"):
        TextEncoder(tokenizer, encoder.clip_text)


@torch.no_grad()
def test_every_position_is_a_state(encoder: TextEncoder) -> None:
    states = encoder.encode(["a red apple", ""])
    assert states.shape == (2, 16, 32)
    assert not torch.equal(states[0, -1], states[1, -1])
    assert torch.equal(states[0, 0], states[1, 0])


@torch.no_grad()
def test_a_sentence_is_the_state_at_its_first_end_token(encoder: TextEncoder) -> None:
    end = 1 + len(encoder.tokenizer.ids("a red apple"))
    assert torch.allclose(encoder.sentences(["a red apple"])[0], encoder.encode(["a red apple"])[0, end], atol=1e-5)


@torch.no_grad()
def test_clip_skip_counts_from_the_end(encoder: TextEncoder) -> None:
    tokens = encoder.tokenizer.encode(["a red apple"])
    assert torch.equal(encoder.encode(["a red apple"], clip_skip=2), encoder.clip_text(tokens, 1))
    assert torch.equal(encoder.encode(["a red apple"], clip_skip=1), encoder.encode(["a red apple"]))


@pytest.fixture
def known(encoder: TextEncoder) -> KnownConcepts:
    captions = {"apple": ["a red apple", "a green apple"], "pear": ["the pear tree"], "number": ["42"]}
    return KnownConcepts.learn(encoder, captions, 0.9)


def test_the_nearest_concept_comes_first(encoder: TextEncoder, known: KnownConcepts) -> None:
    near = known.nearest(encoder, "the pear tree", 2)
    assert len(near) == 2
    assert near[0].label == "pear"
    assert near[0].cosine == pytest.approx(1.0, abs=1e-5)
    assert near[1].cosine < near[0].cosine
    assert not known.is_far(near)
    assert known.is_far(near[1:])
    assert known.is_far([])


def test_only_a_prompt_far_from_all_is_remarked_on(encoder: TextEncoder, known: KnownConcepts) -> None:
    assert known.remark(encoder, "the pear tree") is None
    assert known.remark(encoder, "  ") is None
    known.threshold = 1.1
    assert known.remark(encoder, "the pear tree") == "nothing like 'the pear tree'; nearest: pear"


def test_known_concepts_read_as_they_were_written(encoder: TextEncoder, known: KnownConcepts, tmp_path: Path) -> None:
    assert KnownConcepts.read(tmp_path) is None
    known.save(tmp_path)
    read = KnownConcepts.read(tmp_path)
    assert read is not None
    assert (read.labels, read.threshold) == (known.labels, known.threshold)
    assert read.nearest(encoder, "42")[0].label == "number"
    assert torch.allclose(read.vectors, known.vectors, atol=1e-3)


def test_damaged_concepts_are_named(known: KnownConcepts, tmp_path: Path) -> None:
    known.save(tmp_path)
    (tmp_path / "concepts.safetensors").write_bytes(b"no")
    with pytest.raises(FromnoiseError, match="concepts"):
        KnownConcepts.read(tmp_path)
