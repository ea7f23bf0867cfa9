"""Flow for many pairs: which files are made, in which order, what is told, and that a plan can travel."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from clips import moving
from helpers import run_command
from PIL import Image

import featherflow
from featherflow import Estimator, read_flow
from featherflow.errors import FileError, InputError
from featherflow.inference.settings import EstimationSettings
from featherflow.jobs import Failure, estimate_files, run
from featherflow.overlap import behind
from featherflow.plans import FlowPlan, plan_files

pytest.importorskip("cv2")

FAST = ("--model", "dis-ultrafast")


def save(folder, names, images=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images or moving(len(names)), strict=True):
        Image.fromarray(image).save(folder / name)


def estimator():
    return Estimator("dis-ultrafast")


def made(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        save(tmp_path / "in" / name, ["1.png", "2.png", "10.png"])
    return tmp_path


def test_a_list_names_its_pairs_and_what_is_made_of_them(work):
    """Names are relative to the list; what has one first frame in common is told apart by the second."""
    lines = ["one/1.png,one/2.png", "one/1.png,one/10.png", "two/10.png,two/1.png", "two/1.png,two/2.png,back/home.flo"]
    (work / "in/pairs.csv").write_text("\n".join(lines))
    assert run_command("estimate", "--pairs", "in/pairs.csv", "-o", "out", "--format", "npz", *FAST) == 0
    assert made(work / "out") == ["back/home.npz", "one/1-10.npz", "one/1-2.npz", "two/10.npz"]
    for name, motion in (("one/1-2", (2, 1)), ("one/1-10", (4, 2)), ("two/10", (-4, -2)), ("back/home", (2, 1))):
        assert np.abs(np.median(read_flow(f"out/{name}.npz"), axis=(0, 1)) - motion).max() < 0.3


@pytest.mark.parametrize(("format", "suffix"), [("flo", "flo"), ("png16", "png"), ("npz", "npz"), ("pfm", "pfm"), ("exr", "exr")])
def test_formats_of_a_list(work, format, suffix):
    if format == "exr":
        pytest.importorskip("OpenEXR")
    (work / "in/pairs.csv").write_text("frame2,frame1\none/2.png,one/1.png\n")
    assert run_command("estimate", "--pairs", "in/pairs.csv", "-o", "out", "--format", format, *FAST) == 0
    assert made(work / "out") == [f"one/1.{suffix}"] or made(work / "out") == [f"1.{suffix}"]


def test_double_frames_by_pattern(work):
    save(work / "double", ["r2_a.png", "r2_b.png", "r10_a.png", "r10_b.png"])
    job = estimate_files(pairs="double/*.png", output="out", estimator=estimator())
    assert [result.flow for result in job.results] == ["out/r2_a.flo", "out/r10_a.flo"]  # natural order
    job = estimate_files(pairs="double", pairing="series", output="all", estimator=estimator())
    assert [result.flow for result in job.results] == ["all/r2_a.flo", "all/r2_b.flo", "all/r10_a.flo"]


@pytest.mark.parametrize(
    ("lines", "arguments", "said"),
    [
        ("one/1.png,one/2.png,../../x", (), "leads out of the folder"),
        ("one/1.png,one/2.png,/x", (), "leads out of the folder"),
        ("one/1.png,one/2.png\none/1.png,one/2.png", (), "twice"),
        ("frame1,frame2,mask\n1,2,3", (), "expected frame1, frame2 and, if wanted, output"),
        ("one/1.png,one/2.png", ("in/one",), "not both"),
        ("one/1.png,one/2.png", ("--pairing", "odd"), "pairing must be one of"),
        ("one/1.png,one/2.png", ("--format", "tiff"), "one of flo"),
        ("one/1.png,one/2.png", ("--summary", "in/pairs.csv"), "which is read"),
        ("one/1.png,one/2.png", ("--summary", "nowhere/x.jsonl"), "cannot write nowhere"),
    ],
)
def test_bad_lists_are_refused_before_anything_is_done(work, lines, arguments, said, capsys):
    (work / "in/pairs.csv").write_text(lines)
    before = made(work)
    assert run_command("estimate", *arguments, "--pairs", "in/pairs.csv", "-o", "out", *FAST) in (2, 3)
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1 and made(work) == before


def test_the_summary_says_what_was_done_line_by_line(work, capsys):
    save(work / "in/one", ["2.png"], [moving(1)[0][:40]])
    for arguments in ((), ("--skip-existing",)):
        code = run_command("estimate", "in/*/*.png", "-o", "out", "--keep-going", "--summary", "done.jsonl", *arguments, *FAST)
        assert code == 1
    lines = [json.loads(line) for line in (work / "done.jsonl").read_text().splitlines()]
    assert [("totals" in line, "error" in line) for line in lines] == [
        *[(False, True), (False, True), (False, False), (False, False), (True, False)],
        *[(False, True), (False, True), (True, False)],
    ]
    first, second = lines[4]["totals"], lines[7]["totals"]
    assert (first["done"], first["failed"], first["skipped"]) == (2, 2, 0)
    assert (second["done"], second["failed"], second["skipped"]) == (0, 2, 2)
    assert first["seconds"] > 0 and lines[2]["flow"] == "out/two/1.flo"


def test_the_summary_of_a_run_that_ended_early(work):
    """The lines of what was done are there, and nothing after the pair that failed was begun."""
    save(work / "in/one", ["10.png"], [moving(1)[0][:40]])
    with pytest.raises(InputError, match="one size"):
        estimate_files(["in/*/*.png"], "out", summary="done.jsonl", estimator=estimator())
    lines = [json.loads(line) for line in (work / "done.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and lines[0]["flow"] == "out/one/1.flo" and lines[1]["totals"]["done"] == 1
    assert made(work / "out") == ["one/1.flo"]


@pytest.mark.parametrize(("end", "kept"), [('{"frame1": "in/o', 0), ('{"totals": {}}', 1), ("", 0)])
def test_the_summary_goes_on_behind_a_line_that_was_not_finished(work, end, kept):
    """As a full disk leaves it: its part is taken away, and no line that is there comes to harm."""
    (work / "done.jsonl").write_text('{"frame1": "a.png"}\n' + end)
    estimate_files(["in/one"], "out", summary="done.jsonl", skip_existing=True, estimator=estimator())
    lines = [json.loads(line) for line in (work / "done.jsonl").read_text().splitlines()]
    assert lines[0] == {"frame1": "a.png"} and len(lines) == 1 + kept + 2 + 1


def test_what_is_left_is_what_progress_counts(work):
    estimate_files(["in/one"], "out", estimator=estimator())
    (work / "out/2.flo").unlink()
    seen = []
    job = estimate_files(["in/one"], "out", skip_existing=True, estimator=estimator(), progress=lambda *n: seen.append(n))
    assert job.skipped == 1 and seen[0] == (0, 1) and seen[-1] == (1, 1)


def test_reading_and_writing_have_threads_of_their_own(work, monkeypatch):
    """Each of the three has its own, and what is made is the same as without."""
    import featherflow.jobs as jobs

    threads = {}

    def watched(name):
        original = getattr(jobs, name)

        def call(*arguments, **options):
            threads.setdefault(name, set()).add(threading.current_thread().name.split("_")[0])
            return original(*arguments, **options)

        monkeypatch.setattr(jobs, name, call)

    for name in ("read_frames", "write_flow"):
        watched(name)
    plan = plan_files(["in/*/*.png"], "out", settings=EstimationSettings(model="dis-ultrafast"))
    run(plan)
    assert threads == {"read_frames": {"ahead"}, "write_flow": {"behind"}}
    there = {name: (work / "out" / name).read_bytes() for name in made(work / "out")}
    run(plan, overlap=False)
    assert threads["read_frames"] == {"ahead", "MainThread"}
    assert there == {name: (work / "out" / name).read_bytes() for name in made(work / "out")} and len(there) == 4


def test_a_plan_travels_as_json(work):
    """Another process does what the plan says without knowing where it came from."""
    settings = EstimationSettings(model="dis-ultrafast", tile=(256, 512), refine=1)
    save(work / "pages", ["x.png"], moving(1))
    frames = [Image.fromarray(image) for image in moving(3)]
    frames[0].save(work / "many.tif", save_all=True, append_images=frames[1:])
    plan = plan_files(
        ["many.tif"], "out", "pictures", backward=True, occlusion=True, scale=5, value_range=(0, 200), settings=settings
    )
    there = FlowPlan.of_dict(json.loads(json.dumps(plan.as_dict())))
    assert there == plan and hash(there) == hash(plan) and there.tasks[1].second.page == 2
    none = replace(plan, settings=EstimationSettings(tile=None), confidence=True, min_confidence=0.25)
    assert FlowPlan.of_dict(json.loads(json.dumps(none.as_dict()))) == none
    job = run(replace(there, settings=EstimationSettings(model="dis-ultrafast")))
    assert [result.occlusion for result in job.results] == ["out/many_000000_occlusion.png", "out/many_000001_occlusion.png"]
    assert made(work / "pictures") == ["many_000000.png", "many_000001.png"]


@pytest.mark.parametrize(
    "damage", [lambda d: d.pop("pairs"), lambda d: d.update(version=2), lambda d: d["settings"].update(colour=1)]
)
def test_what_is_no_plan_is_refused(work, damage):
    plan = plan_files(["in/one"], "out").as_dict()
    damage(plan)
    with pytest.raises(InputError, match="no plan"):
        FlowPlan.of_dict(plan)
    with pytest.raises(InputError, match="no plan"):
        FlowPlan.of_dict([])


def test_a_pair_that_cannot_be_written_is_passed_over(work, monkeypatch):
    import featherflow.jobs as jobs

    write = jobs.write_flow

    def full(path, flow, **options):
        if path.name == "1.flo":
            raise FileError(f"cannot write {path}: the disk is full")
        write(path, flow, **options)

    monkeypatch.setattr(jobs, "write_flow", full)
    job = estimate_files(["in/one"], "out", keep_going=True, estimator=estimator())
    assert [type(result) is Failure for result in job.results] == [True, False] and made(work / "out") == ["2.flo"]
    with pytest.raises(FileError, match="disk is full"):
        estimate_files(["in/one"], "out", estimator=estimator())


def test_after_a_failure_nothing_is_begun_behind():
    begun, may_fail = [], threading.Event()

    def work(number):
        begun.append(number)
        may_fail.wait()
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"), behind(work) as hand_over:
        hand_over(0)
        hand_over(1)
        may_fail.set()
    assert begun == [0]


def test_flows_are_those_of_estimate(work):
    estimate_files(pairs="in/one", output="out", pairing="series", estimator=estimator())
    assert np.array_equal(read_flow("out/2.flo"), featherflow.estimate("in/one/2.png", "in/one/10.png", model="dis-ultrafast"))


@pytest.mark.parametrize("output", ["flows", "flow.flo"])
def test_two_folders_are_not_two_frames(tmp_path, output, capsys):
    (tmp_path / "frames").mkdir()
    assert run_command("estimate", tmp_path / "frames", tmp_path / "frames", "-o", tmp_path / output, *FAST) == 2
    assert "frames' is a folder; name two image files" in capsys.readouterr().err
