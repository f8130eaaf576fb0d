"""Weighting against compel, against values worked out by hand, and against an independent restatement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from fromnoise.text import PromptEncoder, Tokenizer, parse
from fromnoise.text.weighting import away_from_empty, multiplied
from fromnoise.training.vocabulary import save_tokenizer
from tests.parity.oracle import difference, load_theirs
from tests.text.encoders import ENCODERS, config, prompt_encoder

LIMIT = 1e-5
LONG = "a wolf, (oil painting:1.4), " + "a (red:0.7) cat and a dog, " * 12


@pytest.fixture(scope="module")
def their_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder, Tokenizer.clip())
    return folder


def reference(generation: str, index: int, folder: Path) -> tuple[Any, Any]:
    """transformers' tokenizer and text encoder, with our weights."""
    part, pad = ENCODERS[generation][index]
    module = load_theirs(config(generation, part), prompt_encoder(generation).encoders[index].clip_text)
    return transformers.CLIPTokenizer.from_pretrained(folder, pad_token=pad), module


def only(encoder: PromptEncoder, index: int, words: torch.Tensor) -> torch.Tensor:
    """One encoder's part of the states."""
    widths = [each.clip_text.config.hidden_size for each in encoder.encoders]
    return words.split(widths, -1)[index]


CASES = [(generation, index) for generation, encoders in ENCODERS.items() for index in range(len(encoders))]


@pytest.mark.parametrize(("generation", "index"), CASES)
@pytest.mark.parametrize("weights", [(1.0, 1.4, 1.0), (1.3, 1.0, 1.21), (1.0, 0.5, -0.2), (1.0, 1.0, 1.0)])
def test_comfyui_is_compels(generation: str, index: int, weights: tuple[float, ...], their_tokenizer: Path) -> None:
    compel = pytest.importorskip("compel.embeddings_provider")
    returned = compel.ReturnedEmbeddingsType
    tokenizer, module = reference(generation, index, their_tokenizer)
    encoder = prompt_encoder(generation)
    kind = returned.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED if encoder.reading.raw else (
        returned.LAST_HIDDEN_STATES_NORMALIZED)  # fmt: skip
    provider = compel.EmbeddingsProvider(tokenizer, module, returned_embeddings_type=kind, device="cpu")
    fragments = ["a wolf ", "in the snow, ", "oil painting"]
    tokens, per_token, mask = provider.get_token_ids_and_expand_weights(fragments, list(weights), device="cpu")
    with torch.no_grad():
        theirs = provider.build_weighted_embedding_tensor(tokens, per_token, mask)
    prompt = "".join(f"({text}:{weight})" for text, weight in zip(fragments, weights, strict=True))
    ours = only(encoder, index, encoder.encode([prompt], weighting="comfyui").words)
    assert difference(ours, theirs) <= LIMIT


def test_multiplied_by_hand() -> None:
    """The mean is 5 and becomes 6.5, so all is scaled by 5 / 6.5."""
    states = torch.tensor([[[2.0, 4.0], [6.0, 8.0]]])
    made = multiplied(states, torch.tensor([[2.0, 1.0]]), lambda: torch.zeros(1, 2, 2))
    wanted = torch.tensor([[[4.0, 8.0], [6.0, 8.0]]]) * (5 / 6.5)
    assert torch.allclose(made, wanted)


def test_away_from_empty_by_hand() -> None:
    states, empty = torch.tensor([[[2.0, 4.0], [6.0, 8.0]]]), torch.tensor([[[1.0, 1.0], [2.0, 3.0]]])
    made = away_from_empty(states, torch.tensor([[1.0, 1.5]]), lambda: empty)
    assert torch.allclose(made, torch.tensor([[[2.0, 4.0], [8.0, 10.5]]]))


def test_each_chunk_keeps_its_own_mean() -> None:
    draw = torch.Generator().manual_seed(0)
    states, weights = torch.randn(3, 77, 8, generator=draw) + 0.3, torch.rand(3, 77, generator=draw) + 0.5
    made = multiplied(states, weights, lambda: states[:1])
    assert torch.allclose(made.mean((1, 2)), states.mean((1, 2)), atol=1e-6)
    ones = torch.ones(3, 77)
    assert torch.equal(multiplied(states, ones, lambda: states[:1]), states)
    assert torch.equal(away_from_empty(states, ones, lambda: states[:1]), states)


def restated(generation: str, index: int, folder: Path, prompt: str, weighting: str) -> torch.Tensor:
    """The states of a long prompt, from transformers' alone: token by token and chunk by chunk, in numpy."""
    tokenizer, module = reference(generation, index, folder)
    raw = prompt_encoder(generation).reading.raw

    def states(ids: list[int]) -> np.ndarray:
        row = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        row += [tokenizer.pad_token_id] * (77 - len(row))
        with torch.no_grad():
            made = module(torch.tensor([row]), output_hidden_states=True)
        return (made.hidden_states[-2] if raw else made.last_hidden_state)[0].numpy()

    pairs = [(id, span.weight) for span in parse(prompt).at(0, 1)[0].spans
             for id in tokenizer(span.text, add_special_tokens=False).input_ids]  # fmt: skip
    comma, chunks = tokenizer.convert_tokens_to_ids(",</w>"), []
    while pairs:
        end = 75
        if len(pairs) > 75 and pairs[75][0] != comma:
            near = [at + 1 for at in range(55, 75) if pairs[at][0] == comma]
            end = near[-1] if near else 75
        chunk, pairs = pairs[:end], pairs[end:]
        z = states([id for id, _ in chunk])
        weights = np.ones((77, 1))
        weights[1 : len(chunk) + 1, 0] = [weight for _, weight in chunk]
        empty = states([])
        changed = z * weights if weighting == "a1111" else (z - empty) * weights + empty
        chunks.append(changed * (z.mean() / changed.mean()) if weighting == "a1111" else changed)
    return torch.tensor(np.concatenate(chunks)[None])


@pytest.mark.parametrize("weighting", ["a1111", "comfyui"])
@pytest.mark.parametrize(("generation", "index"), CASES)
def test_long_prompts_restated(generation: str, index: int, weighting: str, their_tokenizer: Path) -> None:
    encoder = prompt_encoder(generation)
    ours = only(encoder, index, encoder.encode(parse(LONG).at(0, 1), weighting=weighting).words)
    theirs = restated(generation, index, their_tokenizer, LONG, weighting)
    assert ours.shape[1] == 2 * 77
    assert difference(ours, theirs) <= LIMIT
