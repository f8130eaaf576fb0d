from fromnoise.data import building
from fromnoise.data.concepts import cluster, read_emojibase
from fromnoise.data.drawings import Drawing, Names, read_drawings
from fromnoise.data.fetching import fetch
from fromnoise.data.rendering import encode, render


def emojibase(cache):
    return read_emojibase(fetch(building.WORD_LISTS["emojibase"], cache))


def test_flags_are_no_concepts(cache, picture_sets):
    assert set(emojibase(cache).concepts) == {"1f34e", "1f987", "1f558"}


def test_every_reader_finds_the_wanted_drawings(cache, picture_sets):
    table = emojibase(cache)
    for each in picture_sets:
        drawings = read_drawings(each, fetch(each.package, cache), table)
        assert {drawing.concept for drawing in drawings} == {"1f34e", "1f987", "1f558"}
        assert [drawing.name for drawing in drawings] == sorted(drawing.name for drawing in drawings)


def test_names_are_found_by_label_unicode_name_shortcode_and_own_table(cache, picture_sets):
    names = Names(emojibase(cache), {"1F987": "flying-mouse"})
    assert names("noto", "red-apple") == names("noto", "redapple-2") == names("noto", "apple_red") == "1f34e"
    assert names("noto", "clock-face-nine-oclock") == "1f558"
    assert names("noto", "flying-mouse") == "1f987"
    assert names("fxemoji", "acorn") == "1f330"
    assert names("noto", "acorn") is None


def test_near_identical_concepts_share_a_cluster():
    assert cluster("nine o’clock") == cluster("two-thirty") == "clock face"
    assert cluster("oncoming taxi") == cluster("taxi") == "taxi"
    assert cluster("waxing crescent moon") == cluster("last quarter moon")
    assert cluster("dog") == "dog"
    assert cluster("blue heart") != cluster("green heart")


def test_a_wide_drawing_is_centred_on_white():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10"><rect width="20" height="10" fill="#f00"/></svg>'
    picture = render(Drawing("noto", "1f34e", "wide", svg))
    assert (picture.size, picture.mode) == ((128, 128), "RGB")
    assert picture.getpixel((64, 64)) == (255, 0, 0)
    assert picture.getpixel((64, 20)) == picture.getpixel((64, 108)) == (255, 255, 255)


def test_the_same_picture_gives_the_same_file(cache, picture_sets):
    for each in picture_sets:
        drawing = read_drawings(each, fetch(each.package, cache), emojibase(cache))[0]
        assert encode(render(drawing)) == encode(render(drawing))


def test_see_through_is_white_and_bitmaps_are_scaled_down(cache, picture_sets):
    three_d = next(each for each in picture_sets if each.reader == "assets")
    picture = render(read_drawings(three_d, fetch(three_d.package, cache), emojibase(cache))[0])
    assert picture.getpixel((2, 2)) == (255, 255, 255)
    assert picture.getpixel((64, 64)) == (0, 200, 200)
