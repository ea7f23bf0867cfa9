"""Runs that are killed, moved, shared among processes or computed in other precisions go on as one run."""

import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time

import layouts
import pytest
import torch

from featherflow.errors import FileError, InputError, TrainingError
from featherflow.training import changed_recipe
from featherflow.training.loop import Trainer
from featherflow.training.plan import plan
from featherflow.training.recipe import Recipe
from featherflow.training.shards import LIMIT, read_shards, write_shards

TINY = Recipe("test", "liteflownetx", samples=40, batch=2, height=64, width=64, warmup=0.0, cooldown=0.5, precision="float32")


def trainer(folder, textures, options=None, **changes):
    return Trainer(dataclasses.replace(TINY, **changes), folder, textures, **(options or {}))


def weights_of(run):
    return {name: value.clone() for name, value in run.network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


#: Two stages, so that the border is among the steps at which the run may be killed.
TWO_STAGES = ["shrink=50000", "batch=2", "height=64", "width=64"]

KILLED = f"""
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from featherflow.data import TextureBank
from featherflow.training import changed_recipe, loop
loop.CHECKPOINT_EVERY, loop.REPORT_EVERY = 0.0, 2
bank = TextureBank.procedural(8, 96, torch.Generator().manual_seed(0))
loop.Trainer(changed_recipe("paper/liteflownetx", {TWO_STAGES}), Path(sys.argv[1]), bank).run(samples=int(sys.argv[2]))
"""


def test_a_killed_run_goes_on_as_one_that_was_not(tmp_path, textures, monkeypatch):
    """SIGKILL at whatever moment the log has three lines, past the border of stages; weights and log as if nothing had been."""
    torch.set_num_threads(1)
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), "1000"], env={**os.environ, "OMP_NUM_THREADS": "1"})
    log, deadline = folder / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 4):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.setattr("featherflow.training.loop.REPORT_EVERY", 2)
    recipe = changed_recipe("paper/liteflownetx", TWO_STAGES)
    killed, whole = (Trainer(recipe, path, textures) for path in (folder, tmp_path / "whole"))
    assert killed.stage_number == 1
    end = killed.samples + 4
    killed.run(samples=4)
    whole.run(samples=end)
    assert killed.samples == whole.samples == end
    assert same(weights_of(whole), weights_of(killed)) and same(whole.average, killed.average)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(set(steps))  # no step is told twice


def test_a_checkpoint_from_before_there_were_stages_is_continued(tmp_path, textures):
    """What such a file held: no stage, nor where it began."""
    whole, old = trainer(tmp_path / "whole", textures), trainer(tmp_path / "old", textures)
    whole.run(samples=8)
    old.run(samples=4)
    state = torch.load(old.checkpoint, weights_only=True)
    recipe = {key: state["recipe"][key] for key in ("name", "network", "options", "samples", "batch", "loss")}
    kept = {key: state[key] for key in ("network", "average", "optimizer", "step", "samples", "skipped")}
    torch.save({**kept, "recipe": recipe}, old.checkpoint)
    new = trainer(tmp_path / "old", textures)
    assert new.samples == 4
    new.run(samples=4)
    assert same(weights_of(whole), weights_of(new)) and same(whole.average, new.average)


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_shards_hold_the_whole_state_in_small_files(tmp_path, textures, optimizer):
    whole = trainer(tmp_path / "whole", textures, optimizer=optimizer)
    whole.run(samples=8)
    shards = {"shards": tmp_path / "shards"}
    trainer(tmp_path / "here", textures, shards, optimizer=optimizer).run(samples=4)
    moved = trainer(tmp_path / "elsewhere", textures, shards, optimizer=optimizer)
    assert moved.samples == 4
    moved.run(samples=4)
    assert same(weights_of(whole), weights_of(moved)) and same(whole.average, moved.average)
    assert all(path.stat().st_size < 16_000_000 for path in shards["shards"].iterdir())
    assert len(list(shards["shards"].glob("state-*"))) == 1  # the older ones are gone


def test_large_tensors_are_cut_and_broken_shards_named(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {
        "large": torch.randn(5, 300, generator=generator),
        "number": 1.5,
        3: [torch.arange(7), None, (True, "text")],
        "empty": torch.zeros(0, 4),
        "half": torch.ones(3).half(),
        "inner": {"scalar": torch.tensor(2.0)},
    }
    files = write_shards(tmp_path, state, limit=1000)
    assert len(files) > 6 and all(path.stat().st_size < 2000 for path in files if path.suffix == ".safetensors")
    found = read_shards(tmp_path)
    assert torch.equal(found["large"], state["large"]) and torch.equal(found[3][0], torch.arange(7))
    assert found[3][1:] == [None, (True, "text")] and found["empty"].shape == (0, 4) and found["half"].dtype == torch.float16
    assert found["inner"]["scalar"].shape == () and LIMIT < 16_000_000
    files[0].unlink()
    with pytest.raises(FileError, match="cannot be read"):
        read_shards(tmp_path)


def test_the_batch_that_ends_a_run_is_kept(tmp_path, textures):
    run = trainer(tmp_path, textures, samples=1000)
    good = run.chunk
    run.chunk = lambda step, index: dataclasses.replace(good(step, index), frame1=torch.full((1, 3, 64, 64), math.nan))
    with pytest.raises(TrainingError, match=r"bad-batch-0\.pt"):
        run.run()
    kept = torch.load(tmp_path / "bad-batch-0.pt", weights_only=True)
    assert kept["step"] == run.step and len(kept["parts"]) == 2
    assert kept["parts"][1]["frame1"].isnan().all() and kept["parts"][1]["flow"].isfinite().all()


SHARED = ["shrink=100000", "batch=4", "height=64", "width=64", "rate_factor=10"]

DISTRIBUTED = f"""
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from featherflow.data import TextureBank
from featherflow.training import changed_recipe, loop
loop.REPORT_EVERY = 1
bank = TextureBank.procedural(8, 96, torch.Generator().manual_seed(0))
run = loop.Trainer(changed_recipe("paper/liteflownetx", {SHARED}), Path(sys.argv[1]), bank)
run.run(samples=20)
run.processes.leave()
"""


def test_two_processes_follow_the_curve_of_one_with_the_doubled_batch(tmp_path, textures, monkeypatch):
    """Two Gloo processes, two pairs each, across a border of stages; one process, four pairs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", DISTRIBUTED, str(tmp_path / "two")]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]
    processes = [subprocess.Popen(command, env={**os.environ, **group, **rank}) for rank in ranks]
    monkeypatch.setattr("featherflow.training.loop.REPORT_EVERY", 1)
    Trainer(changed_recipe("paper/liteflownetx", SHARED), tmp_path / "one", textures).run(samples=20)
    assert [process.wait(150) for process in processes] == [0, 0]
    one, two = ([json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("one", "two"))
    assert len(one) == len(two) == 5 and one[-1]["stage"] == "R6"
    for a, b in zip(one, two, strict=True):
        assert (a["step"], a["rate"]) == (b["step"], b["rate"])
        assert [b[key] for key in ("loss", "epe", "norm")] == pytest.approx([a[key] for key in ("loss", "epe", "norm")], rel=1e-4)
    assert one[-1]["loss"] != one[0]["loss"]


def test_a_batch_must_come_out_even(tmp_path, textures):
    with pytest.raises(InputError, match="come out even"):
        trainer(tmp_path, textures, batch=3)


def test_chunks_change_the_memory_and_not_the_gradient(tmp_path, textures, shared_data):
    """One chunk of four pairs, and four of one, over the same pairs: gradients accumulate to the same sum."""
    root = layouts.ALL["middlebury"](tmp_path / "data", shared_data)
    runs = []
    for chunks in (1, 4):
        changes = {"batch": 4, "chunks": chunks, "precision": "float32", "seed": 1}
        recipe = dataclasses.replace(changed_recipe("paper/liteflownetx", ["height=64", "width=64"]), **changes)
        run = Trainer(recipe, tmp_path / str(chunks), data={"middlebury": root})
        run.source.augmentation = None  # whose draws go by chunk
        runs.append(run.train_step())
    keys = ("loss", "epe", "norm")
    assert [runs[1][key] for key in keys] == pytest.approx([runs[0][key] for key in keys], rel=1e-3)


def test_training_on_read_pairs_resumes_exactly(tmp_path, textures, shared_data):
    root = layouts.ALL["flyingchairs"](tmp_path / "chairs", shared_data)
    recipe = changed_recipe("paper/liteflownetx", ["shrink=75000", "batch=2", "height=64", "width=128"])
    data = {"data": {"flyingchairs": root}}
    whole = Trainer(recipe, tmp_path / "whole", **data)
    whole.run(samples=12)
    for samples in (6, 6):
        piece = Trainer(recipe, tmp_path / "pieces", threads=1, **data)
        piece.run(samples=samples)
    assert same(weights_of(whole), weights_of(piece)) and whole.stage_name == "R6"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_narrow_types_learn_the_same_and_resume(tmp_path, textures, precision):
    wide = trainer(tmp_path / "wide", textures).train_step()
    run = trainer(tmp_path / precision, textures, precision=precision)
    if precision == "float16":
        run.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    found = run.train_step()
    assert found["loss"] == pytest.approx(wide["loss"], rel=0.05) and found["loss"] != wide["loss"]
    if precision == "float16":
        assert run.scaler.is_enabled() and found["norm"] == pytest.approx(wide["norm"], rel=0.1)
        run.scaler.update(512.0)
        run.save()
        assert trainer(tmp_path / precision, textures, precision=precision).scaler.get_scale() == 512.0


def test_an_overflow_in_float16_is_skipped_and_the_scale_falls(tmp_path, textures):
    run = trainer(tmp_path, textures, precision="float16")
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = weights_of(run)
    assert "skipped" in run.train_step() and run.scaler.get_scale() == 2.0**39 and same(before, weights_of(run))


def test_compiled_runs_give_the_same(tmp_path, textures):
    """Through torch.compile's own graph capture; the backend that makes kernels is the user's choice."""
    plain = trainer(tmp_path / "plain", textures, chunks=1).train_step()
    captured = trainer(tmp_path / "captured", textures, {"compile": "eager"}, chunks=1).train_step()
    assert [captured[k] for k in ("loss", "epe", "norm")] == pytest.approx([plain[k] for k in ("loss", "epe", "norm")], rel=1e-4)


def test_the_plan_counts_what_a_step_keeps():
    """More pairs at once keep more, a stage with more levels too; and all of it is at least the weights' copies."""
    stages = plan(changed_recipe("paper/liteflownetx", ["height=64", "width=64"]))
    assert [stage.name for stage in stages] == ["S6", "R6", "SR5", "SR4", "SR3", "SR2"]
    kept = [stage.chunk_mib for stage in stages]
    assert kept == sorted(kept) and kept[0] > 0
    doubled = plan(changed_recipe("paper/liteflownetx", ["height=64", "width=128"]))
    assert doubled[-1].chunk_mib == pytest.approx(2 * kept[-1], rel=0.1)
    assert stages[-1].memory_mib(2) == pytest.approx(stages[-1].state_mib + 2 * kept[-1])
    assert stages[-1].state_mib == pytest.approx(6 * 4 * stages[-1].parameters / 2**20)


def test_shards_are_on_the_disk_before_the_index_names_them(tmp_path, monkeypatch):
    """For a power cut: every file is synced before it comes into its place."""
    import os

    happened = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (happened.append("sync"), sync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda old, new: (happened.append(os.path.basename(new)), replace(old, new))[1])
    others = [tmp_path / name for name in ("state-of-the-art.safetensors", "state-000.safetensors")]
    for path in others:
        path.write_bytes(b"somebody else's")
    files = write_shards(tmp_path, {"a": torch.ones(4), "b": torch.ones(300)}, limit=1000)
    assert all(path.exists() for path in others)
    names = [event for event in happened if event != "sync"]
    assert names == [path.name for path in files] and names[-1] == "state.json"
    assert all(happened[happened.index(name) - 1] == "sync" for name in names)
