"""The text encoder: CLIP's causal transformer (Radford et al. 2021, section 2.4).

Module names are the keys of transformers' `CLIPTextModel` in published checkpoints.
Shapes: B batch, M positions (77 for published models), C width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.models.config import GENERATION_FIELDS, Config


def quick_gelu(x: Tensor) -> Tensor:
    """GELU's sigmoid approximation, as OpenAI's CLIP computes it."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True)
class TextConfig(Config):
    """Fields of `text_encoder/config.json`; `architectures` says whether a projection follows."""

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int = 0
    eos_token_id: int = 2
    pad_token_id: int = 1
    projection_dim: int = 512
    architectures: tuple[str, ...] = ("CLIPTextModel",)

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {"attention_dropout": (0.0,)}
    CHOICES: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "hidden_act": tuple(ACTIVATIONS),
        "architectures": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    }
    IGNORED: ClassVar[frozenset[str]] = GENERATION_FIELDS | {"dropout", "initializer_factor", "initializer_range"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The config that a `config.json` states, CLIP's whole one too, whose text part is in `text_config`."""
        if "text_config" not in values:
            return super().from_json(values)
        text = {name: value for name, value in values["text_config"].items() if name != "architectures"}
        named = {name: values[name] for name in ("architectures",) if values.get(name) not in (None, ["CLIPModel"])}
        return super().from_json({**text, **named})

    @property
    def projects(self) -> bool:
        """Whether the sentence's state is projected, as in SDXL's second encoder."""
        return "CLIPTextModelWithProjection" in self.architectures

    def to_json(self) -> dict[str, Any]:
        """Every field, and the name that transformers looks for."""
        return {**super().to_json(), "model_type": "clip_text_model"}


class CausalAttention(nn.Module):
    """Attention in which a position sees itself and those before it."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, C) to (B, M, C)."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """The layer's two-layer perceptron."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, C) to (B, M, C)."""
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    """Attention and perceptron, each normalised before and added after."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = CausalAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Perceptron(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, C) to (B, M, C)."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    """Token plus position."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, M) to (B, M, C)."""
        return self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]


class Layers(nn.Module):
    """The stack of layers."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, skip: int = 0) -> Tensor:
        """(B, M, C) through all layers but the last `skip`."""
        for layer in self.layers[: len(self.layers) - skip]:
            x = layer(x)
        return x


class TextTransformer(nn.Module):
    """Embeddings, layers and the final norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: Tensor, skip: int = 0) -> Tensor:
        """Token ids (B, M) to normalised states (B, M, C)."""
        return self.final_layer_norm(self.encoder(self.embeddings(tokens), skip))


class ClipText(nn.Module):
    """CLIP's text model: a state for every position, and the one at the end token for the whole sentence."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextTransformer(config)
        if config.projects:
            self.text_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def forward(self, tokens: Tensor, skip: int = 0) -> Tensor:
        """Token ids (B, M) to states (B, M, C); `skip` leaves out that many last layers (clip skip minus one)."""
        return self.text_model(tokens, skip)

    def states(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Every state (B, M, C) before the final norm: 0 the embeddings, -1 the last layer's, -2 what SDXL reads."""
        made = [self.text_model.embeddings(tokens)]
        for layer in self.text_model.encoder.layers:
            made.append(layer(made[-1]))
        return tuple(made)

    def pooled(self, tokens: Tensor, last: Tensor | None = None) -> Tensor:
        """The sentence's state (B, P), normalised, and projected where the model has a projection.

        `last` is `states(tokens)[-1]`, when it is at hand already.
        """
        last = self.states(tokens)[-1] if last is None else last
        sentence = self.sentence(tokens, self.text_model.final_layer_norm(last))
        return self.text_projection(sentence) if self.config.projects else sentence

    def sentence(self, tokens: Tensor, states: Tensor) -> Tensor:
        """The state at each row's first end token, (B, C): what the sentence means as a whole.

        Published configs say `eos_token_id` 2 where the end token is the largest id (as transformers notes).
        """
        legacy = self.config.eos_token_id == 2
        known = tokens.masked_fill(tokens >= self.config.vocab_size, 0)  # ids that a textual inversion added are larger
        end = known.argmax(1) if legacy else (tokens == self.config.eos_token_id).int().argmax(1)
        return states[torch.arange(len(tokens), device=tokens.device), end]
