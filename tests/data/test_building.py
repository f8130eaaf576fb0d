import json
import shutil
import tempfile
from dataclasses import replace

import pytest

from fromnoise.data import building, fetching, load_dataset, rendering, splits
from fromnoise.data.building import build_dataset, reserved_words
from fromnoise.data.captions import fold_plural, words
from fromnoise.data.splits import Settled
from fromnoise.runtime.errors import FromnoiseError, UsageError


def build(folder, cache, picture_sets, **options):
    return build_dataset(folder, cache=cache, picture_sets=picture_sets, workers=1, **options)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_built_dataset_has_every_wanted_picture_in_the_imagefolder_layout(tmp_path, cache, picture_sets):
    told = []
    manifest = build(tmp_path / "data", cache, picture_sets, progress=lambda done, total: told.append((done, total)))
    assert (manifest.concepts, manifest.pictures) == (3, 15)
    assert told == [(n, 15) for n in range(1, 16)]
    records = [json.loads(line) for line in (tmp_path / "data/metadata.jsonl").read_text().splitlines()]
    assert all((tmp_path / "data" / each["file_name"]).is_file() for each in records)
    assert {each["concept"] for each in records} == {"1f34e", "1f987", "1f558"}
    assert {each["label"]: each["cluster"] for each in records}["nine o’clock"] == "clock face"
    assert {each["label"]: each["flip"] for each in records} == {"red apple": True, "bat": True, "nine o’clock": False}


def test_the_same_sources_give_the_same_bytes(tmp_path, cache, picture_sets):
    build(tmp_path / "one", cache, picture_sets)
    build(tmp_path / "two", cache, picture_sets)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_two_processes_give_the_bytes_of_one(tmp_path, cache, picture_sets):
    build(tmp_path / "one", cache, picture_sets)
    build_dataset(tmp_path / "two", cache=cache, picture_sets=picture_sets, workers=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_bat_among_the_animals_is_the_animal(tmp_path, cache, picture_sets):
    build(tmp_path / "data", cache, picture_sets)
    bats = [each for each in load_dataset(tmp_path / "data").pictures if each.label == "bat"]
    captions = " ".join(text for each in bats for text in each.captions)
    assert "nocturnal mouselike mammal" in captions
    assert "hitting a ball" not in captions


def test_no_caption_holds_a_reserved_word(tmp_path, cache, picture_sets, monkeypatch):
    monkeypatch.setattr(building, "reserved_words", lambda: frozenset({"vampire", "fruit"}))
    build(tmp_path / "data", cache, picture_sets)
    captions = [text for each in load_dataset(tmp_path / "data").pictures for text in each.captions]
    said = {fold_plural(word) for text in captions for word in words(text)}
    assert "apple" in said
    assert not said & {"vampire", "fruit"}


def test_the_reserved_words_of_the_package_leave_every_picture_its_captions(tmp_path, cache, picture_sets):
    build(tmp_path / "data", cache, picture_sets)
    reserved = reserved_words()
    captions = [text for each in load_dataset(tmp_path / "data").pictures for text in each.captions]
    assert not [text for text in captions for word in words(text) if fold_plural(word) in reserved]


def test_reserving_a_label_stops_the_build(tmp_path, cache, picture_sets, monkeypatch):
    monkeypatch.setattr(building, "reserved_words", lambda: frozenset({"apple"}))
    with pytest.raises(FromnoiseError, match="red-apple"):
        build(tmp_path / "data", cache, picture_sets)


def test_a_set_that_cannot_be_fetched_is_skipped_and_the_manifest_says_why(tmp_path, cache, picture_sets, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    *others, last = picture_sets
    missing = replace(last, package=replace(last.package, version="0.0.0"))
    manifest = build(tmp_path / "data", cache, [*others, missing])
    assert manifest.pictures == 12
    [report] = [each for each in manifest.sources if each.style == last.style]
    assert report.pictures == 0
    assert "npm is not installed" in report.skipped
    assert all(not each.skipped for each in manifest.sources if each.style != last.style)


def test_concepts_that_too_few_styles_draw_are_left_out(tmp_path, cache, picture_sets):
    with_three = picture_sets[:3]
    assert build(tmp_path / "data", cache, with_three).pictures == 0


def test_pictures_of_an_earlier_build_go_and_other_files_stay(tmp_path, cache, picture_sets):
    build(tmp_path / "data", cache, picture_sets)
    holiday = tmp_path / "data/pictures/noto/beach.png"
    holiday.write_bytes(b"sand")
    temporary = tmp_path / "data/pictures/noto/.red-apple-abcd_123.png"
    temporary.touch()
    build(tmp_path / "data", cache, picture_sets[1:])
    assert [path.name for path in (tmp_path / "data/pictures/noto").iterdir()] == ["beach.png"]
    assert holiday.read_bytes() == b"sand"


@pytest.mark.parametrize("name", ["pictures/holiday/beach.png", "pictures/me.png", "manifest.json", "metadata.jsonl"])
def test_a_folder_of_somebody_elses_is_refused_before_anything_is_fetched(
    tmp_path, cache, picture_sets, monkeypatch, name
):
    path = tmp_path / "home" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"name": "mine", "file_name": "me.png"}')
    monkeypatch.setattr(building, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(UsageError, match="home has files that are no dataset; name a new or empty folder"):
        build(tmp_path / "home", cache, picture_sets)
    assert list(tree(tmp_path / "home")) == [name]


def test_a_build_that_was_broken_off_is_built_again_whole(tmp_path, cache, picture_sets):
    def stop(done, _):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "data", cache, picture_sets, progress=stop)
    assert list((tmp_path / "data/pictures/noto").iterdir())
    (tmp_path / "data/pictures/twemoji/.bat-abcdefgh.png").touch()
    build(tmp_path / "data", cache, picture_sets[1:])
    build(tmp_path / "new", cache, picture_sets[1:])
    assert tree(tmp_path / "data") == tree(tmp_path / "new")


def test_a_damaged_dataset_may_be_built_again(tmp_path, cache, picture_sets):
    for name in ("manifest.json", "metadata.jsonl"):
        build(tmp_path / "data", cache, picture_sets)
        whole = tree(tmp_path / "data")
        (tmp_path / "data" / name).write_text('{"cut')
        build(tmp_path / "data", cache, picture_sets)
        assert tree(tmp_path / "data") == whole


def test_metadata_that_names_files_outside_removes_none(tmp_path, cache, picture_sets):
    build(tmp_path / "data", cache, picture_sets)
    mine = tmp_path / "me.png"
    mine.touch()
    metadata = tmp_path / "data/metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("pictures/noto/bat.png", "pictures/../../me.png"))
    build(tmp_path / "data", cache, picture_sets)
    assert mine.exists()


def test_a_missing_set_moves_no_picture_to_the_other_side_of_a_split(tmp_path, cache, picture_sets, monkeypatch):
    known = {"1f34e": Settled(("noto+twemoji",), "noto-v1"), "1f987": Settled((), "noto"), "1f558": Settled((), None)}
    monkeypatch.setattr(splits, "settled", lambda: known)
    built = [
        {each.id: (each.split, each.judge_fold, each.drawing_group) for each in load_dataset(folder).pictures}
        for count, folder in enumerate((tmp_path / "all", tmp_path / "few"))
        if build(folder, cache, picture_sets[count:])
    ]
    assert len(built[0]) == 15
    assert len(built[1]) == 12
    assert built[1].items() < built[0].items()
    assert built[1]["noto-v1/red-apple"][0] == "held_out"
    assert built[1]["twemoji/red-apple"][2] == "noto+twemoji"


def test_without_a_renderer_nothing_is_fetched(tmp_path, cache, picture_sets, monkeypatch):
    monkeypatch.setattr(rendering, "find_spec", lambda _: None)
    monkeypatch.setattr(building, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(UsageError, match=r"pip install 'fromnoise\[train\]'"):
        build(tmp_path / "data", cache, picture_sets)


def test_after_the_first_failure_of_the_network_nothing_more_is_asked_of_it(
    tmp_path, cache, picture_sets, monkeypatch, caplog
):
    monkeypatch.setattr(fetching, "CLIENT", ("sh", "-c", "echo >> ../asked; echo ENOTFOUND >&2; exit 1"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    gone = [replace(each, package=replace(each.package, version="0.0.0")) for each in picture_sets[:2]]
    build(tmp_path / "data", cache, [*gone, *picture_sets[2:]])
    assert (tmp_path / "asked").read_text() == "\n"
    [line] = [each.getMessage() for each in caplog.records]
    assert line == "left out: noto, noto-v1 (sh can't reach its registry (ENOTFOUND); build again online)"


def test_without_any_picture_set_building_stops(tmp_path, cache, picture_sets, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    gone = [replace(each, package=replace(each.package, version="0.0.0")) for each in picture_sets]
    with pytest.raises(FromnoiseError, match="no picture set could be fetched"):
        build(tmp_path / "data", cache, gone)


def test_families_that_share_a_drawing_are_split_together(tmp_path, cache, picture_sets, monkeypatch):
    monkeypatch.setattr(building, "held_out", lambda groups, candidates: frozenset())
    build(tmp_path / "data", cache, picture_sets)
    for concept in ("1f34e", "1f987", "1f558"):
        pictures = [each for each in load_dataset(tmp_path / "data").pictures if each.concept == concept]
        folds = {each.drawing_group: each.judge_fold for each in pictures}
        assert all(each.judge_fold == folds[each.drawing_group] for each in pictures)
        assert {each.drawing_group for each in pictures if each.family == "fluent"} == {"fluent"}


def test_clock_faces_are_never_held_out_since_a_sibling_would_give_them_away(
    tmp_path, cache, picture_sets, monkeypatch
):
    asked = []
    monkeypatch.setattr(building, "held_out", lambda groups, candidates: frozenset(asked.extend(candidates) or ()))
    monkeypatch.setattr(building, "cluster", lambda label: "same" if label != "bat" else label)
    build(tmp_path / "data", cache, picture_sets)
    assert asked == ["1f987"]
