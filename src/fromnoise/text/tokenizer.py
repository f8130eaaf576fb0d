"""CLIP's byte-pair tokenizer: words to the ids of their pieces, in the layout of published `tokenizer/` folders.

The splitting rule, byte alphabet and `</w>` ending are those of OpenAI's CLIP (Radford et al. 2021), as
transformers' `CLIPTokenizer` applies them; the work is done by the `tokenizers` library.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from fromnoise.runtime.errors import FromnoiseError, UsageError
from fromnoise.runtime.log import warn

if TYPE_CHECKING:
    from torch import Tensor

END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_MERGES = Path(__file__).parent / "clip_merges.txt.gz"
"""The merges of OpenAI's CLIP, first ones first, two pieces a line."""

LONGEST = 100_000
"""Positions that a text encoder may be said to have; CLIP has 77."""

_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """Prompts to token ids. `max_length` positions; `start`, `end`, `pad` are ids."""

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        max_length: int = 77,
        start: str = START,
        end: str = END,
        pad: str = END,
        added: Mapping[int, AddedToken] = MappingProxyType({}),
    ) -> None:
        """A vocabulary (piece to id) and its merges, first ones first; UsageError when a special token is not in it.

        `added` are tokens by id that are found in a prompt before it is split.
        """
        for token in (start, end, pad):
            if token not in vocabulary:
                raise UsageError(f"the tokenizer's vocabulary lacks {token!r}; is it one of CLIP's format?")
        self.vocabulary, self.merges, self.max_length = dict(vocabulary), list(merges), max_length
        self.start, self.end, self.pad = vocabulary[start], vocabulary[end], vocabulary[pad]
        special = dict.fromkeys((start, end, pad))
        self.added = {id: each.content for id, each in added.items() if each.content not in special}
        self._pieces = {**self.added, **{id: piece for piece, id in vocabulary.items()}}
        self._engine = engine({piece: id for id, piece in self._pieces.items()}, self.merges, end)
        self._engine.add_special_tokens([AddedToken(each, normalized=False) for each in special])
        self._engine.add_tokens([added[id] for id in sorted(self.added)])

    @classmethod
    def read(cls, folder: Path) -> Tokenizer:
        """Read `vocab.json` and `merges.txt`, and where present `tokenizer_config.json` and `special_tokens_map.json`.

        A `tokenizer.json`, into which transformers from release 5 writes the first two, does for them. Tokens added
        later (textual inversion's, say) stand there, in `added_tokens.json` or in the config. Raises FromnoiseError
        naming the file that is missing or damaged.
        """
        config = {**_json(folder / "tokenizer_config.json", {}), **_json(folder / "special_tokens_map.json", {})}
        length, vocabulary = _length(folder, config.get("model_max_length", 77)), read_vocabulary(folder)
        try:
            said = {key: value for key, value in config.items() if value is not None}
            tokens = {name: _content(said.get(f"{key}_token", default)) for name, key, default in _SPECIAL}
            return cls(*vocabulary, max_length=length, **tokens, added=_added(folder, config))
        except FromnoiseError:
            raise
        except Exception as error:  # the library has no class of its own for what it doesn't take
            raise FromnoiseError(f"{folder} is no tokenizer of CLIP's format ({error!r})") from error

    @classmethod
    def clip(cls, max_length: int = 77, pad: str = END) -> Tokenizer:
        """CLIP's published vocabulary of 49408 pieces, which ships with this package.

        Stable Diffusion 2, and the second encoder of SDXL, pad with "!" (id 0).
        """
        vocabulary, merges = clip_vocabulary()
        return cls(vocabulary, merges, max_length=max_length, pad=pad)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Ids (B, max_length) int64: start, pieces, end, padding. What does not fit is cut, and a warning says what."""
        import torch  # here, so that looking at tokens needs no torch

        rows = [self.row(self.fit(prompt)) for prompt in prompts]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), self.max_length)

    def ids(self, prompt: str) -> list[int]:
        """The ids of the prompt's pieces, without start and end, however many there are."""
        return self._engine.encode(prompt, add_special_tokens=False).ids

    def wholes(self, prompt: str) -> list[list[int]]:
        """The same ids, those in one list that no chunk may divide: one by one, as all pieces are single."""
        return [[id] for id in self.ids(prompt)]

    def tokens(self, prompt: str) -> list[str]:
        """The pieces of the prompt as the vocabulary spells them (`</w>` ends a word), to look at."""
        return [self.piece(id) for id in self.ids(prompt)]

    @property
    def room(self) -> int:
        """How many pieces fit between start and end."""
        return self.max_length - 2

    def fit(self, prompt: str) -> list[int]:
        """The ids of the pieces that fit; a warning says what was cut."""
        ids, room = self.ids(prompt), self.room
        if len(ids) > room:
            warn(f"the prompt is {len(ids)} tokens long and {room} fit; cut off: {self.text(ids[room:])!r}")
        return ids[:room]

    def row(self, ids: Sequence[int]) -> list[int]:
        """At most `room` ids as the model reads them: start, ids, end, padding."""
        row = [self.start, *ids, self.end]
        return row + [self.pad] * (self.max_length - len(row))

    def piece(self, id: int) -> str:
        """An id as the vocabulary spells it."""
        return self._pieces[id]

    def text(self, ids: Sequence[int]) -> str:
        """The words that ids spell, single blanks between them."""
        return str(self._engine.decode(list(ids), skip_special_tokens=False)).replace(END_OF_WORD, " ").strip()


_SPECIAL = (("start", "bos", START), ("end", "eos", END), ("pad", "pad", END))


def engine(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], unknown: str | None
) -> tokenizers.Tokenizer:
    """The `tokenizers` machine that splits, lower-cases and merges as CLIP does."""
    made = tokenizers.Tokenizer(
        models.BPE(
            vocab=dict(vocabulary),
            merges=list(merges),
            continuing_subword_prefix="",
            end_of_word_suffix=END_OF_WORD,
            fuse_unk=False,
            unk_token=unknown,
        )
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    return made


@cache
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's pieces with their ids, and its merges, rebuilt in the order of OpenAI's `simple_tokenizer.py`.

    First the bytes, those that print before the others; then the bytes that end a word; then what each merge makes;
    then start and end.
    """
    lines = gzip.decompress(CLIP_MERGES.read_bytes()).decode("utf-8").splitlines()
    merges = [(one, other) for one, other in map(str.split, lines)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    printing = [each for each in letters if ord(each) < 256]
    letters = printing + [each for each in letters if ord(each) >= 256]
    pieces = [*letters, *(each + END_OF_WORD for each in letters), *(one + other for one, other in merges), START, END]
    return {piece: id for id, piece in enumerate(pieces)}, merges


def read_vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A tokenizer folder's pieces with their ids, and its merges, from its two files or from `tokenizer.json`.

    Raises FromnoiseError naming the file that is missing or damaged.
    """
    whole = folder / "tokenizer.json"
    if (folder / "vocab.json").is_file() or not whole.is_file():
        return _json(folder / "vocab.json"), _merges(folder / "merges.txt")
    try:
        model = _json(whole)["model"]
        pairs = [each.split() if isinstance(each, str) else each for each in model["merges"]]
        return dict(model["vocab"]), [(str(one), str(other)) for one, other in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise FromnoiseError(f"{whole} holds no vocabulary with merges ({error!r})") from error


def _added(folder: Path, config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """The tokens by id that a folder's files add to its vocabulary, as transformers' `from_pretrained` finds them."""
    whole = _json(folder / "tokenizer.json", {}).get("added_tokens") or []
    plain = _json(folder / "added_tokens.json", {}).items()
    fields: dict[Any, Any] = {id: {"content": token} for token, id in plain} | {each["id"]: each for each in whole}
    fields |= config.get("added_tokens_decoder") or {}
    known = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {int(id): AddedToken(**{k: v for k, v in each.items() if k in known}) for id, each in fields.items()}


def added_in_whole(folder: Path) -> dict[str, int]:
    """The tokens that a `tokenizer.json` adds, by what they are, beside the marks of the start and the end."""
    whole = _json(folder / "tokenizer.json", {}).get("added_tokens") or []
    try:
        return {each["content"]: int(each["id"]) for each in whole if not each.get("special")}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FromnoiseError(f"{folder / 'tokenizer.json'} has added tokens that can't be ({error!r})") from error


def _json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not path.exists():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FromnoiseError(f"{path} is missing; is {path.parent} a tokenizer of CLIP's format?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FromnoiseError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise FromnoiseError(f"{path} should hold a JSON object, not {type(value).__name__}")
    return value


def _length(folder: Path, value: Any) -> int:
    """`model_max_length`, which is a whole number of positions."""
    if isinstance(value, int | float) and 3 <= value <= LONGEST and value == int(value):
        return int(value)
    raise FromnoiseError(
        f"{folder}: a model_max_length of {value!r} can't be; write 77, CLIP's, into its tokenizer_config.json"
    )


def _merges(path: Path) -> list[tuple[str, str]]:
    """The merges of a `merges.txt`, whose first line is a version and whose others are two pieces each."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FromnoiseError(f"{path} can't be read: {error}") from error
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise FromnoiseError(f"{path} should hold two pieces on each line; fetch the tokenizer again")
    return [(one, other) for one, other in pairs]


def _content(token: str | Mapping[str, Any]) -> str:
    """A special token's text; published files write it plainly or as an object."""
    return token if isinstance(token, str) else str(token["content"])
