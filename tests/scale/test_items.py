"""Which items a source has and what they are called, and that one item is done once, whole, or not at all. Without Ray."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from clips import moving, write_clip
from PIL import Image

from featherflow.errors import FileError, InputError
from featherflow.inference.settings import EstimationSettings
from featherflow.plans import plan_files
from featherflow.scale import ScaleJob, places
from featherflow.scale.cluster import _check_places
from featherflow.scale.items import find_items
from featherflow.scale.job import Item
from featherflow.scale.verbs import check_options
from featherflow.scale.work import RECORD, Worker

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("ray.data")
pytest.importorskip("cv2")

FAST = EstimationSettings(model="dis-ultrafast")


def save(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, moving(len(names)), strict=True):
        Image.fromarray(image).save(folder / name)


def made(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        save(tmp_path / "in" / name, ["1.png", "2.png", "10.png"])
    return tmp_path


@pytest.fixture
def elsewhere():
    """An empty file system that is not this machine's."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def names(items):
    return [item.name for item in items]


def test_folders_of_frames_are_pairs_of_neighbours(work):
    assert names(find_items("in/one", "flow")) == ["1", "2"]
    assert names(find_items("in/*", "flow")) == names(find_items("in/*/*.png", "flow")) == ["one/1", "one/2", "two/1", "two/2"]
    pair = find_items("in/*", "flow")[1]
    assert pair.sources == (str(work / "in/one/2.png"), str(work / "in/one/10.png"))  # 2 before 10, no pair across folders
    assert names(find_items("in/*", "magnify")) == ["one", "two"] and len(find_items("in/*", "magnify")[0].sources) == 3


def test_lists_name_pairs_or_clips(work):
    (work / "in/pairs.csv").write_text(
        "frame1,frame2,output\none/1.png,one/2.png\none/1.png,one/10.png,\ntwo/1.png,two/2.png,x/y\none/2.png,one/1.png,v1.2.flo\n"
    )
    assert names(find_items("in/pairs.csv", "flow")) == ["one/1-2", "one/1-10", "x/y", "v1.2"]
    (work / "in/clips.csv").write_text("source\na/1.mp4\na/1.mkv\nb/2.mp4\n")
    for name in ("a/1.mp4", "a/1.mkv", "b/2.mp4"):
        (work / "in" / name).parent.mkdir(exist_ok=True)
        (work / "in" / name).touch()
    assert names(find_items("in/clips.csv", "video")) == ["a/1-mp4", "a/1-mkv", "b/2"]
    assert names(find_items("in/*/*.mp4", "video")) == ["a/1", "b/2"]


def test_folders_keep_all_of_their_names(work):
    """A point in the name of a folder begins no ending; a file beside it keeps its own."""
    for name in ("2024.01.05", "2024.01.06", "film"):
        save(work / "days" / name, ["1.png", "2.png", "3.png"])
    (work / "days/film.mkv").touch()
    expected = ["2024.01.05", "2024.01.06", "film", "film-mkv"]
    assert names(find_items("days/*", "video")) == expected
    assert names(find_items("days/*/*.png", "video")) == expected[:3]
    (work / "days/list.csv").write_text("\n".join(["source", "2024.01.05", "2024.01.06", "film", "film.mkv"]))
    assert names(find_items("days/list.csv", "video")) == expected


def test_names_stay_within_the_target_wherever_sources_are(work, elsewhere):
    """Of names with `..` in them, of URIs beside paths, of URIs of this machine; two ways to say a place are one."""
    elsewhere.pipe("/far/4.mp4", b"")
    lines = ["source", "../two", "./../one/", f"file://{work}/in/one", str(work / "in/two"), "memory://far/4.mp4"]
    (work / "in/one/list.csv").write_text("\n".join([*lines[:3], lines[5]]))
    found = find_items("in/one/list.csv", "video")
    tail = work.relative_to("/").as_posix()
    assert names(found) == [f"{tail}/in/two", f"{tail}/in/one", "far/4"]
    assert found[0].sources[0] == str(work / "in/two/1.png") and all(".." not in item.name for item in found)
    (work / "in/one/list.csv").write_text("\n".join([lines[0], *lines[3:5]]))
    assert names(find_items("in/one/list.csv", "video")) == ["one", "two"]
    elsewhere.pipe("/far/deep/list.csv", b"source\n../4.mp4\n")
    assert find_items("memory://far/deep/list.csv", "video") == [Item(("memory:///far/4.mp4",), "4")]


def test_frames_in_an_archive(work):
    with zipfile.ZipFile("two.zip", "w") as archive:
        archive.write("in/one/1.png", "a/1.png")
        archive.write("in/one/2.png", "a/2.png")
        archive.writestr("a/list.csv", "1.png,2.png\n")
    for source in ("zip://a::two.zip", "zip://a/*.png::two.zip", "zip://a/list.csv::two.zip"):
        (item,) = find_items(source, "flow")
        assert Worker(job(work / "out"), source)(item).error is None and item.name == "1"
    Worker(job(work / "plain"), "a")(find_items("in/one", "flow")[0])
    assert (work / "out/1.flo").read_bytes() == (work / "plain/1.flo").read_bytes()


def test_frames_that_are_links_are_frames(work):
    (work / "in/links").mkdir()
    for name in ("1.png", "2.png"):
        (work / "in/links" / name).symlink_to(work / "in/one" / name)
    (work / "in/linked").symlink_to(work / "in/two")
    (work / "in/links/3.png").symlink_to(work / "nowhere.png")  # leads to nothing
    assert names(find_items("in/links", "flow")) == ["1"]
    assert names(find_items("in/l*", "flow")) == ["linked/1", "linked/2", "links/1"]


def test_one_folder_without_a_clip_does_not_stop_the_others(work):
    save(work / "in/short", ["1.png"])
    (work / "in/empty").mkdir()
    found = find_items("in/*", "flow")
    assert {item.name: item.fault is None for item in found} == {
        "empty": False,
        "short": False,
        **dict.fromkeys(("one/1", "one/2", "two/1", "two/2"), True),
    }
    assert "holds 1 image;" in found[[item.name for item in found].index("short")].fault
    with pytest.raises(InputError, match=r"holds 0 images.*pattern such as"):
        find_items("in", "flow")


@pytest.mark.parametrize(
    ("lines", "verb", "said"),
    [
        ("one/1.png,one/2.png", "video", "for the verb flow"),
        ("one/1.png,one/2.png,../x", "flow", "leads out"),
        ("one/1.png,one/2.png\none/1.png,one/2.png", "flow", "more than one item"),
        ("frame1,frame2,mask\na,b,c", "flow", "has the columns"),
        ("", "flow", "lists no pairs"),
    ],
)
def test_lists_that_cannot_be_used(work, lines, verb, said):
    (work / "in/list.csv").write_text(lines)
    with pytest.raises(InputError, match=said):
        find_items("in/list.csv", verb)


def test_sources_that_are_not_there(work):
    with pytest.raises(InputError, match="Nothing matches"):
        find_items("in/none*", "flow")
    with pytest.raises(FileError, match="no file or folder"):
        find_items("in/none.csv", "flow")
    (work / "in/null.csv").write_bytes(b"source\na/\0\n")
    with pytest.raises(FileError, match="null bytes"):
        find_items("in/null.csv", "video")


@pytest.mark.parametrize(
    ("options", "pairs", "said"),
    [
        ({"fromat": "npz"}, True, "no option of flow of pairs"),
        ({"format": "xyz"}, True, "format"),
        ({"picture": True}, True, "one scale"),
        ({"min_confidence": 7}, True, "confidence"),
        ({"output": "x"}, True, "no option"),
        ({"legend": True}, False, "no option of flow of clips"),
        ({"backward": "False"}, False, "The option backward of flow is true or false, got 'False'"),
        ({"picture": "no", "scale": 20}, True, "The option picture of flow is true or false, got 'no'"),
        ({"backward": 1}, True, "is true or false"),
        ({"stride": 1.5}, False, "The option stride of flow is a whole number, got '1.5'"),
        ({"scale": "much"}, True, "The option scale of flow is a number, got 'much'"),
        ({"cuts": True}, False, "The option cuts of flow is a number"),
        ({"format": "xyz"}, False, "format of flow files must be one of"),
    ],
)
def test_options_are_refused_before_the_first_item(options, pairs, said):
    with pytest.raises(InputError, match=said):
        check_options("flow", options, FAST, pairs)


def test_files_of_two_items_that_would_be_one(work):
    save(work / "in/one", ["1_backward.png"])
    items = find_items("in/one", "flow")
    _check_places(items, job(work / "out"))
    with pytest.raises(InputError, match=r"'1_backward\.flo' would be made of two items"):
        _check_places(items, job(work / "out", options={"backward": True}))
    with pytest.raises(InputError, match=r"'1_backward\.flo' would be made of two items"):
        _check_places(items, job("memory://out", options={"backward": True}))


def test_pictures_do_not_join_the_frames_elsewhere(elsewhere, work):
    for name in ("1.png", "2.png"):
        elsewhere.pipe(f"/frames/{name}", b"")
    items = find_items("memory://frames", "flow")
    target = places.absolute("memory://frames")
    _check_places(items, job(target))
    with pytest.raises(InputError, match="name another folder"):
        _check_places(items, job(target, options={"occlusion": True}))


def job(target, **changes):
    return replace(ScaleJob(target=str(target), settings=FAST), **changes)


def test_an_item_is_done_once(work):
    (item,) = find_items("in/one", "flow")[:1]
    place = work / "out"
    assert Worker(job(place), "a")(item).status == "done" and made(place) == ["1.done.json", "1.flo"]
    before = (place / "1.flo").stat().st_mtime_ns
    assert Worker(job(place), "a")(item).status == "done"  # a worker of the same run was killed after it
    assert Worker(job(place), "b")(item).status == "skipped" and (place / "1.flo").stat().st_mtime_ns == before
    content = (place / "1.flo").read_bytes()

    def again(change, **changes):
        change()
        outcome = Worker(job(place, **changes), "c")(item)
        assert (outcome.status, outcome.error) == ("done", None)
        assert Worker(job(place, **changes), "d")(item).status == "skipped"

    again(lambda: (place / "1.flo").write_bytes(content[:-1] + b"x"))  # the size alone does not tell
    assert (place / "1.flo").read_bytes() == content
    again(lambda: (place / "1.flo").unlink())
    again(lambda: (place / "1.done.json").write_text("{}"))
    again(lambda: (place / "1.done.json").write_text("half a rec"))
    again(lambda: None, settings=EstimationSettings(model="dis-fast"))
    again(lambda: None, options={"backward": True})
    assert made(place) == ["1.done.json", "1.flo", "1_backward.flo"]
    again(lambda: save(work / "in/one", ["2.png"]))  # another second frame


def test_what_is_not_made_any_more_goes(work):
    """A shorter clip, or one file less of a pair, leaves nothing of the longer one beside what is new; and nothing else goes."""
    (item,) = find_items("in/one", "flow")[:1]
    place = work / "out"
    Worker(job(place, options={"backward": True}), "a")(item)
    (place / "1_other.txt").write_text("not ours")
    record = json.loads((place / "1.done.json").read_text())
    record["outputs"] += [{"name": name} for name in ("../in/two/1.png", "1/../../in/two/1.png", "10.flo", 7)]
    (place / "10.flo").touch()
    (place / "1.done.json").write_text(json.dumps(record))
    assert Worker(job(place), "b")(item).error is None
    assert made(place) == ["1.done.json", "1.flo", "10.flo", "1_other.txt"] and (work / "in/two/1.png").exists()


def test_the_record_says_what_was_made(work):
    (item,) = find_items("in/one", "flow")[:1]
    Worker(job(work / "out", options={"format": "npz", "occlusion": True}), "a")(item)
    record = json.loads((work / f"out/1{RECORD}").read_text())
    assert [output["name"] for output in record["outputs"]] == ["1.npz", "1_occlusion.png"]
    assert record["outputs"][0]["size"] == (work / "out/1.npz").stat().st_size
    assert record["model"] == "dis-ultrafast" and record["frames"] == 1


def test_what_fails_is_told_and_leaves_nothing(work):
    (work / "in/one/2.png").write_bytes(b"no picture")
    outcome = Worker(job(work / "out"), "a")(find_items("in/one", "flow")[0])
    assert outcome.status == "failed" and "2.png" in outcome.error
    assert not (work / "out").exists()
    (work / "out").write_text("a file")
    outcome = Worker(job(work / "out"), "a")(find_items("in/two", "flow")[0])
    assert outcome.status == "failed" and "out" in outcome.error and (work / "out").read_text() == "a file"


def test_a_fault_of_a_library_stops_no_other_item(work, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("from within")

    monkeypatch.setattr("featherflow.scale.work.pair_files", broken)
    outcome = Worker(job(work / "out"), "a")(find_items("in/one", "flow")[0])
    assert (outcome.status, outcome.error) == ("failed", "ZeroDivisionError: from within")


def test_sources_and_target_elsewhere(work, elsewhere):
    """Both frames may have one name; what is written is what is written here."""
    for folder, name in (("a", "1.png"), ("b", "2.png")):
        elsewhere.pipe(f"/frames/{folder}/x.png", (work / "in/one" / name).read_bytes())
    elsewhere.pipe("/frames/pairs.csv", b"a/x.png,b/x.png\n")
    (item,) = find_items("memory://frames/pairs.csv", "flow")
    assert Worker(job("memory://out"), "a")(item).error is None
    assert sorted(elsewhere.find("/out")) == ["/out/x.done.json", "/out/x.flo"]  # and no temporary name
    Worker(job(work / "out"), "a")(find_items("in/one", "flow")[0])
    assert elsewhere.cat("/out/x.flo") == (work / "out/1.flo").read_bytes()
    assert Worker(job("memory://out"), "b")(item).status == "skipped"
    elsewhere.pipe("/out/x.flo", b"damaged")
    assert Worker(job("memory://out"), "b")(item).status == "done"
    with pytest.raises(FileError, match="nosuch"):
        places.read_bytes("nosuch://x/y")


def test_the_flow_of_a_pair_is_that_of_the_command(work):
    from featherflow.jobs import run

    for item in find_items("in/*", "flow"):
        Worker(job(work / "out", options={"format": "png16"}), "a")(item)
    run(plan_files(["in/*/*.png"], "alone", format="png16", settings=FAST))
    assert [name for name in made(work / "out") if not name.endswith(RECORD)] == made(work / "alone")
    assert all((work / "out" / name).read_bytes() == (work / "alone" / name).read_bytes() for name in made(work / "alone"))


@pytest.mark.parametrize(
    ("verb", "options", "expected"),
    [
        ("flow", {"format": "npz"}, ["clip.done.json", "clip/000000.npz", "clip/000001.npz", "clip/000002.npz"]),
        ("video", {"view": "arrows"}, ["clip.done.json", "clip.mp4"]),
        ("interpolate", {"factor": 3}, ["clip.done.json", "clip.mp4"]),
        ("magnify", {"factor": 2}, ["clip.done.json", "clip.mp4"]),
        ("tracks", {"spacing": 16}, ["clip.csv", "clip.done.json"]),
    ],
)
def test_verbs_of_clips(work, verb, options, expected):
    pytest.importorskip("av")
    write_clip(work / "clip.mkv", moving(4))
    worker = Worker(job(work / "out", verb=verb, options=options), "a")
    check_options(verb, options, FAST, pairs=False)
    (item,) = find_items("clip.mkv", verb)
    _check_places([item], worker.job)
    outcome = worker(item)
    assert (outcome.status, outcome.error) == ("done", None) and outcome.frames >= 3
    assert made(work / "out") == expected
    assert Worker(job(work / "out", verb=verb, options=options), "b")(item).status == "skipped"
    if verb == "tracks":  # frames in a folder are a clip too
        worker = Worker(job(work / "two", verb=verb, options=options), "a")
        assert worker(find_items("in/one", verb)[0]).error is None
        rows = np.genfromtxt(work / "two/one.csv", delimiter=",", names=True)
        assert set(rows["frame"]) == {0, 1, 2}


def test_a_job_travels():
    sent = ScaleJob(target="out", settings=EstimationSettings(model="dis", tile=None, refine=2), options={"backward": True})
    assert ScaleJob.of_dict(json.loads(json.dumps(sent.as_dict()))) == sent
    item = Item(("a", "b"), "x")
    assert sent.digest(item, None) == replace(sent, settings=replace(sent.settings, device="cpu")).digest(item, None)
    assert sent.digest(item, None) != replace(sent, settings=replace(sent.settings, refine=3)).digest(item, None)
    assert sent.digest(item, "one") != sent.digest(item, "two")
    with pytest.raises(InputError, match="verb must be one of"):
        replace(sent, verb="stretch")
