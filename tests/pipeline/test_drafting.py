"""Draft, keep, finish: what is gone on with is bit-equal to what is drawn in one go, and branches replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fromnoise as fn
from fromnoise.pipeline import last
from fromnoise.pipeline.drafting import (
    Draft,
    branched,
    draft,
    draft_sheet,
    finish,
    numbers_in,
    read_draft,
    remove_drafts,
    write_draft,
)
from fromnoise.request import Begun, Hires, Request

SAID = {"seed": 5, "steps": 6}


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model)


def pixels(picture: fn.Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def saved(pipe: fn.Pipeline, folder: Path, request: Request | str, **fields: object) -> list[Draft]:
    for number, each in enumerate(draft(pipe, request, 2, **{**SAID, **fields}), 1):
        write_draft(folder, number, each)
    return [read_draft(folder, number) for number in numbers_in(folder)]


@pytest.mark.parametrize(
    "fields",
    [
        {"sampler": "euler-a"},
        {"sampler": "dpmpp-2m-sde"},
        {"sampler": "dpmpp-3m-sde"},
        {"sampler": "unipc"},
        {"sampler": "heun", "apg": (0.0, 0.0, -0.5)},
        {"sampler": "dpmpp-2m", "reuse": (3, 1)},
        {"sampler": "euler", "hires": Hires(1.5, "latent", 0.5)},
        {"sampler": "euler", "like": "a1111"},
        {"sampler": "euler-cfg-pp", "count": 1},
    ],
)
def test_finished_drafts_are_those_drawn_in_one_go(pipe: fn.Pipeline, tmp_path: Path, fields: dict[str, object]):
    drafts = saved(pipe, tmp_path, "a kite", **{"count": 3, **fields})
    for number, each in enumerate(drafts):
        alone = pipe("a kite", **{**SAID, **fields, "seed": 5 + number, "count": 1})[0]
        picture = finish(pipe, each)
        assert picture.request == alone.request
        assert np.array_equal(pixels(picture), pixels(alone))


def test_each_drafts_choices_are_its_own(pipe: fn.Pipeline, tmp_path: Path) -> None:
    drafts = saved(pipe, tmp_path, "a {red|green|blue|black} kite", count=4)
    for each, drawn in zip(drafts, pipe("a {red|green|blue|black} kite", count=4, exact=True, **SAID), strict=True):
        assert each.request.prompt == drawn.request.prompt


@pytest.mark.parametrize(
    "said",
    [
        {"prompt": "a house: (big) | [small"},
        {"guidance": 1.0},
        {"guidance": 9.0, "negative": "red"},
        {"prompt": "a cat AND a dog"},
    ],
)
@pytest.mark.parametrize("fields", [{"sampler": "dpmpp-2m", "weighting": "none"}, {"sampler": "euler-a"}])
def test_a_branch_replays(pipe: fn.Pipeline, tmp_path: Path, said: dict[str, object], fields: dict[str, object]):
    (first,) = saved(pipe, tmp_path, "a kite", guidance=4.0, **fields)
    branch = finish(pipe, first, **said)
    assert branch.request.begun == Begun(2, "a kite", "", 4.0)
    assert all(getattr(branch.request, name) == value for name, value in said.items())
    again = pipe(Request.from_json(branch.request.to_json()))[0]
    assert again.request == branch.request
    assert np.array_equal(pixels(again), pixels(branch))
    assert not np.array_equal(pixels(finish(pipe, first)), pixels(branch))


def test_a_branch_is_a_prompt_edit_where_the_words_alone_change(pipe: fn.Pipeline, tmp_path: Path) -> None:
    """The web UI's `[from:to:when]` draws the same, which proves where the change takes place."""
    (first,) = saved(pipe, tmp_path, "a kite", sampler="dpmpp-2m")
    edited = pipe("[a kite:a house:2]", sampler="dpmpp-2m", **SAID)[0]
    assert np.array_equal(pixels(finish(pipe, first, prompt="a house")), pixels(edited))


def test_a_batch_of_branches(pipe: fn.Pipeline) -> None:
    request = Request("a house", begun=Begun(2, "a kite"), count=2, sampler="euler", **SAID)
    steps = list(pipe.steps(request))
    assert [each.index for each in steps] == [1, 2, 3, 4, 5, 6]
    assert torch.equal(last(pipe.steps(request, start=steps[0])).x, steps[-1].x)
    assert torch.equal(last(pipe.steps(request, start=steps[3])).x, steps[-1].x)
    kite = list(pipe.steps(request.with_(begun=None, prompt="a kite")))
    assert torch.equal(kite[1].x, steps[1].x)
    assert not torch.equal(kite[2].x, steps[2].x)
    assert torch.equal(last(pipe.steps(request.with_(begun=Begun(99, "a kite")))).x, kite[-1].x)


def test_a_branch_of_a_branch(pipe: fn.Pipeline) -> None:
    (first,) = draft(pipe, Request("a", begun=Begun(1, "b"), **SAID), 3)
    assert branched(first) == first.request
    with pytest.raises(fn.UsageError, match="branch already"):
        branched(first, prompt="c")


@pytest.mark.parametrize("steps", [0, 6, 99])
def test_a_draft_leaves_something_to_finish(pipe: fn.Pipeline, steps: int) -> None:
    with pytest.raises(fn.UsageError, match="draft from 1 to 5"):
        next(draft(pipe, "a", steps, **SAID))


def test_a_draft_by_dpm_fast_leaves_something_to_finish(pipe: fn.Pipeline) -> None:
    """Eight calls of the network are three of its steps."""
    fields = {"seed": 5, "steps": 8, "sampler": "dpm-fast", "count": 1}
    with pytest.raises(fn.UsageError, match="draft from 1 to 2"):
        next(draft(pipe, "a", 4, **fields))
    assert np.array_equal(pixels(finish(pipe, next(draft(pipe, "a", 2, **fields)))), pixels(pipe("a", **fields)[0]))


def test_a_draft_by_dpm_adaptive_leaves_something_to_finish(pipe: fn.Pipeline) -> None:
    """How many steps it takes shows when it has taken them."""
    fields = {"seed": 5, "steps": 200, "sampler": "dpm-adaptive", "count": 1}
    taken = len(list(pipe.steps("a", **fields)))
    with pytest.raises(fn.UsageError, match=f"of {taken} steps can't be finished"):
        next(draft(pipe, "a", 199, **fields))


@pytest.mark.parametrize("begun", [None, Begun(2, "b"), Begun(99, "b")])
def test_what_is_done_can_not_be_gone_on_with(pipe: fn.Pipeline, begun: Begun | None) -> None:
    request = Request("a", begun=begun, sampler="euler", **SAID)
    with pytest.raises(fn.UsageError, match="done already"):
        last(pipe.steps(request, start=last(pipe.steps(request))))


def test_drafts_in_a_folder(pipe: fn.Pipeline, tmp_path: Path) -> None:
    drafts = saved(pipe, tmp_path, "a kite", count=5)
    assert [each.request.seed for each in drafts] == [5, 6, 7, 8, 9]
    sheet = draft_sheet(pipe, drafts)
    assert sheet.width > 4 * 96
    with pytest.raises(fn.UsageError, match=r"no draft 6 in .*; there are 1, 2, 3, 4, 5"):
        read_draft(tmp_path, 6)
    (tmp_path / "2.safetensors").write_bytes(b"x")
    (tmp_path / "3.json").write_text("{}x")
    for damaged in (2, 3):
        with pytest.raises(fn.FromnoiseError, match=f"draft {damaged} in .* is damaged"):
            read_draft(tmp_path, damaged)
    remove_drafts(tmp_path, after=4)
    assert numbers_in(tmp_path) == [1, 2, 4]
    remove_drafts(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"3"}  # no request of ours, so none of ours to delete
