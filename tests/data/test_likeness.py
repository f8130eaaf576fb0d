import numpy as np
from PIL import Image

from fromnoise.data.likeness import NEAR, drawing_groups, signature


def flat(value):
    return np.full((24, 24, 3), value, np.float32)


def test_near_duplicates_join_their_families_transitively():
    families = {"noto/a": "noto", "twemoji/a": "twemoji", "fluent/a": "fluent", "fxemoji/a": "fxemoji"}
    signatures = {"noto/a": flat(0.5), "twemoji/a": flat(0.5 + 0.7 * NEAR), "fluent/a": flat(0.5 + 1.4 * NEAR)}
    groups = drawing_groups(families, {**signatures, "fxemoji/a": flat(0.9)})
    assert groups == {
        "noto/a": "fluent+noto+twemoji",
        "twemoji/a": "fluent+noto+twemoji",
        "fluent/a": "fluent+noto+twemoji",
        "fxemoji/a": "fxemoji",
    }


def test_a_family_is_one_group_however_its_drawings_differ():
    families = {"fluent/a": "fluent", "fluent-3d/a": "fluent"}
    assert set(drawing_groups(families, {"fluent/a": flat(0.1), "fluent-3d/a": flat(0.9)}).values()) == {"fluent"}


def test_signature_is_small_and_between_zero_and_one():
    small = signature(Image.new("RGB", (128, 128), (255, 0, 51)))
    assert small.shape == (24, 24, 3)
    assert np.allclose(small[0, 0], [1, 0, 0.2])
