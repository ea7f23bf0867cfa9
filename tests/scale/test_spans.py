"""A long clip in parts that workers share: together they make what one made of the whole."""

import json
from fractions import Fraction
from io import BytesIO
from zipfile import ZipFile

import pytest
from clips import moving, write_clip
from helpers import run_command

from featherflow.errors import InputError
from featherflow.inference.settings import EstimationSettings
from featherflow.scale import ScaleJob, run
from featherflow.scale.items import find_items
from featherflow.scale.spans import in_spans
from featherflow.scale.work import Worker

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("ray.data")
pytest.importorskip("cv2")
pytest.importorskip("av")

FAST = EstimationSettings(model="dis-ultrafast")
COUNT = 12


def flows_of(folder):
    """The bytes of all flow files, in the order of folders and names."""
    return [path.read_bytes() for path in sorted(folder.rglob("*.flo"))]


@pytest.fixture
def film(tmp_path):
    """A function that writes a film with a frame at each of these times [s]."""

    def write(times):
        write_clip(tmp_path / "film.mkv", moving(COUNT), times)
        return tmp_path / "film.mkv"

    return write


@pytest.mark.parametrize(
    "times",
    [
        [Fraction(k, 4) for k in range(COUNT)],  # 1 s is a frame's time
        [Fraction(k, 4) + Fraction(1, 10) for k in range(COUNT)],
        [Fraction(k * k, 48) for k in range(COUNT)],  # ever slower
        [Fraction(k, 4) + (2 if k > 5 else 0) for k in range(COUNT)],  # nothing for two seconds: spans of one frame or none
    ],
)
def test_spans_make_every_flow_once(tmp_path, film, times):
    (whole,) = items = find_items(film(times), "flow")
    parts = in_spans(items, 1)
    job = ScaleJob(target=str(tmp_path / "whole"), settings=FAST)
    assert Worker(job, "a")(whole).error is None
    worker = Worker(ScaleJob(target=str(tmp_path / "parts"), settings=FAST), "a")
    outcomes = [worker(part) for part in parts]
    assert [outcome.error for outcome in outcomes] == [None] * len(parts)
    assert sum(outcome.frames for outcome in outcomes) == COUNT - 1
    again = Worker(worker.job, "b")
    assert [again(part).status for part in parts] == ["skipped"] * len(parts)
    assert flows_of(tmp_path / "parts") == flows_of(tmp_path / "whole") and len(parts) == len({part.name for part in parts}) > 1
    assert [part.name for part in parts[:2]] == ["film/000000s", "film/000001s"]


def test_what_is_short_or_no_video_stays_whole(tmp_path, film):
    items = find_items(film([Fraction(k, 4) for k in range(COUNT)]), "flow")
    assert in_spans(items, 3) == items and len(in_spans(items, 1)) == 3
    (tmp_path / "not.mkv").write_bytes(b"nothing")
    for source in ("not.mkv", "there is none.mkv"):
        items = find_items(tmp_path / source, "flow")
        assert in_spans(items, 1) == items
        assert Worker(ScaleJob(target=str(tmp_path / "out"), settings=FAST), "a")(items[0]).status == "failed"


def test_spans_of_a_video_elsewhere(tmp_path, film):
    content = film([Fraction(k, 4) for k in range(COUNT)]).read_bytes()
    fsspec.filesystem("memory").pipe("/films/film.mkv", content)
    with ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.writestr("film.mkv", content)
    for place in ("memory://films/film.mkv", f"zip://film.mkv::{tmp_path}/films.zip"):
        parts = in_spans(find_items(place, "flow"), 1)
        assert [part.span for part in parts] == [(0, 1), (1, 2), (2, None)]


def test_a_place_that_fails_while_it_is_read_fails_with_its_item(film, monkeypatch):
    class Lost(BytesIO):
        def read(self, *size):
            raise ConnectionError("the line is dead")

    items = find_items(film([Fraction(k, 4) for k in range(COUNT)]), "flow")
    monkeypatch.setattr("featherflow.scale.spans.opened", lambda place: Lost())
    assert in_spans(items, 1) == items


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"span": 0}, "A span is a whole number of seconds, 1 or more, got 0."),
        ({"span": 5, "verb": "video"}, "Spans are for the verb flow"),
        ({"span": 5, "options": {"stride": 2}}, "leave the option stride out"),
    ],
)
def test_spans_that_cannot_be(tmp_path, film, keywords, said):
    with pytest.raises(InputError, match=said):
        run(film([Fraction(k, 4) for k in range(COUNT)]), tmp_path / "out", settings=FAST, **keywords)


def test_spans_by_the_command(tmp_path, film, capsys):
    """Two workers share one film."""
    times = [Fraction(k, 4) for k in range(COUNT)]
    command = ("scale", "run", film(times), "-o", tmp_path / "out", "--span", "1", "--model", "dis-ultrafast")
    assert run_command(*command, "--workers", "2", "--cpus", 2, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["items"], told["done"], told["failed"], told["frames"]) == (3, 3, 0, COUNT - 1)
    assert len(flows_of(tmp_path / "out")) == COUNT - 1
