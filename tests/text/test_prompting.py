"""From prompts to conditioning: chunks, padding, the cache, negative prompts, ids."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fromnoise.request import WEIGHTINGS
from fromnoise.runtime.errors import UsageError
from fromnoise.text import PromptEncoder, TextEncoder, Tokenizer, lint, parse
from fromnoise.text.conditioning import READINGS
from fromnoise.text.weighting import WEIGHTINGS as ARITHMETICS
from tests.text.encoders import ENCODERS, prompt_encoder

LONG = "cat " * 80


def fresh(encoder: PromptEncoder, **fields: int) -> PromptEncoder:
    """The same encoders with nothing kept."""
    return PromptEncoder(encoder.encoders, encoder.reading, **fields)


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> PromptEncoder:
    return fresh(prompt_encoder(request.param))


def test_shapes(encoder: PromptEncoder) -> None:
    made = encoder.encode(["a red apple", LONG])
    width = sum(each.clip_text.config.hidden_size for each in encoder.encoders)
    assert made.words.shape == (2, 154, width)
    if encoder.reading.raw:
        assert made.pooled is not None
        assert made.pooled.shape == (2, encoder.encoders[-1].clip_text.config.projection_dim)
    else:
        assert made.pooled is None


def test_a_row_does_not_depend_on_the_others(encoder: PromptEncoder) -> None:
    alone = fresh(encoder).encode(["a red apple"]).words
    assert torch.equal(encoder.encode([LONG, "a (red:1.0) apple"]).words[1:, :77], alone)


def test_padding_is_empty_chunks(encoder: PromptEncoder) -> None:
    padded = encoder.encode(["a red apple", LONG]).words
    assert torch.equal(padded[0, 77:], encoder.encode([""]).words[0])
    assert torch.equal(encoder.encode(["a red apple BREAK", LONG]).words[0], padded[0])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_both_prompts_have_as_many_chunks(encoder: PromptEncoder, weighting: str) -> None:
    positive, negative = encoder.pair([LONG, "a"], "ugly", weighting=weighting)
    assert len(positive) == 2
    assert positive.words.shape[1:] == negative.words.shape[1:]
    assert positive.words.shape[1] == (77 if weighting == "none" else 154)


def test_an_empty_negative_prompt_is_zeros_in_sdxl_alone(encoder: PromptEncoder) -> None:
    positive, negative = encoder.pair([""], " ")
    assert not torch.equal(positive.words, torch.zeros_like(positive.words))
    assert bool((negative.words == 0).all()) == encoder.reading.zero_negative
    assert negative.pooled is None or not negative.pooled.any()
    assert encoder.pair([""], "ugly")[1].words.any()


def test_what_was_made_is_kept(encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(encoder, "_make", lambda *given, make=encoder._make: (calls.append(given), make(*given))[1])
    first = encoder.encode(["a (red:1.2) apple"]).words
    assert torch.equal(encoder.encode(["a (red:1.2) apple"]).words, first)
    assert torch.equal(encoder.encode(parse("[a:the:5] (red:1.2) apple").at(3, 9)).words, first)
    assert len(calls) == 1
    encoder.encode(["a (red:1.2) apple"], clip_skip=3)
    assert len(calls) == 2
    encoder.forget()
    encoder.encode(["a (red:1.2) apple"])
    assert len(calls) == 3


def test_changing_what_was_given_does_not_change_what_is_kept(encoder: PromptEncoder) -> None:
    given = encoder.encode(["a red apple"]).words
    before = given.clone()
    given.zero_()
    assert torch.equal(encoder.encode(["a red apple"]).words, before)


def test_only_so_many_are_kept(encoder: PromptEncoder) -> None:
    bounded = fresh(encoder, cached=2)
    for number in range(5):
        bounded.encode([f"{number} apples"])
    assert len(bounded._made) == 2


def test_several_threads_get_the_same(encoder: PromptEncoder) -> None:
    bounded, prompts = fresh(encoder, cached=3), [f"{number % 5} (apples:1.{number % 5})" for number in range(20)]
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda prompt: bounded.encode([prompt]).words, prompts))
    for prompt, words in zip(prompts, made, strict=True):
        assert torch.equal(words, encoder.encode([prompt]).words)


def test_what_is_kept_in_inference_mode_serves_gradients_too(encoder: PromptEncoder) -> None:
    with torch.inference_mode():
        encoder.encode(["a red (apple:1.2)"])
    scale = torch.ones((), requires_grad=True)
    (encoder.encode(["a red (apple:1.2)"]).words * scale).sum().backward()
    assert scale.grad is not None


def test_ids_are_words(encoder: PromptEncoder) -> None:
    ids = encoder.tokenizers[0].ids("a red apple")
    made, wanted = encoder.from_ids([ids, []]), encoder.encode(["a red apple", ""])
    assert torch.equal(made.words, wanted.words)
    assert encoder.from_ids([[320] * 76]).words.shape[1] == 154


def test_brackets_are_words_without_weighting(encoder: PromptEncoder) -> None:
    plain = encoder.encode(["a (red:1.3) apple"], weighting="none").words
    assert torch.equal(plain, encoder.from_ids([encoder.tokenizers[0].ids("a (red:1.3) apple")]).words)
    assert not torch.equal(plain, encoder.encode(["a (red:1.3) apple"]).words)


def test_unknown_weightings_and_layers_are_refused(encoder: PromptEncoder) -> None:
    with pytest.raises(UsageError, match="no weighting"):
        encoder.encode(["a"], weighting="invoke")
    for skip in (0, 5):
        with pytest.raises(UsageError, match="clip skip must be from 1 to 4"):
            encoder.encode(["a"], clip_skip=skip)
    assert set(WEIGHTINGS) == set(ARITHMETICS)


def test_encoders_of_different_lengths_are_refused() -> None:
    [encoder] = prompt_encoder("sd1").encoders
    short = TextEncoder(Tokenizer.clip(max_length=64), encoder.clip_text)
    with pytest.raises(UsageError, match="same number of tokens"):
        PromptEncoder([encoder, short], READINGS["sdxl"])


def test_lint_shows_every_encoder() -> None:
    first, second = lint("a cat!", prompt_encoder("sdxl")).moments[0].parts[0].encoders
    assert (first.encoder, second.encoder) == ("text_encoder", "text_encoder_2")
    assert (first.chunks[0][-1].id, second.chunks[0][-1].id) == (256, 0)
