"""Train the text encoder: MiniLM's sentence vectors, their similarities, and the pictures as teachers."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fromnoise.checkpoints import load_module, save_module
from fromnoise.checkpoints.folder import write_tensors
from fromnoise.checkpoints.tokenizers import read_texts, write_texts
from fromnoise.data import Dataset, load_dataset
from fromnoise.models.clip_text import ClipText, TextConfig
from fromnoise.runtime.device import mixed_precision
from fromnoise.runtime.errors import UsageError
from fromnoise.text.tokenizer import Tokenizer
from fromnoise.training import teacher
from fromnoise.training.anchors import Anchor, anchor, padding_means
from fromnoise.training.callbacks import CHECKPOINT, Averages, Every, LearningRate
from fromnoise.training.learner import Learner
from fromnoise.training.lessons import (
    SIDE,
    Lessons,
    choose_texts,
    plain_captions,
    prepare,
    reworded_prompts,
    training_pictures,
)
from fromnoise.training.optimizers import muon
from fromnoise.training.order import Draw, draws
from fromnoise.training.run import Show, begin_run, fit, require_pictures, settled
from fromnoise.training.teacher import MiniLM, Teacher
from fromnoise.training.vocabulary import learn_vocabulary, save_tokenizer

NEAR, SURE = 0.4, 0.02
"""Texts so near a concept (cosine) are drawn to it; the temperature that makes of cosines what is meant.

Of the held-out reworded prompts 95 % are as near, and their concept's mean probability is 0.62; it is 0.34 at 0.05.
"""

HEAD = "sentence.safetensors"
"""Beside the weights: the head that turns an end-token state into a vector like the teacher's."""


@dataclass(frozen=True)
class TextEncoderRecipe:
    """Settings of a run.

    A batch is `pictures` captions with their pictures and `phrases` other texts. `rows`, `concepts` and `contrast`
    weigh their losses against the cosine's 1. See `lessons.choose_texts` for `near`, `far` and `stride`.

    `init` names a model folder and continues from its text encoder; then `hold` weighs that captions keep their states
    (of `held` of them a step), so that a denoiser need not learn to read anew, and `align` that other texts near a
    concept (`aligned` a step) say behind their end what its captions say.
    """

    vocabulary: int = 16_000
    positions: int = 32
    width: int = 256
    layers: int = 6
    heads: int = 4
    steps: int = 1_400
    pictures: int = 96
    phrases: int = 288
    near: float = 0.5
    far: float = 0.05
    stride: int = 2
    rate: float = 1e-3
    warmup: int = 100
    decay_at: int | None = 900
    rows: float = 0.5
    concepts: float = 1.0
    contrast: float = 0.1
    temperature: float = 0.05
    average: int = 300
    init: str | None = None
    hold: float = 1.0
    held: int = 24
    align: float = 0.5
    aligned: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        """UsageError for fields that don't go together."""
        if self.width % self.heads:
            raise UsageError(f"width must be a multiple of heads; {self.heads} heads don't share {self.width} evenly")
        if self.width > teacher.WIDTH and not self.init:
            raise UsageError(f"width is {self.width}, but words start from the teacher's vectors of {teacher.WIDTH}")


@dataclass
class Lesson:
    """A batch: token ids (B, M) and teacher's vectors (B, 384), whose first rows caption `pictures` (P, 3, 32, 32).

    `plain` (B,) tells which texts name no style.
    """

    tokens: Tensor
    vectors: Tensor
    pictures: Tensor
    plain: Tensor


class PictureTower(nn.Sequential):
    """A few convolutions from (P, 3, 32, 32) in [-1, 1] to (P, width); it is thrown away after training."""

    def __init__(self, width: int) -> None:
        channels = (3, 48, 96, 192)
        parts: list[nn.Module] = []
        for inner, outer in pairwise(channels):
            parts += [nn.Conv2d(inner, outer, 3, 2, 1), nn.GroupNorm(8, outer), nn.SiLU()]
        super().__init__(*parts, nn.Flatten(), nn.Linear(channels[-1] * (SIDE // 8) ** 2, width))


class Student(nn.Module):
    """The text encoder, with the heads that only training needs."""

    def __init__(self, config: TextConfig) -> None:
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


@torch.no_grad()
def teach_pieces(model: ClipText, tokenizer: Tokenizer, teach: Teacher, spread: float = 0.05) -> None:
    """Start each piece's embedding from the teacher's vector of its spelling, cut to the model's width by PCA.

    A rare word that is one piece then means something before its first appearance in training.
    """
    pieces = sorted(tokenizer.vocabulary, key=tokenizer.vocabulary.__getitem__)
    vectors = teach([tokenizer.text([id]) or piece for id, piece in enumerate(pieces)]).double()
    centred = vectors - vectors.mean(0)
    weight = model.text_model.embeddings.token_embedding.weight
    axes = torch.linalg.svd(centred, full_matrices=False)[2]
    cut = centred @ axes[: weight.shape[1]].T
    # Rounded, because the last bits of a decomposition depend on where in memory it happens.
    weight.copy_((spread * cut / cut.std()).bfloat16())


@dataclass
class Answer:
    """End-token states (B, C), the pictures' vectors (P, C); with an anchor also all states (held, M, C) of the first
    captions and the mean states (aligned, C) behind the end of the first other texts.
    """

    sentences: Tensor
    pictures: Tensor
    held: Tensor | None = None
    padding: Tensor | None = None


class TextEncoderTask:
    """Say what the teacher says, and which picture is meant."""

    def __init__(
        self, model: Student, lessons: Lessons, recipe: TextEncoderRecipe, anchor: Anchor | None = None
    ) -> None:
        self.model, self.lessons, self.recipe, self.anchor = model, lessons, recipe, anchor

    def batch(self, step: int) -> Lesson:
        """Captioned pictures first, then other texts."""
        recipe, lessons = self.recipe, self.lessons
        drawn = draws(recipe.seed, step, recipe.pictures, len(lessons.captions))
        others = draws(recipe.seed + 1, step, recipe.phrases, len(lessons.others))
        chosen = torch.tensor([*map(self._caption, drawn), *(lessons.others[draw.sample] for draw in others)])
        pictures = lessons.pictures[[draw.sample for draw in drawn]]
        return Lesson(
            lessons.tokens[chosen].long(),
            lessons.vectors[chosen].float(),
            pictures.float() / 127.5 - 1,
            lessons.plain[chosen],
        )

    def _caption(self, draw: Draw) -> int:
        captions = self.lessons.captions[draw.sample]
        return captions[int(torch.randint(len(captions), (), generator=draw.generator("caption")))]

    def predict(self, batch: Lesson) -> Answer:
        """What the student says to a batch."""
        order = (batch.tokens != self.model.text.config.eos_token_id).sum(1).argsort(stable=True)
        # The fused attention's backward is many times slower than plain matrices on rows this short.
        with sdpa_kernel(SDPBackend.MATH):
            states = torch.cat([self.model.sentences(part) for part in batch.tokens[order].split(128)])
            answer = Answer(states[order.argsort()], self.model.tower(batch.pictures))
            if self.anchor:
                whole = self.model.text(self._anchored(batch))
                answer.held, rest = whole[: self.recipe.held], whole[self.recipe.held :]
                answer.padding = padding_means(rest.float(), self._aligned(batch), self.model.text.config.eos_token_id)
        return answer

    def _aligned(self, batch: Lesson) -> Tensor:
        return batch.tokens[self.recipe.pictures :][: self.recipe.aligned]

    def _anchored(self, batch: Lesson) -> Tensor:
        return torch.cat([batch.tokens[: self.recipe.held], self._aligned(batch)])

    def loss(self, prediction: Answer, batch: Lesson) -> Tensor:
        """(1 - cosine) + rows * KL of similarity rows + concepts * KL of concepts + contrast * CLIP's cross-entropy.

        With an anchor also hold * drift of captions + align * how vaguely other texts say what captions say.
        """
        recipe, states = self.recipe, prediction.sentences
        said = F.normalize(self.model.head(states).float(), dim=-1)
        captions = self.model.text_projection(states[: len(prediction.pictures)])
        distance = 1 - (said * batch.vectors).sum(-1).mean()
        rows = row_divergence(said, batch.vectors, recipe.temperature)
        concepts = concept_divergence(said, batch.vectors, self.lessons.concepts, recipe.temperature)
        contrast = contrastive(captions.float(), prediction.pictures.float(), self.model.logit_scale)
        taught = distance + recipe.rows * rows + recipe.concepts * concepts + recipe.contrast * contrast
        return taught + self._astray(prediction, batch)

    def _astray(self, prediction: Answer, batch: Lesson) -> Tensor | float:
        """How far the states are from where the anchor wants them."""
        if self.anchor is None or prediction.held is None or prediction.padding is None:
            return 0.0
        recipe, rows = self.recipe, slice(self.recipe.pictures, self.recipe.pictures + self.recipe.aligned)
        similar = batch.vectors[rows] @ self.lessons.concepts.T
        near = batch.plain[rows] & (similar.amax(1) >= NEAR)
        meant = (similar[near] / SURE).softmax(1)
        drift = self.anchor.drift(prediction.held.float(), self.anchor.states(batch.tokens[: recipe.held]).float())
        return recipe.hold * drift + recipe.align * self.anchor.vagueness(prediction.padding[near], meant)


def row_divergence(student: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student's softmaxed similarities within the batch from the teacher's, own ones left out."""
    own = torch.eye(len(student), dtype=torch.bool)
    with torch.autocast("cpu", enabled=False):
        mine = (student @ student.T / temperature).masked_fill(own, -1e4).log_softmax(-1)
        theirs = (taught @ taught.T / temperature).masked_fill(own, -1e4).log_softmax(-1)
    return F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def concept_divergence(student: Tensor, taught: Tensor, concepts: Tensor, temperature: float) -> Tensor:
    """KL divergence of which concept (K, 384) the student thinks of from what the teacher thinks of."""
    with torch.autocast("cpu", enabled=False):
        mine = (student @ concepts.T / temperature).log_softmax(-1)
        theirs = (taught @ concepts.T / temperature).log_softmax(-1)
    return F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def contrastive(captions: Tensor, pictures: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's loss: caption k belongs to picture k (Radford et al. 2021, figure 3)."""
    scale = logit_scale.clamp(max=4.6).exp()
    logits = scale * F.normalize(captions, dim=-1) @ F.normalize(pictures, dim=-1).T
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def train(
    dataset: Path, run: Path, recipe_file: Path | None = None, *, resume: bool = False, show: Show | None = None
) -> None:
    """Train in the folder `run` with the recipe that the file changes."""
    recipe = settled(TextEncoderRecipe(), recipe_file, run, resume=resume)
    train_text_encoder(dataset, run, recipe, resume=resume, show=show)


def train_text_encoder(
    dataset_folder: Path,
    run_folder: Path,
    recipe: TextEncoderRecipe,
    *,
    keep_out: Collection[str] | None = None,
    teach: Teacher | None = None,
    resume: bool = False,
    show: Show | None = None,
) -> None:
    """Train to `recipe.steps`; the run folder then holds `tokenizer/` and `text_encoder/` in the diffusers layout.

    No text of `keep_out` (None: the held-out reworded prompts) is trained on. `teach` is MiniLM when None; its
    vectors are kept in the run folder between runs, the tokenizer until a run starts afresh.
    """
    dataset = load_dataset(dataset_folder)
    require_pictures(len(training_pictures(dataset)), pictures=recipe.pictures)
    begin_run(run_folder, recipe, dataset, resume=resume)
    teach = teach or MiniLM(run_folder / "teacher")
    held_out = reworded_prompts() if keep_out is None else keep_out
    texts = choose_texts(
        dataset, teach, held_out, near=recipe.near, far=recipe.far, stride=recipe.stride, seed=recipe.seed
    )
    goes_on = resume and (run_folder / CHECKPOINT).exists()
    tokenizer = open_tokenizer(run_folder / "tokenizer", texts.texts, recipe, kept=goes_on)
    lessons = prepare(dataset, texts, tokenizer, recipe.stride)
    require_pictures(len(lessons.others), phrases=recipe.phrases)
    torch.manual_seed(recipe.seed)
    model = Student(text_config(tokenizer, recipe))
    if recipe.init:
        start_from(model, Path(recipe.init), lessons)
    else:
        teach_pieces(model.text, tokenizer, teach)
    averages = Averages(model, (recipe.average,))

    def export(_: Learner | None = None) -> None:
        save_text_encoder(run_folder / "text_encoder", model, averages.weights(model, recipe.average))

    fit(
        run_folder,
        TextEncoderTask(model, lessons, recipe, anchor_of(model.text, dataset, tokenizer) if recipe.init else None),
        LearningRate(recipe.rate, recipe.warmup, recipe.decay_at, recipe.steps),
        averages,
        steps=recipe.steps,
        batch=recipe.pictures + recipe.phrases,
        show=show,
        resume=resume,
        optimizer=muon(model, ("text.text_model.embeddings", "head", "text_projection", "tower")),
        extra=[Every(250, export)],
    )
    export()


def start_from(model: Student, folder: Path, lessons: Lessons) -> None:
    """Take the text encoder of a model folder, and the head that fits it best by least squares."""
    load_module(model.text, folder / "text_encoder" / "model.safetensors")
    rows = torch.randperm(len(lessons.vectors), generator=torch.Generator().manual_seed(0))[:20_000]
    with torch.no_grad(), mixed_precision():
        states = torch.cat([model.sentences(part) for part in lessons.tokens[rows].long().split(256)]).float()
        found = torch.linalg.lstsq(F.pad(states, (0, 1), value=1.0), lessons.vectors[rows].float()).solution
        model.head.weight.copy_(found[:-1].T)
        model.head.bias.copy_(found[-1])


def anchor_of(text: ClipText, dataset: Dataset, tokenizer: Tokenizer) -> Anchor:
    """What the encoder says of each concept's plain captions now, in order of code points."""
    said = plain_captions(training_pictures(dataset)).values()
    return anchor(copy.deepcopy(text), [tokenizer.encode(texts) for texts in said])


def open_tokenizer(folder: Path, texts: Sequence[str], recipe: TextEncoderRecipe, *, kept: bool) -> Tokenizer:
    """The tokenizer `kept` in `folder`, else that of the model that `recipe.init` names, else one learnt on `texts`."""
    if not kept and recipe.init:
        write_texts(folder, read_texts(Path(recipe.init) / "tokenizer"))
    elif not kept:
        save_tokenizer(folder, learn_vocabulary(texts, recipe.vocabulary, recipe.positions))
    return Tokenizer.read(folder)


def text_config(tokenizer: Tokenizer, recipe: TextEncoderRecipe) -> TextConfig:
    """The model's config for this vocabulary."""
    return TextConfig(
        vocab_size=len(tokenizer.vocabulary),
        hidden_size=recipe.width,
        intermediate_size=4 * recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=tokenizer.max_length,
        hidden_act="gelu",
        bos_token_id=tokenizer.start,
        eos_token_id=tokenizer.end,
        pad_token_id=tokenizer.pad,
        projection_dim=recipe.width,
    )


def save_text_encoder(folder: Path, model: Student, weights: Mapping[str, Tensor]) -> None:
    """Write the text encoder of `weights` in float32 as transformers' CLIPTextModel, and its head beside it."""
    shipped, head = (
        {key.removeprefix(part): value for key, value in weights.items() if key.startswith(part)}
        for part in ("text.", "head.")
    )
    save_module(folder, model.text, "CLIPTextModel", file="model.safetensors", dtype=torch.float32, weights=shipped)
    write_tensors(folder / HEAD, head)
