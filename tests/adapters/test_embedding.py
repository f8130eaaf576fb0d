"""Textual inversion: every layout, and tokens that disturb no others."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from fromnoise.adapters import Embedding, applied, read_embedding, write_embedding
from fromnoise.adapters.tokens import WithTokens
from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.text import PromptEncoder, TextEncoder, Tokenizer
from fromnoise.text.chunks import chunk_prompt
from fromnoise.text.conditioning import READINGS
from tests.adapters.models import bits, parts, random, same_bits, two_encoders
from tests.tiny import TEXT, write_tokenizer

CAT, STYLE = random(3, 32, spread=1.0), random(1, 32, seed=1, spread=1.0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    write_tokenizer(folder := tmp_path_factory.mktemp("tokenizer"), TEXT.max_position_embeddings)
    return Tokenizer.read(folder)


def a1111(vectors: Tensor, parameters: Any = None) -> dict[str, Any]:
    """What the web UI's trainer saves."""
    held = {"*": vectors} if parameters is None else parameters
    return {"string_to_token": {"*": 265}, "string_to_param": held, "name": "other", "step": 5, "sd_checkpoint": None}


LAYOUTS: dict[str, tuple[str, Any, str]] = {
    "a1111 pickle": ("cat.pt", a1111(CAT), "cat"),
    "compvis pickle": ("cat.pt", a1111(CAT, torch.nn.ParameterDict({"*": torch.nn.Parameter(CAT)})), "cat"),
    "a1111 safetensors": ("cat.safetensors", {"emb_params": CAT}, "cat"),
    "diffusers safetensors": ("learned_embeds.safetensors", {"<cat>": CAT}, "<cat>"),
    "diffusers pickle": ("learned_embeds.bin", {"<cat>": CAT}, "<cat>"),
    "bare star": ("cat.pt", {"*": CAT}, "cat"),
}


def saved(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    (save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout: str, tmp_path: Path) -> None:
    name, content, token = LAYOUTS[layout]
    found = read_embedding(saved(tmp_path, name, content))
    assert found.token == token
    assert found.vectors.keys() == {""} and torch.equal(found.vectors[""], CAT)
    assert found.count == 3
    assert read_embedding(tmp_path / name, token="mine").token == "mine"


def test_pickles_of_old(tmp_path: Path) -> None:
    torch.save(a1111(CAT), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_embedding(tmp_path / "old.pt").vectors[""], CAT)


def test_a_single_vector_is_a_row_too(tmp_path: Path) -> None:
    found = read_embedding(saved(tmp_path, "made.bin", {"<one>": STYLE[0]}))
    assert torch.equal(found.vectors[""], STYLE)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_the_two_encoders_of_sdxl(ending: str, tmp_path: Path) -> None:
    wide = random(3, 48)
    found = read_embedding(saved(tmp_path, f"cat.{ending}", {"clip_g": wide, "clip_l": CAT}))
    assert found.token == "cat"
    assert torch.equal(found.vectors["text_encoder"], CAT) and torch.equal(found.vectors["text_encoder_2"], wide)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("evil.pt", {"string_to_param": {"*": CAT}, "name": Evil()}, "wants to run code"),
        ("two.pt", {"<a>": CAT, "<b>": CAT}, "2 tensors"),
        ("none.pt", {"step": 5}, "0 tensors"),
        ("deep.pt", {"<a>": torch.zeros(1, 2, 3)}, "are no vectors"),
        ("whole.safetensors", {"<a>": torch.zeros(2, 3, dtype=torch.int64)}, "are no vectors"),
        ("lora.safetensors", {"a.lora_up.weight": CAT, "a.lora_down.weight": STYLE}, "2 tensors"),
    ],
)
def test_what_is_none_is_said_to_be_none(
    name: str, content: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FromnoiseError, match=said):
        read_embedding(saved(tmp_path, name, content))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="no embedding at"):
        read_embedding(tmp_path / "nothing.pt")


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 40), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_written_and_read_again(count: int, width: int, dtype: torch.dtype) -> None:
    vectors = random(count, width).to(dtype)
    with TemporaryDirectory() as folder:
        path = Path(folder, "cat.safetensors")
        write_embedding(path, Embedding("<cat>", {"": vectors}), {"steps": "500"})
        again = read_embedding(path)
        assert (again.token, again.metadata["steps"]) == ("<cat>", "500")
        assert torch.equal(again.vectors[""], vectors) and again.vectors[""].dtype == dtype
        both = {"text_encoder": vectors, "text_encoder_2": vectors + 1}
        write_embedding(path, Embedding("cat", both))
        assert set(load_file(path)) == {"clip_l", "clip_g"}
        again = read_embedding(path)
        assert again.token == "cat" and all(torch.equal(again.vectors[part], both[part]) for part in both)


def encoder(modules: dict[str, Any], tokenizer: Tokenizer) -> PromptEncoder:
    made = [TextEncoder(tokenizer, modules[name]) for name in sorted(modules) if name != "unet"]
    return PromptEncoder(made, READINGS["sd1" if len(made) == 1 else "sdxl"])


def test_the_vectors_are_read_where_the_token_stands(tokenizer: Tokenizer) -> None:
    modules = parts()
    clip, before = modules["text_encoder"], bits(modules["text_encoder"])
    table = clip.text_model.embeddings.token_embedding
    base = encoder(modules, tokenizer)
    plain = base.encode(["a cat", "a <cat>!"]).words
    adapted = applied(modules, embeddings=[Embedding("<cat>", {"": CAT}), Embedding("sks", {"": STYLE})])
    prompts = adapted.prompts(base)
    assert prompts is adapted.prompts(base) and prompts is not base
    assert applied(modules).prompts(base) is base
    (chunk,) = prompts.chunks("A <CAT>! sks, sksy")[0]
    first = TEXT.vocab_size
    assert chunk.ids[1:4] == (first, first + 1, first + 2)
    assert chunk.ids[5] == first + 3 and chunk.ids.count(first + 3) == 1
    assert chunk.ids[0] == tokenizer.ids("a")[0] and chunk.ids[4] == tokenizer.ids("!")[0]
    with adapted:
        looked_up = table(torch.tensor([chunk.ids]))[0]
        words = prompts.encode(["a cat", "a <cat>!"]).words
    assert torch.equal(looked_up[1:4], CAT) and torch.equal(looked_up[5], STYLE[0])
    assert torch.equal(looked_up[0], table.weight[chunk.ids[0]])
    assert torch.equal(words[0], plain[0]), "a prompt without the token is as before"
    assert not torch.allclose(words[1], plain[1])
    assert same_bits(clip, before) and "forward" not in vars(table)
    assert torch.equal(base.encode(["a <cat>!"]).words[0], plain[1])
    assert tokenizer.ids("<cat>") == base.tokenizers[0].ids("<cat>"), "the tokenizer itself knows nothing of it"


def test_tokens_weigh_like_words(tokenizer: Tokenizer) -> None:
    modules = parts()
    adapted = applied(modules, embeddings=[Embedding("<cat>", {"": CAT})])
    (chunk,) = adapted.prompts(encoder(modules, tokenizer)).chunks("(<cat>:1.5) b")[0]
    assert chunk.weights == (1.5, 1.5, 1.5, 1.0)


def test_a_sentence_ends_where_it_ends(tokenizer: Tokenizer) -> None:
    modules = two_encoders()
    assert modules["text_encoder_2"].config.eos_token_id == 2  # as published: the end token is the largest id
    tokens = torch.tensor([[512, 5, TEXT.vocab_size, 7, 513, 513, 0, 0]])
    states = torch.arange(8.0)[None, :, None]
    for each in modules.values():
        assert float(each.sentence(tokens, states)) == 4.0


def test_sdxl_needs_vectors_for_both_encoders(tokenizer: Tokenizer) -> None:
    modules = two_encoders()
    both = Embedding("cat", {"text_encoder": CAT, "text_encoder_2": random(2, 48)})
    adapted = applied(modules, embeddings=[both])
    chunks = adapted.prompts(encoder(modules, tokenizer)).chunks("cat")
    assert [each[0].ids for each in chunks] == [(514, 515, 516), (514, 515)]
    with pytest.raises(FromnoiseError, match="32 wide for its text_encoder, 48 wide for its text_encoder_2"):
        applied(modules, embeddings=[Embedding("cat", {"": CAT})])
    with pytest.raises(FromnoiseError, match="belongs to another model"):
        applied(parts(), embeddings=[both])
    with pytest.raises(FromnoiseError, match=r"768 wide \(Stable Diffusion 1\.x\).*32 wide"):
        applied(parts(), embeddings=[Embedding("cat", {"": random(1, 768)})])


def test_two_of_one_name_are_an_error(tokenizer: Tokenizer) -> None:
    modules = parts()
    adapted = applied(modules, embeddings=[Embedding("cat", {"": CAT}), Embedding("cat", {"": STYLE})])
    with pytest.raises(UsageError, match="two embeddings are called 'cat'"):
        adapted.prompts(encoder(modules, tokenizer))


def test_looking_at_tokens(tokenizer: Tokenizer) -> None:
    known = WithTokens(tokenizer, {"<cat>": [514, 515]})
    assert known.tokens("a <cat>") == ["a</w>", "<cat>", "<cat>"]
    assert known.text([*tokenizer.ids("a"), 514, 515, *tokenizer.ids("b c")]) == "a <cat> <cat> b c"


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("cat-toy", 1), ("Cat-Toy, cat-toy", 2), ("cat-toys", 0), ("xcat-toy", 0), ("(cat-toy)", 1), ("cat", 0), ("", 0)],
)
def test_a_token_counts_where_it_stands_by_itself(prompt: str, count: int, tokenizer: Tokenizer) -> None:
    known = WithTokens(tokenizer, {"cat-toy": [514], "cat-toy-two": [515]})
    assert known.ids(prompt).count(514) == count
    assert known.ids("cat-toy-two") == [515]


clip = cache(Tokenizer.clip)


@settings(deadline=None)
@given(st.text(alphabet="abc <>,.(x)", max_size=30))
def test_prompts_without_a_token_are_as_before(prompt: str) -> None:
    base = clip()
    assert WithTokens(base, {"<sks>": [49408]}).ids(prompt) == base.ids(prompt)


def test_threads_with_different_words_for_one_token(tokenizer: Tokenizer) -> None:
    modules = parts()
    base = encoder(modules, tokenizer)
    kinds = [applied(modules, embeddings=[Embedding("cat", {"": each})]) for each in (CAT, STYLE, CAT + 1)]
    alone = []
    for each in kinds:
        with each:
            alone.append(each.prompts(base).encode(["a cat"]).words)
    assert not torch.equal(alone[0], alone[1])
    wrong: list[int] = []

    def encode(index: int) -> None:
        for _ in range(10):
            with kinds[index]:
                if not torch.equal(kinds[index].prompts(base).encode(["a cat"]).words, alone[index]):
                    wrong.append(index)

    threads = [threading.Thread(target=encode, args=(index,)) for index in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout=60)
    assert not wrong and not any(each.is_alive() for each in threads)


def test_a_token_is_never_divided_between_two_chunks(tokenizer: Tokenizer) -> None:
    """As in the AUTOMATIC1111 web UI, `modules/sd_hijack_clip.py`: what doesn't fit begins the next chunk."""
    known = WithTokens(tokenizer, {"<cat>": [600, 601, 602], "<long>": list(range(700, 700 + 2 * tokenizer.room + 1))})
    [letter], room = tokenizer.ids("a"), tokenizer.room

    def lengths(prompt: str) -> list[int]:
        return [len(chunk.ids) for chunk in chunk_prompt(prompt, known)]

    assert lengths("a " * (room - 3) + "<cat> a") == [room, 1]
    assert lengths("a " * (room - 2) + "<cat> a") == [room - 2, 4]
    _, second = chunk_prompt("a " * (room - 1) + "(<cat>:2) a", known)
    assert (second.ids, second.weights) == ((600, 601, 602, letter), (2.0, 2.0, 2.0, 1.0))
    assert lengths("a <long>") == [1, room, room, 1]
    assert known.ids("a <cat> a") == [letter, 600, 601, 602, letter]
