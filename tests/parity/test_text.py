"""Our tokenizer against transformers' on a vocabulary of published format."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.text import Tokenizer
from fromnoise.training.vocabulary import learn_vocabulary, save_tokenizer
from tests.text.examples import TEXTS

transformers = pytest.importorskip("transformers")

WORDS = st.sampled_from(
    ["apple", "Don't", "42", "<|endoftext|>", "naïve", "  ", "!?", "🐶", "İ", "it's we'LL", "\u200b", "ﬁ"]
)
SENTENCES = st.one_of(
    st.text(max_size=40), st.lists(WORDS, max_size=6).map(" ".join), st.lists(WORDS, max_size=6).map("".join)
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, transformers.CLIPTokenizer]:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder, learn_vocabulary(TEXTS, 560, 16))
    return Tokenizer.read(folder), transformers.CLIPTokenizer.from_pretrained(folder)


@settings(max_examples=200, deadline=None)
@given(text=SENTENCES)
def test_same_ids(pair: tuple[Tokenizer, transformers.CLIPTokenizer], text: str) -> None:
    ours, theirs = pair
    expected = theirs(text, padding="max_length", truncation=True, max_length=theirs.model_max_length).input_ids
    assert ours.encode([text])[0].tolist() == expected


def test_transformers_reads_our_special_tokens(pair: tuple[Tokenizer, transformers.CLIPTokenizer]) -> None:
    ours, theirs = pair
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.start, ours.end, ours.pad)
    assert theirs.model_max_length == ours.max_length
