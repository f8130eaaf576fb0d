"""Reading a published `config.json` into a frozen dataclass, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Self

from fromnoise.runtime.errors import FromnoiseError

LIBRARY_FIELDS = {"architectures", "torch_dtype", "dtype", "transformers_version", "model_type"}

GENERATION_FIELDS = frozenset(
    """
    add_cross_attention bad_words_ids begin_suppress_tokens chunk_size_feed_forward cross_attention_hidden_size
    decoder_start_token_id diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id id2label is_decoder
    is_encoder_decoder label2id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_attentions output_hidden_states output_scores prefix problem_type pruned_heads
    remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k
    top_p torchscript typical_p use_bfloat16 use_cache
    """.split()  # noqa: SIM905
)
"""What transformers used to write into every config, for models that generate text."""


class Config:
    """Base of the model configs: dataclass fields are what we read, three tables say what becomes of the rest.

    `FIXED` lists fields that we know at one value (or several) only, `CHOICES` the values that a field (or each
    element of its list) may have, `IGNORED` what changes nothing. A field that is null or false everywhere is off.
    """

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    CHOICES: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The config that a parsed `config.json` states; unknown or unsupported fields are a FromnoiseError."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        for name, value in values.items():
            if not cls._supports(name, _frozen(value), name in known):
                raise FromnoiseError(f"{cls.__name__}: {name} = {value!r} is not supported")
        return cls(**{name: _frozen(value) for name, value in values.items() if name in known})

    @classmethod
    def _supports(cls, name: str, value: Any, known: bool) -> bool:
        if name in cls.CHOICES:
            return all(each in cls.CHOICES[name] for each in (value if isinstance(value, tuple) else (value,)))
        if known or name.startswith("_") or name in LIBRARY_FIELDS or name in cls.IGNORED:
            return True
        return value in cls.FIXED.get(name, (None, False))

    def to_json(self) -> dict[str, Any]:
        """Every field with its value, those of `FIXED` too: what diffusers or transformers builds the same from."""
        return {**asdict(self), **{name: values[0] for name, values in self.FIXED.items()}}  # type: ignore[call-overload]


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value
