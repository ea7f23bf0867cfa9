"""`featherflow train` from names and paths: lists, plans, data from folders, pictures, curves."""

import json
import subprocess
import sys

import layouts
import numpy as np
import pytest
import torch
from helpers import run_command

from featherflow import estimate, networks
from featherflow.data import SceneConfig, find_pairs
from featherflow.images import read_image
from featherflow.training.validation import comparison
from featherflow.weights import WeightsInfo
from featherflow.weights.catalogue import BUNDLED
from featherflow.weights.store import save_weights

SMALL = [word for change in ("height=64", "width=64", "batch=2") for word in ("--set", change)]


def test_the_list_of_recipes(capsys):
    assert run_command("train", "--list", "--json") == 0
    listed = {entry["recipe"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["paper/liteflownet2"]["samples"] == 8 * 1_300_000 and listed["paper/liteflownet2"]["data"] == "flyingchairs"
    assert listed["paper/liteflownet2-ft-sintel"]["begins with"] == "paper/liteflownet2-things"
    assert run_command("train", "--list") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(listed)


def test_a_dry_run_shows_stages_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command("train", "paper/liteflownetx", "--dry-run", "--set", "shrink=1000", *SMALL, "--json") == 0
    stages = json.loads(capsys.readouterr().out)
    assert [stage["iterations"] for stage in stages] == [300, 300, 200, 200, 200, 300]
    assert all(stage["memory_mib"] > 0 for stage in stages) and stages[0]["rates"] == pytest.approx([1e-4, 6.25e-6])
    assert run_command("train", "paper/liteflownetx", "--dry-run", *SMALL) == 0
    said = capsys.readouterr().out
    assert "SR2" in said and "300,000" in said and list(tmp_path.iterdir()) == []


def test_one_s_own_pairs_with_pictures_and_curves(tmp_path, shared_data, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for name in ("train", "test"):
        layouts.ALL["folder"](tmp_path / name, shared_data)
    run = tmp_path / "run"
    code = run_command(
        "train",
        "modern/liteflownetx",
        "--run",
        run,
        "--data",
        f"folder={tmp_path / 'train'}",
        "--validate",
        f"folder={tmp_path / 'test'}",
        "--samples",
        "40",
        "--tensorboard",
        "--state-shards",
        tmp_path / "shards",
        *SMALL,
    )
    assert code == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines[0]["samples"] == 40 and list(lines[-1]["validation"]) == ["folder"]
    picture = read_image(run / "pictures/000000040-folder.png")
    pair = next(find_pairs("folder", tmp_path / "test")).read()
    height, width = pair.frame1.shape[:2]
    assert picture.shape == (height, 3 * width, 3) and np.array_equal(picture[:, :width], pair.frame1)
    curves = EventAccumulator(str(run / "tensorboard"))
    curves.Reload()
    tags = curves.Tags()
    assert "training/loss" in tags["scalars"] and tags["images"] == ["folder"]
    assert curves.Scalars("training/loss")[0].step == 40
    assert curves.Scalars("validation EPE [px] per_image/folder")[0].value == pytest.approx(lines[-1]["validation"]["folder"])
    assert (tmp_path / "shards/state.json").exists()


def test_fine_tuning_keeps_what_the_weights_say_of_themselves(tmp_path, shared_data):
    """Bundled weights see small frames at twice their size, and so do those that begin with them; other options are refused."""
    from featherflow import load

    root = layouts.ALL["piv"](tmp_path / "piv", shared_data)
    words = ["train", "modern/liteflownet2-slim", "--data", f"piv={root}", "--start", "liteflownet2-slim:procedural", *SMALL]
    assert run_command(*words, "--run", tmp_path / "run", "--samples", "2", "--set", "learning_rate=1e-9") == 0
    old, new = load("liteflownet2-slim"), load("liteflownet2-slim", weights=tmp_path / "run/weights.safetensors")
    assert new.weights_info.enlarge_below == old.weights_info.enlarge_below > 0 and new.weights_info.samples_seen == 2
    frame = next(find_pairs("piv", root)).read()
    expected, found = (estimate(frame.frame1, frame.frame2, model=network) for network in (old, new))
    assert np.abs(found - expected).max() < 0.05


def test_weights_with_other_options_are_refused(tmp_path, capsys):
    """They would load, and compute something else."""
    network = networks.build("liteflownet2-slim")
    save_weights(tmp_path / "plain.safetensors", network.state_dict(), WeightsInfo("liteflownet2-slim"))
    words = ("--run", tmp_path / "run", "--start", tmp_path / "plain.safetensors", *SMALL)
    assert run_command("train", "modern/liteflownet2-slim", *words) == 2
    assert "normalized_matching" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(path.stem.removesuffix("-procedural") for path in BUNDLED.glob("*.safetensors")))
def test_every_bundled_weight_file_begins_its_own_recipe(name, tmp_path, shared_data):
    """Whatever it asks for besides; octaves are the same weights applied more often."""
    root = layouts.ALL["piv"](tmp_path / "piv", shared_data)
    words = ("--data", f"piv={root}", "--start", f"{name}:procedural", *SMALL, "--samples", "2", "--set", "options.octaves=0")
    words = words if name != "liteflownet-tied" else words[:-2]
    assert run_command("train", f"modern/{name}", "--run", tmp_path / "run", *words) == 0


def test_a_part_of_other_weights_begins_a_network(tmp_path, shared_data):
    """LiteFlowNetX has the features of the narrow LiteFlowNet2 and other units; what is not taken is drawn."""
    from featherflow import load

    root = layouts.ALL["piv"](tmp_path / "piv", shared_data)
    words = ["train", "modern/liteflownetx", "--data", f"piv={root}", "--start", "liteflownet2-slim:procedural", *SMALL]
    parts = ["--only", "netc.*", "--only", "nete.level4.regularization.projection.weight"]
    assert run_command(*words, *parts, "--run", tmp_path / "run", "--samples", "2", "--set", "learning_rate=1e-9") == 0
    old = load("liteflownet2-slim").state_dict()
    new = load("liteflownetx", weights=tmp_path / "run/weights.safetensors").state_dict()
    both = [name for name in new if name in old and new[name].shape == old[name].shape]
    taken = {name for name in both if torch.allclose(new[name], old[name], atol=1e-3)}
    weights = {name for name in taken if name.endswith("weight") and "upflow" not in name}
    assert weights == {name for name in old if name.startswith("netc.") and name.endswith("weight")} | {parts[3]}


def test_the_true_flow_looks_like_the_true_flow(shared_data, tmp_path):
    example = next(find_pairs("folder", layouts.ALL["folder"](tmp_path, shared_data))).read()
    width = example.frame1.shape[1]
    perfect = comparison(example, np.nan_to_num(example.flow))
    same = (perfect[:, width : 2 * width] == perfect[:, 2 * width :]).all(axis=-1)
    assert same[example.valid].all()
    assert (comparison(example, 0 * np.nan_to_num(example.flow))[:, width : 2 * width] == 255).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Name a recipe"),
        (("modern/liteflownetx",), "--run FOLDER"),
        (("modern/liteflownetx", "--run", "r", "--data", "sintel"), "KIND=ROOT"),
        (("modern/liteflownetx", "--run", "r", "--data", "sintel=a", "--data", "sintel=b"), "given twice"),
        (("modern/liteflownetx", "--run", "r", "--data", "chairs=."), "no benchmark named 'chairs'"),
        (("modern/liteflownetx", "--run", "r", "--set", "precision=int8"), "no precision 'int8'"),
        (("modern/liteflownetx", "--run", "r", "--set", "optimizer=sgd"), "no optimizer 'sgd'"),
        (("modern/liteflownetx", "--run", "r", "--set", "batch=0"), "above 0"),
        (("modern/liteflownetx", "--run", "r", "--set", "batch=3"), "come out even"),
        (("modern/liteflownetx", "--run", "r", "--set", "height=63"), "multiples of 32"),
        (("modern/raft", "--run", "r", "--set", "width=100"), "multiples of 8"),
        (("modern/liteflownetx", "--run", "r", "--validate", "nowhere"), "no folder 'nowhere'"),
        (("modern/liteflownetx", "--run", "r", "--validate", "sintel=nowhere"), "no folder 'nowhere"),
        (("modern/liteflownetx", "--run", "r", "--data", "flyingchairs=nowhere"), "no folder 'nowhere"),
        (("modern/liteflownetx", "--run", "r", "--minutes", "nan"), "number of minutes must be more than 0"),
        (("modern/liteflownetx", "--run", "r", "--minutes", "-1"), "number of minutes must be more than 0"),
        (("modern/liteflownetx", "--run", "r", "--samples", "0"), "number of samples must be more than 0"),
        (("modern/liteflownetx", "--run", "r", "--validate-every", "nan"), "minutes between validations must be"),
        (("paper/liteflownet2-things", "--run", "r"), "begins with the weights that paper/liteflownet2 ends with"),
        (("modern/liteflownetx", "--run", "r", "--start", "liteflownetx:none"), "liteflownetx:none"),
        (("modern/liteflownetx", "--run", "r", "--only", "netc.*"), "weights of --start"),
        (("modern/liteflownetx", "--run", "r", "--start", "liteflownet2-slim", "--only", "net.*"), "named like 'net.*'"),
        (("modern/raft", "--run", "r", "--start", "liteflownet2-slim", "--only", "netc.*"), "does not fit"),
    ],
)
def test_mistakes_are_one_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command("train", *words) != 0
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())  # a run that does not begin leaves no folder


def test_torchrun_leaves_the_options_alone(tmp_path):
    """torchrun takes what its own options begin with; the names that the manual gives for it must get through."""
    from torch.distributed.run import get_args_parser

    words = ["-m", "featherflow.training", "modern/liteflownet2", "--folder", "r", "--weights", "w", "--set", "batch=4"]
    assert get_args_parser().parse_args(words).training_script_args == words[2:]


def test_training_needs_little(tmp_path):
    """As its docstring says, for machines that have PyTorch and nowhere to get more from."""
    code = (
        "import sys\n"
        "for name in ('cyclopts', 'platformdirs', 'filelock', 'png', 'cv2', 'av'): sys.modules[name] = None\n"
        "from featherflow.training.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["modern/liteflownet-tied", "--run", "r", "--samples", "2"]
    changes = [word for change in ("batch=2", "height=64", "width=64", "chunks=1") for word in ("--set", change)]
    done = subprocess.run([sys.executable, "-c", code, *words, *changes], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "weights.safetensors").exists()


def test_a_piece_ends_with_what_it_came_to(tmp_path, capsys):
    from helpers import run_command

    arguments = ("train", "modern/liteflownetx", "--run", tmp_path / "run", "--samples", "2")
    small = [word for change in ("batch=2", "height=64", "width=64", "chunks=1") for word in ("--set", change)]
    assert run_command(*arguments, *small) == 0
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert said.startswith("2 of ") and str(tmp_path / "run") in said
    (line,) = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert f"loss {line['loss']:.3f}" in said  # of a piece shorter than the usual distance of two lines of the log


def test_a_group_of_which_nothing_is_known_does_not_end_a_run(monkeypatch):
    """Its figure is not a number; before, the run ended hours into training."""
    from types import SimpleNamespace

    from featherflow.training import validation

    results = [SimpleNamespace(group=group, figures={"per_image": {"epe": epe}}) for group, epe in (("a", None), ("b", 1.23456))]
    monkeypatch.setattr(validation, "evaluate", lambda *_: SimpleNamespace(results=results))
    monkeypatch.setattr(validation, "Estimator", lambda *_, **__: None)
    found = validation.Validator([], "cpu")(None)
    assert np.isnan(found["a"]) and found["b"] == 1.2346


def test_what_is_watched_is_the_network_alone(tmp_path):
    """Weights that are refined by default, as those of the modern recipes are, are not when they are judged in training."""
    from featherflow.data.render import render_folder
    from featherflow.flow import read_flow
    from featherflow.training.validation import Validator
    from featherflow.weights import load

    render_folder(tmp_path, count=1, config=SceneConfig(height=128, width=192))
    (truth,) = tmp_path.glob("flow/*/frame1.flo")
    frames = [truth.parents[2] / "frames" / truth.parent.name / f"frame{k}.png" for k in (1, 2)]

    def error(refine: int) -> float:
        flow = estimate(*frames, model="liteflownet-tied", dtype="float32", refine=refine)
        return float(np.linalg.norm(flow - read_flow(truth), axis=-1).mean())

    (found,) = Validator([f"folder={tmp_path}"], "cpu")(load("liteflownet-tied")).values()
    assert found == pytest.approx(error(0), abs=2e-4)
    assert found != pytest.approx(error(1), abs=2e-4)


def test_a_checkpoint_of_another_network_is_called_so(tmp_path, capsys):
    torch.save({"recipe": {"network": "liteflownet-tied"}, "network": {}}, tmp_path / "checkpoint.pt")
    assert run_command("train", "modern/liteflownetx", "--run", tmp_path, "--samples", "2", *SMALL, "--set", "chunks=1") == 6
    assert "it is of a network liteflownet-tied, not liteflownetx" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_called_so(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut")
    assert (
        run_command("train", "modern/liteflownetx", "--run", tmp_path / "run", "--samples", "2", *SMALL, "--set", "chunks=1") == 6
    )
    said = capsys.readouterr().err.strip()
    assert "is damaged or cut short" in said and len(said.splitlines()) == 1 and "PytorchStreamReader" not in said
