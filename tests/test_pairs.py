"""Which frames belong together: by name, in turn, from lists, folders and files of many pages."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featherflow.errors import FileError, InputError
from featherflow.pairs import find_pairs


def image(value=0):
    return Image.fromarray(np.full((20, 24), value, np.uint8))


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        image().save(folder / name)


def names(pairs):
    return [(pair.first.path.name, pair.second.path.name) for pair in pairs]


def test_double_frames_by_name(tmp_path):
    fill(tmp_path, "run_2_b.tif", "run_10_a.tif", "run_2_a.tif", "run_10_b.tif")
    expected = [("run_2_a.tif", "run_2_b.tif"), ("run_10_a.tif", "run_10_b.tif")]
    assert names(find_pairs([tmp_path])) == names(find_pairs([tmp_path], "ab")) == expected
    assert names(find_pairs([str(tmp_path / "run_2_*.tif")])) == expected[:1]


@pytest.mark.parametrize("pair", [("B0001A.tif", "B0001B.tif"), ("x_img1.png", "x_img2.png"), ("7-frame1.png", "7-frame2.png")])
def test_other_names_of_double_frames(tmp_path, pair):
    fill(tmp_path, *pair)
    assert names(find_pairs([tmp_path], "ab")) == [pair]


def test_series_and_double_frames_in_turn(tmp_path):
    fill(tmp_path, *(f"f{number}.png" for number in (1, 2, 9, 10)))
    series = [("f1.png", "f2.png"), ("f2.png", "f9.png"), ("f9.png", "f10.png")]
    assert names(find_pairs([tmp_path])) == names(find_pairs([tmp_path], "series")) == series
    assert names(find_pairs([tmp_path], "double")) == series[::2]


def test_words_that_end_in_a_or_b_are_no_marks(tmp_path):
    fill(tmp_path, "camera.png", "verb.png")
    assert names(find_pairs([tmp_path])) == [("camera.png", "verb.png")]
    with pytest.raises(InputError, match="ends neither in a or b"):
        find_pairs([tmp_path], "ab")


def test_pages_of_one_file(tmp_path):
    image(0).save(tmp_path / "run.tif", save_all=True, append_images=[image(value) for value in (1, 2, 3)])
    pages = [(pair.first.page, pair.second.page) for pair in find_pairs([tmp_path / "run.tif"], "double")]
    assert pages == [(0, 1), (2, 3)]
    assert len(find_pairs([tmp_path / "run.tif"])) == 3
    with pytest.raises(InputError, match="holds 4 pictures"):
        find_pairs([tmp_path / "run.tif", tmp_path / "run.tif"])


def test_folders_a_and_b(tmp_path):
    fill(tmp_path / "A", "1.png", "2.png", "10.png")
    fill(tmp_path / "b", "x1.png", "x2.png", "x10.png")
    assert names(find_pairs([tmp_path])) == [("1.png", "x1.png"), ("2.png", "x2.png"), ("10.png", "x10.png")]
    (tmp_path / "b" / "x2.png").unlink()
    with pytest.raises(InputError, match="3 and 2 images"):
        find_pairs([tmp_path])


def test_a_list(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("# of the second day\none/a.tif, one/b.tif\none/b.tif,one/c.tif,wall.png, 0.25\n\n")
    pairs = find_pairs([path])
    assert [str(pair.first) for pair in pairs] == [str(tmp_path / "one/a.tif"), str(tmp_path / "one/b.tif")]
    assert (pairs[0].mask, pairs[0].time, pairs[1].mask, pairs[1].time) == (None, None, tmp_path / "wall.png", 0.25)
    path.write_text("\ufefftime,Frame1,frame2\n1.5,a.tif,b.tif\n", encoding="utf-8")
    (pair,) = find_pairs([path])
    assert (pair.time, pair.first.path, pair.second.path) == (1.5, tmp_path / "a.tif", tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no pairs"),
        ("a.tif\n", "line 1, has 1 columns"),
        ("a.tif,b.tif,,x\n", "line 1, has the time 'x'"),
        ("a.tif,b.tif,,nan\n", "line 1, has the time 'nan'"),  # which is in no JSON
        ("a.tif,b.tif,,-inf\n", "line 1, has the time '-inf'"),
        ("a.tif,b.tif\n\nc.tif,\n", "line 3, does not fill frame1 and frame2"),
        ("frame1,frame2,speed\na,b,c\n", "has the columns frame1, frame2, speed"),
        ("a,b,c,1,2\n", "has 5 columns"),
    ],
)
def test_lists_that_cannot_be_understood(tmp_path, text, words):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        find_pairs([path])


def test_what_does_not_come_in_pairs(tmp_path):
    fill(tmp_path, "f_1.png", "f_2.png", "f_3.png")
    fill(tmp_path / "ab", "1_a.png", "1_b.png", "2_a.png")
    for call, words in (
        (lambda: find_pairs([tmp_path], "double"), "3 frames, which do not come in pairs: .*f_3.png"),
        (lambda: find_pairs([tmp_path / "ab"], "ab"), "2_a.png' has no partner"),
        (lambda: find_pairs([tmp_path], "twos"), "one of auto, ab, double, series"),
        (lambda: find_pairs(["1", "2", "3"]), "got 3"),
    ):
        with pytest.raises(InputError, match=words):
            call()
    for source in ("nothing.csv", "nothing"):
        with pytest.raises(FileError, match="There is no"):
            find_pairs([tmp_path / source])
    for content in (bytes(range(128, 256)), b"a.png,b\0.png", b"frame1,frame2,output\na.png,b.png,x\0\n"):
        (tmp_path / "binary.csv").write_bytes(content)
        with pytest.raises(FileError, match="cannot be read as a list"):
            find_pairs([Path(tmp_path / "binary.csv")], columns=("output",))
