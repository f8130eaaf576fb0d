"""What a model knows: each concept's label and sentence vector, to say which are nearest to a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fromnoise.runtime.errors import FromnoiseError
from fromnoise.runtime.paths import atomic_write
from fromnoise.text.encoding import TextEncoder

LABELS, VECTORS = "concepts.json", "concepts.safetensors"


@dataclass(frozen=True)
class Near:
    """A known concept and its cosine with a prompt, in [-1, 1]."""

    label: str
    cosine: float


class KnownConcepts:
    """The concepts that a model was trained on, as the text encoder sees them."""

    def __init__(
        self, labels: Sequence[str], vectors: Tensor, mean: Tensor, threshold: float, styles: Sequence[str] = ()
    ) -> None:
        """Labels and unit vectors (K, C) of end-token states less their `mean` (C,); below `threshold` all is far.

        `styles` are the names that styles are asked for by.
        """
        self.labels, self.vectors, self.mean, self.threshold = tuple(labels), vectors, mean, threshold
        self.styles = tuple(styles)

    @classmethod
    def read(cls, folder: Path) -> KnownConcepts | None:
        """What `save` wrote into a model's folder; None where there is nothing, FromnoiseError where it is damaged."""
        if not (folder / LABELS).exists():
            return None
        try:
            words = json.loads((folder / LABELS).read_text(encoding="utf-8"))
            tensors = load_file(folder / VECTORS)
            vectors, mean = tensors["vectors"].float(), tensors["mean"].float()
            return cls(words["labels"], vectors, mean, words["threshold"], words.get("styles", ()))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise FromnoiseError(
                f"{folder / LABELS} or its vectors are damaged ({error}); get the model again"
            ) from error

    def save(self, folder: Path) -> None:
        """Write `concepts.json` (styles, labels, threshold) and `concepts.safetensors` (vectors, mean; float16)."""
        with atomic_write(folder / LABELS, overwrite=True) as temporary:
            words = {"threshold": self.threshold, "styles": self.styles, "labels": self.labels}
            temporary.write_text(json.dumps(words, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        with atomic_write(folder / VECTORS, overwrite=True) as temporary:
            save_file({"vectors": self.vectors.half().contiguous(), "mean": self.mean.half()}, temporary)

    @classmethod
    @torch.inference_mode()
    def learn(
        cls,
        encoder: TextEncoder,
        captions: Mapping[str, Sequence[str]],
        threshold: float,
        styles: Sequence[str] = (),
    ) -> KnownConcepts:
        """Each label's vector is the mean of its captions' end-token states."""
        means = torch.stack([encoder.sentences(texts).float().mean(0) for texts in captions.values()])
        mean = means.mean(0)
        return cls(list(captions), F.normalize(means - mean, dim=-1), mean, threshold, styles)

    @torch.inference_mode()
    def nearest(self, encoder: TextEncoder, prompt: str, k: int = 3) -> list[Near]:
        """The `k` concepts nearest to the prompt, the nearest first."""
        state = encoder.sentences([prompt])[0].float().cpu()
        cosines = self.vectors @ F.normalize(state - self.mean, dim=-1)
        best = cosines.topk(min(k, len(self.labels))).indices.tolist()
        return [Near(self.labels[index], float(cosines[index])) for index in best]

    def remark(self, encoder: TextEncoder, prompt: str) -> str | None:
        """What to say about a prompt that is far from all that is known; None where it is not, or is empty."""
        near = self.nearest(encoder, prompt, 1)
        if not prompt.strip() or not self.is_far(near):
            return None
        return f"nothing like {prompt!r}; nearest: {near[0].label}"

    def is_far(self, near: Sequence[Near]) -> bool:
        """True where even the nearest concept has little to do with the prompt."""
        return not near or near[0].cosine < self.threshold
