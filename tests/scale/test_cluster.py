"""Items over workers of Ray, on two cores: equal to one process, again without work, and with a worker killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from clips import moving
from helpers import run_command
from PIL import Image

from featherflow.errors import FeatherflowError, FileError, InputError
from featherflow.inference.settings import EstimationSettings
from featherflow.jobs import run as run_here
from featherflow.plans import plan_files
from featherflow.scale import run, session
from featherflow.scale.work import RECORD

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pytest.importorskip("cv2")

FAST = EstimationSettings(model="dis-ultrafast")


def save(folder, count, **size):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(moving(count, **size)):
        Image.fromarray(image).save(folder / f"{number}.png")


def flows(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.flo")}


def test_pairs_by_the_command_then_again(tmp_path, monkeypatch, capsys):
    """One item fails, is listed with its reason, and stops no other; what is there is left; the flows are those of one process."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in", 8)
    (tmp_path / "in/bad.png").write_bytes(b"no picture")
    lines = [f"in/{k}.png,in/{k + 1}.png" for k in range(7)] + ["in/0.png,in/bad.png,broken"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    command = ("scale", "run", "list.csv", "-o", "out", "--model", "dis-ultrafast", "--workers", "2", "--cpus", 2, "--json")
    assert run_command(*command, "--summary", "done.json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "done.json").read_text())
    assert (told["items"], told["done"], told["skipped"], told["failed"], told["frames"]) == (8, 7, 0, 1, 7)
    (failure,) = told["failures"]
    assert failure["name"] == "broken" and "bad.png" in failure["error"] and failure["attempts"] == 2
    assert told["core_hours"] > 0 and not ray.is_initialized()
    run_here(plan_files(["in/[0-9].png"], "alone", settings=FAST))
    assert flows(tmp_path / "out") == flows(tmp_path / "alone") and len(flows(tmp_path / "out")) == 7

    Image.fromarray(moving(2)[1]).save(tmp_path / "in/bad.png")
    (tmp_path / "out/3.flo").unlink()
    assert run_command(*command) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["skipped"], told["failed"]) == (2, 6, 0)


def kill_first(folder, killed):
    """End the worker that made the first item, and note its process."""
    for _ in range(1200):
        for record in folder.glob(f"*{RECORD}"):
            process = int(json.loads(record.read_text())["worker"].rpartition("/")[2])
            os.kill(process, signal.SIGKILL)
            killed.append(process)
            return
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_doubled(tmp_path):
    save(tmp_path / "in", 25, height=480, width=640)
    killed = []
    watch = threading.Thread(target=kill_first, args=(tmp_path / "out", killed))
    watch.start()
    settings = EstimationSettings(model="dis")
    result = run(tmp_path / "in", tmp_path / "out", settings=settings, workers=(1, 1), cpus=1, retries=0)
    watch.join()
    assert killed and (result.items, result.done, result.skipped, result.failures) == (24, 24, 0, [])
    makers = {json.loads(path.read_text())["worker"].rpartition("/")[2] for path in (tmp_path / "out").glob(f"*{RECORD}")}
    assert str(killed[0]) in makers and len(makers) == 2  # the one that was killed, and its successor
    run_here(plan_files([tmp_path / "in"], tmp_path / "alone", settings=settings))
    assert flows(tmp_path / "out") == flows(tmp_path / "alone")
    assert not list((tmp_path / "out").glob(".featherflow*"))


@pytest.mark.slow
def test_an_item_that_kills_every_worker_is_given_up_alone(tmp_path, monkeypatch):
    save(tmp_path / "in", 4)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if any(word.endswith('default_worker.py') for word in sys.orig_argv):\n"
        "    from featherflow.scale import work\n"
        "    usual = work.pair_files\n"
        "    def deadly(frames, base, *others):\n"
        "        if base.name == '1':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return usual(frames, base, *others)\n"
        "    work.pair_files = deadly\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    result = run(tmp_path / "in", tmp_path / "out", settings=FAST, workers=(1, 1), cpus=1, retries=0)
    assert result.done == 2 and [failure.name for failure in result.failures] == ["1"]
    assert "its worker died each time" in result.failures[0].error


@pytest.mark.parametrize(
    ("keywords", "error", "said"),
    [
        ({"workers": (0, 2)}, InputError, "FEWEST:MOST"),
        ({"workers": (3, 2)}, InputError, "FEWEST:MOST"),
        ({"cpus_per_worker": 1.5}, InputError, "fraction"),
        ({"gpus_per_worker": -1}, InputError, "fraction"),
        ({"retries": -1}, InputError, "tried again"),
        ({"cpus": 0}, InputError, "1 CPU or more"),
        ({"cpus": 2, "address": "auto"}, InputError, "alone"),
        ({"address": "ray://somewhere:10001"}, InputError, "does not work through ray://"),
        ({"settings": EstimationSettings(model="dis", device="cuda")}, InputError, "--gpus-per-worker"),
        ({"verb": "stretch"}, InputError, "verb must be one of"),
        ({"settings": EstimationSettings(model="lightflownet")}, InputError, "did you mean"),
        ({"target": "in"}, InputError, "name another folder"),
        ({"target": "in/0.png"}, FileError, "cannot write"),
    ],
)
def test_what_no_item_could_be_done_with_is_told_before_ray_starts(tmp_path, monkeypatch, keywords, error, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(session.subprocess, "Popen", lambda *_, **__: pytest.fail("Ray was started"))
    save(tmp_path / "in", 2)
    with pytest.raises(error, match=said):
        run("in", **{"target": "out", "options": {"format": "png16"}, "settings": FAST} | keywords)
    assert not (tmp_path / "out").exists() and len(list((tmp_path / "in").iterdir())) == 2


@pytest.mark.parametrize(
    ("keywords", "error", "said"),
    [
        ({"workers": (4, None), "cpus": 2}, InputError, "room for 2 workers"),
        ({"gpus_per_worker": 64, "cpus": 1}, InputError, "64 GPU for a worker are asked for"),
        ({"address": "somewhere"}, FeatherflowError, "Ray at 'somewhere' does not answer"),
    ],
)
def test_what_ray_would_wait_for_without_end_is_told(tmp_path, keywords, error, said):
    save(tmp_path / "in", 2)
    with pytest.raises(error, match=said):
        run(tmp_path / "in", tmp_path / "out", settings=FAST, **keywords)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ctrl_c_ends_all_and_the_same_command_goes_on(tmp_path):
    save(tmp_path / "in", 40, height=480, width=640)
    command = [sys.executable, "-m", "featherflow", "scale", "run", "in", "-o", "out", "--model", "dis", "--cpus", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").glob(f"*{RECORD}")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and "interrupted" in process.stderr.read()
    process.stderr.close()
    done = len(list((tmp_path / "out").glob(f"*{RECORD}")))
    assert 0 < done < 39
    result = run(tmp_path / "in", tmp_path / "out", settings=EstimationSettings(model="dis"), cpus=1)
    assert result.skipped >= done and result.done + result.skipped == 39
