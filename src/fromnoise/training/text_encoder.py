"""Train the text encoder: MiniLM's sentence vectors, their similarities, and the pictures as teachers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fromnoise.checkpoints import save_module
from fromnoise.checkpoints.folder import write_tensors
from fromnoise.data import Dataset, Picture, load_dataset
from fromnoise.data.captions import clean
from fromnoise.data.sources import PICTURE_SETS
from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.runtime.seeds import generator
from fromnoise.text.tokenizer import Tokenizer
from fromnoise.training import teacher
from fromnoise.training.callbacks import Averages, Every, LearningRate
from fromnoise.training.learner import Learner
from fromnoise.training.order import draws
from fromnoise.training.phrases import phrases
from fromnoise.training.run import Show, fit, open_run
from fromnoise.training.vocabulary import learn_vocabulary, save_tokenizer

VOCABULARY = 16_000
POSITIONS = 32
CONFIG = TextConfig(
    vocab_size=VOCABULARY,
    hidden_size=256,
    intermediate_size=1024,
    num_hidden_layers=6,
    num_attention_heads=4,
    max_position_embeddings=POSITIONS,
    hidden_act="gelu",
    bos_token_id=VOCABULARY - 2,
    eos_token_id=VOCABULARY - 1,
    pad_token_id=VOCABULARY - 1,
    projection_dim=256,
)

SIDE = 32
"""Pictures are this small for the contrastive loss."""


@dataclass(frozen=True)
class TextEncoderRecipe:
    """Settings of a run; `rows` and `contrast` weigh their losses against the cosine's 1."""

    steps: int = 6_000
    pictures: int = 96
    phrases: int = 288
    caption_stride: int = 1
    rate: float = 1e-3
    warmup: int = 100
    decay_at: int | None = None
    rows: float = 0.5
    concepts: float = 1.0
    near: float = 0.5
    far: float = 0.05
    contrast: float = 0.1
    temperature: float = 0.05
    average: int = 300
    seed: int = 0


@dataclass
class Lesson:
    """A batch: token ids (B, M) and teacher's vectors (B, 384), whose first rows caption `pictures` (P, 3, 32, 32)."""

    tokens: Tensor
    vectors: Tensor
    pictures: Tensor


class PictureTower(nn.Sequential):
    """A few convolutions from (P, 3, 32, 32) in [-1, 1] to (P, width); it is thrown away after training."""

    def __init__(self, width: int) -> None:
        channels = (3, 48, 96, 192)
        parts: list[nn.Module] = []
        for inner, outer in zip(channels, channels[1:], strict=False):
            parts += [nn.Conv2d(inner, outer, 3, 2, 1), nn.GroupNorm(8, outer), nn.SiLU()]
        super().__init__(*parts, nn.Flatten(), nn.Linear(channels[-1] * (SIDE // 8) ** 2, width))


class Student(nn.Module):
    """The text encoder, with the heads that only training needs."""

    def __init__(self, config: TextConfig = CONFIG) -> None:
        super().__init__()
        self.text = ClipText(config)
        self.head = nn.Linear(config.hidden_size, teacher.WIDTH)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_dim)
        self.tower = PictureTower(config.projection_dim)
        self.logit_scale = nn.Parameter(torch.tensor(2.65))
        initialise(self.text)

    def sentences(self, tokens: Tensor) -> Tensor:
        """End-token states (B, C). Causal attention lets the padding behind the longest text be left out."""
        ends = (tokens == self.text.config.eos_token_id).int().argmax(1)
        tokens = tokens[:, : int(ends.max()) + 1]
        return self.text.sentence(tokens, self.text(tokens))


def initialise(model: ClipText) -> None:
    """Random weights of the sizes that CLIP starts from (Radford et al. 2021, its reference code)."""
    config = model.config
    deep = (2 * config.num_hidden_layers) ** -0.5
    nn.init.normal_(model.text_model.embeddings.token_embedding.weight, std=0.02)
    nn.init.normal_(model.text_model.embeddings.position_embedding.weight, std=0.01)
    for name, each in model.named_modules():
        if isinstance(each, nn.Linear):
            last = name.endswith(("out_proj", "fc2"))
            nn.init.normal_(each.weight, std=config.hidden_size**-0.5 * (deep if last else 1.0))
            nn.init.zeros_(each.bias)


@dataclass(frozen=True)
class Lessons:
    """All texts as token ids (N, M) and teacher's vectors (N, 384); by picture, which texts are its captions."""

    tokens: Tensor
    vectors: Tensor
    captions: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]
    pictures: Tensor
    concepts: Tensor


class TextEncoderTask:
    """Say what the teacher says, and which picture is meant."""

    def __init__(self, model: Student, lessons: Lessons, recipe: TextEncoderRecipe) -> None:
        self.model, self.lessons, self.recipe = model, lessons, recipe

    def batch(self, step: int) -> Lesson:
        """Captioned pictures first, then other texts."""
        recipe, lessons = self.recipe, self.lessons
        drawn = draws(recipe.seed, step, recipe.pictures, len(lessons.captions))
        said = [self._caption(draw.sample, draw.generator("caption")) for draw in drawn]
        others = draws(recipe.seed + 1, step, recipe.phrases, len(lessons.others))
        chosen = torch.tensor([*said, *(lessons.others[draw.sample] for draw in others)])
        pictures = lessons.pictures[[draw.sample for draw in drawn]]
        return Lesson(lessons.tokens[chosen].long(), lessons.vectors[chosen].float(), pictures.float() / 127.5 - 1)

    def _caption(self, picture: int, chance: torch.Generator) -> int:
        captions = self.lessons.captions[picture]
        return captions[int(torch.randint(len(captions), (), generator=chance))]

    def predict(self, batch: Lesson) -> tuple[Tensor, Tensor]:
        """End-token states of all texts, and the pictures' vectors."""
        order = (batch.tokens != self.model.text.config.eos_token_id).sum(1).argsort(stable=True)
        # The fused attention's backward is many times slower than plain matrices on rows this short.
        with sdpa_kernel(SDPBackend.MATH):
            states = torch.cat([self.model.sentences(part) for part in batch.tokens[order].split(128)])
        return states[order.argsort()], self.model.tower(batch.pictures)

    def loss(self, prediction: tuple[Tensor, Tensor], batch: Lesson) -> Tensor:
        """(1 - cosine) + rows * KL of similarity rows + contrast * CLIP's symmetric cross-entropy."""
        states, pictures = prediction
        said = F.normalize(self.model.head(states).float(), dim=-1)
        captions = self.model.text_projection(states[: len(pictures)])
        distance = 1 - (said * batch.vectors).sum(-1).mean()
        rows = row_divergence(said, batch.vectors, self.recipe.temperature)
        concepts = concept_divergence(said, batch.vectors, self.lessons.concepts, self.recipe.temperature)
        contrast = contrastive(captions.float(), pictures.float(), self.model.logit_scale)
        recipe = self.recipe
        return distance + recipe.rows * rows + recipe.concepts * concepts + recipe.contrast * contrast


def concept_divergence(student: Tensor, taught: Tensor, concepts: Tensor, temperature: float) -> Tensor:
    """KL divergence of which concept (K, 384) the student thinks of from what the teacher thinks of."""
    with torch.autocast("cpu", enabled=False):
        mine = (student @ concepts.T / temperature).log_softmax(-1)
        theirs = (taught @ concepts.T / temperature).log_softmax(-1)
    return F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def row_divergence(student: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student's softmaxed similarities within the batch from the teacher's, own ones left out."""
    own = torch.eye(len(student), dtype=torch.bool)
    with torch.autocast("cpu", enabled=False):
        mine = (student @ student.T / temperature).masked_fill(own, -1e4).log_softmax(-1)
        theirs = (taught @ taught.T / temperature).masked_fill(own, -1e4).log_softmax(-1)
    return F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def contrastive(captions: Tensor, pictures: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's loss: caption k belongs to picture k (Radford et al. 2021, figure 3)."""
    scale = logit_scale.clamp(max=4.6).exp()
    logits = scale * F.normalize(captions, dim=-1) @ F.normalize(pictures, dim=-1).T
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def train_text_encoder(
    dataset_folder: Path,
    run_folder: Path,
    recipe: TextEncoderRecipe | None = None,
    *,
    keep_out: Collection[str] = (),
    resume: bool = True,
    show: Show | None = None,
) -> None:
    """Train to `recipe.steps`; the run folder then holds `tokenizer/` and `text_encoder/` in the diffusers layout.

    No text of `keep_out` (the held-out reworded prompts) is trained on. Vocabulary and teacher's vectors are made
    the first time and kept in the run folder.
    """
    recipe = recipe or TextEncoderRecipe()
    open_run(run_folder, recipe)
    dataset = load_dataset(dataset_folder)
    torch.manual_seed(recipe.seed)
    model = Student()
    texts = choose_texts(dataset, recipe, keep_out, run_folder / "teacher")
    tokenizer = open_tokenizer(run_folder / "tokenizer", texts.texts)
    lessons = prepare(dataset, texts, tokenizer, recipe)
    teach_pieces(model, tokenizer, run_folder / "pieces")
    averages = Averages(model, (recipe.average,))

    def export(learner: Learner) -> None:
        save_text_encoder(run_folder / "text_encoder", model, averages.weights(model, recipe.average))

    fit(
        run_folder,
        TextEncoderTask(model, lessons, recipe),
        LearningRate(recipe.rate, recipe.warmup, recipe.decay_at, recipe.steps),
        averages,
        steps=recipe.steps,
        batch=recipe.pictures + recipe.phrases,
        show=show,
        resume=resume,
        extra=[Every(500, export)],
    )
    save_text_encoder(run_folder / "text_encoder", model, averages.weights(model, recipe.average))


def save_text_encoder(folder: Path, model: Student, weights: dict[str, Tensor] | None = None) -> None:
    """Write the shipped part of `model` (of `weights`, when given) in float32 as transformers' CLIPTextModel, with its head.

    `sentence.safetensors` holds the head, which turns an end-token state into a sentence vector like the teacher's.
    """
    values = model.state_dict() if weights is None else weights
    shipped = {key.removeprefix("text."): value for key, value in values.items() if key.startswith("text.")}
    head = {key.removeprefix("head."): value for key, value in values.items() if key.startswith("head.")}
    save_module(folder, model.text, "CLIPTextModel", file="model.safetensors", dtype=torch.float32, weights=shipped)
    write_tensors(folder / "sentence.safetensors", head)


def open_tokenizer(folder: Path, texts: Sequence[str]) -> Tokenizer:
    """The tokenizer in `folder`, learnt on `texts` when it is not there."""
    if not (folder / "vocab.json").exists():
        save_tokenizer(folder, learn_vocabulary(texts, VOCABULARY, POSITIONS))
    return Tokenizer.read(folder)


def _training(dataset: Dataset) -> list[Picture]:
    return [dataset.pictures[index] for index in dataset.indices(split="train")]


@dataclass(frozen=True)
class Texts:
    """What is learnt: captions first, then other texts; the teacher's vectors (N, 384) and the concepts' (K, 384)."""

    texts: tuple[str, ...]
    captions: int
    vectors: Tensor
    concepts: Tensor


def choose_texts(dataset: Dataset, recipe: TextEncoderRecipe, keep_out: Collection[str], cache: Path) -> Texts:
    """All captions, the phrases that the teacher puts near some concept, and a few of the others."""
    pictures = _training(dataset)
    said = sorted({text for picture in pictures for text in picture.captions[:: recipe.caption_stride]})
    texts = tuple(dict.fromkeys([*said, *phrases(dataset, teacher.whole_words(), keep_out)]))
    vectors = teacher.cached_vectors(texts, cache)
    places = {text: place for place, text in enumerate(said)}
    concepts = concept_vectors(pictures, {text: vectors[place].float() for text, place in places.items()})
    closeness = torch.cat([(part.float() @ concepts.T).amax(1) for part in vectors.split(8192)])
    kept = (closeness >= recipe.near) | (torch.rand(len(texts), generator=generator("far", recipe.seed)) < recipe.far)
    kept[: len(said)] = True
    chosen = [int(index) for index in kept.nonzero()]
    return Texts(tuple(texts[index] for index in chosen), len(said), vectors[chosen], concepts)


def prepare(dataset: Dataset, texts: Texts, tokenizer: Tokenizer, recipe: TextEncoderRecipe) -> Lessons:
    """What a task draws its batches from."""
    places = {text: place for place, text in enumerate(texts.texts)}
    captions = [picture.captions[:: recipe.caption_stride] for picture in _training(dataset)]
    print(len(texts.texts), texts.captions, flush=True)
    return Lessons(
        tokens=torch.cat([tokenizer.encode(part).short() for part in batched(texts.texts, 4096)]),
        vectors=texts.vectors,
        captions=tuple(tuple(places[text] for text in some) for some in captions),
        others=tuple(range(texts.captions, len(texts.texts))),
        pictures=small_pictures(dataset),
        concepts=texts.concepts,
    )


def batched(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """`texts` in runs of `size`."""
    return (texts[start : start + size] for start in range(0, len(texts), size))


def small_pictures(dataset: Dataset) -> Tensor:
    """The training pictures as bytes (N, 3, 32, 32)."""
    side = dataset.manifest.side
    rows = (torch.from_numpy(dataset.all_pixels[index].copy()) for index in dataset.indices(split="train"))
    small = [F.avg_pool2d(row.permute(2, 0, 1).float(), side // SIDE).round().byte() for row in rows]
    return torch.stack(small)


def concept_vectors(pictures: Sequence[Picture], vectors: Mapping[str, Tensor]) -> Tensor:
    """The mean vector (K, 384) of each concept's captions without a style, normalised; concepts in order of code point."""
    by_concept: dict[str, set[str]] = {}
    for picture in pictures:
        plain = (text for text in picture.captions if text in vectors and not is_styled(text))
        by_concept.setdefault(picture.concept, set()).update(plain)
    means = [torch.stack([vectors[text] for text in sorted(texts)]).mean(0) for _, texts in sorted(by_concept.items())]
    return F.normalize(torch.stack(means), dim=-1)


_STYLES = [re.escape(name) for each in PICTURE_SETS for name in (*each.style_names, *each.style_looks)]
_STYLED = re.compile(rf"\b(style|{'|'.join(_STYLES)})\b")


def is_styled(caption: str) -> bool:
    """True where a caption names or describes a style."""
    return _STYLED.search(caption) is not None


@torch.no_grad()
def teach_pieces(model: Student, tokenizer: Tokenizer, folder: Path) -> None:
    """Start each piece's embedding from the teacher's vector of its spelling, cut to the model's width by PCA."""
    spelled = [tokenizer.text([id]) or piece for piece, id in sorted(tokenizer.vocabulary.items(), key=lambda item: item[1])]
    vectors = teacher.cached_vectors(spelled, folder).float()
    vectors = vectors - vectors.mean(0)
    weight = model.text.text_model.embeddings.token_embedding.weight
    _, _, axes = torch.linalg.svd(vectors, full_matrices=False)
    cut = vectors @ axes[: weight.shape[1]].T
    weight.copy_(0.05 * cut / cut.std())
