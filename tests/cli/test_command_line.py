"""The command as people use it: what it writes, what it says, and how it fails."""

import contextlib
import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time
import wave

import numpy as np
import pytest
from helpers import run_command, small_weights, write_frames
from PIL import Image

from featherflow.flow import read_flow


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_frames(tmp_path, 3)
    return tmp_path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_weights(tmp_path_factory.mktemp("weights") / "x.safetensors")


def test_estimate_writes_flow_picture_backward_and_occlusion(work, weights, capsys):
    code = run_command(
        "estimate",
        "frame0.png",
        "frame1.png",
        "-o",
        "out.flo",
        "--picture",
        "out.png",
        "--model",
        "liteflownetx",
        "--weights",
        weights,
        "--scale",
        "5",
        "--backward",
        "--occlusion",
        "--json",
    )
    assert code == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["width"], said["height"], said["picture_scale_px"]) == (80, 64, 5.0)
    flow = read_flow("out.flo")
    assert flow.shape == (64, 80, 2)
    assert said["mean_length_px"] == pytest.approx(float(np.hypot(*flow.transpose(2, 0, 1)).mean()), abs=1e-3)
    assert read_flow("out_backward.flo").shape == (64, 80, 2)
    assert Image.open("out_occlusion.png").size == (80, 64)
    assert float(Image.open("out.png").text["featherflow:flow-scale-px"]) == 5.0


def test_estimate_writes_confidence_and_leaves_out_what_has_little(work, capsys):
    pytest.importorskip("cv2")
    base = ("estimate", "frame0.png", "frame1.png", "--model", "farneback")
    assert run_command(*base, "-o", "out.flo", "--confidence", "--json") == 0
    assert json.loads(capsys.readouterr().out)["confidence"] == "out_confidence.png"
    picture = Image.open("out_confidence.png")
    assert picture.mode.startswith("I;16")
    levels = np.asarray(picture).astype(float) / 65535
    assert run_command(*base, "-o", "all.npz", "--confidence") == 0 and not os.path.exists("all_confidence.png")
    confidence = np.load("all.npz")["confidence"]
    assert confidence.shape == (64, 80) and confidence.dtype == np.float32 and 0 <= confidence.min() < confidence.max() <= 1
    np.testing.assert_allclose(levels, confidence, atol=1e-5)
    least = float(np.median(confidence))
    whole = read_flow("out.flo")
    for name in ("some.flo", "some.png", "some.npz"):
        assert run_command(*base, "-o", name, "--picture", "picture.png", "--min-confidence", least) == 0
        some = read_flow(name)
        np.testing.assert_array_equal(np.isnan(some[..., 0]), confidence < least)
        np.testing.assert_allclose(some[confidence >= least], whole[confidence >= least], atol=1 / 64)
    assert (np.asarray(Image.open("picture.png"))[confidence < least] == 0).all()
    assert run_command("estimate", "*.png", "-o", "flows", "--model", "farneback", "--confidence", "--format", "npz") == 0
    assert sorted(os.listdir("flows"))[:1] == ["frame0.npz"] and "confidence" in np.load("flows/frame0.npz")
    capsys.readouterr()
    assert run_command(*base, "-o", "no.flo", "--min-confidence", "1.5") == 2 and "1.5" in capsys.readouterr().err
    assert run_command(*base, "--picture", "no.png", "--confidence") == 2 and not os.path.exists("no.png")


@pytest.mark.parametrize("source", [".", "*.png"])
def test_estimate_along_a_folder_or_glob(work, source, capsys):
    pytest.importorskip("cv2")
    assert run_command("estimate", source, "-o", "flows", "--picture", "pictures", "--model", "farneback") == 0
    assert sorted(os.listdir("flows")) == ["frame0.flo", "frame1.flo"]
    assert sorted(os.listdir("pictures")) == ["frame0.png", "frame1.png"]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_weights_in_a_file_work_with_nothing_else_registered(work, weights):
    chosen = ("--weights", weights, "--model", "liteflownetx")
    assert run_command("estimate", "frame0.png", "frame1.png", "-o", "out.flo", *chosen) == 0


def bad_files(folder):
    (folder / "text.png").write_text("this is no picture\n")
    (folder / "empty.png").write_bytes(b"")
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(300))
    with wave.open(str(folder / "sound.mp4"), "wb") as sound:
        sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(8000), sound.writeframes(bytes(4000))
    (folder / "cut.png").write_bytes((folder / "frame0.png").read_bytes()[:900])
    (folder / "cut.flo").write_bytes(struct.pack("<fii", 202021.25, 80, 64) + b"\0" * 100)
    (folder / "huge.flo").write_bytes(struct.pack("<fii", 202021.25, 50_000, 20_000) + b"\0" * 100)
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (64, 64)).save(folder / "small.png")
    nan = np.full((64, 80), 0.5, np.float32)
    nan[3, 3] = np.nan
    Image.fromarray(nan).save(folder / "nan.tif")


BAD_INPUT = {
    "missing file": (("estimate", "frame0.png", "none.png", "-o", "o.flo"), 3, "none.png"),
    "text file named .png": (("estimate", "frame0.png", "text.png", "-o", "o.flo"), 3, "text.png"),
    "zero bytes": (("estimate", "frame0.png", "empty.png", "-o", "o.flo"), 3, "empty"),
    "truncated image": (("estimate", "frame0.png", "cut.png", "-o", "o.flo"), 3, "cut.png"),
    "different sizes": (("estimate", "frame0.png", "small.png", "-o", "o.flo"), 2, "80x64 and 64x64"),
    "1x1": (("estimate", "dot.png", "dot.png", "-o", "o.flo"), 2, "1x1"),
    "NaN image": (("estimate", "nan.tif", "nan.tif", "-o", "o.flo"), 2, "NaN or infinite"),
    "unknown model": (("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--model", "raftt"), 2, "raftt"),
    "unknown suffix": (("estimate", "frame0.png", "frame1.png", "-o", "o.xyz"), 2, "o.xyz"),
    "missing folder": (("estimate", "frame0.png", "frame1.png", "-o", "no/such/o.flo", "--model", "farneback"), 3, "no/such"),
    "target is a folder": (("estimate", "frame0.png", "frame1.png", "-o", "."), 3, "is a folder"),
    "nothing to write": (("estimate", "frame0.png", "frame1.png"), 2, "-o"),
    "one frame": (("estimate", "frame0.png", "-o", "o.flo"), 2, "single frame"),
    "three frames": (("estimate", "frame0.png", "frame1.png", "frame2.png", "-o", "o.flo"), 2, "got 3"),
    "empty glob": (("estimate", "none*.png", "-o", "flows"), 2, "0 image(s)"),
    "negative scale": (("estimate", "frame0.png", "frame1.png", "--picture", "p.png", "--scale", "-1"), 2, "-1"),
    "bad dtype": (("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--dtype", "int4"), 2, "int4"),
    "missing weights": (("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--weights", "none.safetensors"), 3, "none"),
    "foreign weights": (("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--weights", "frame0.png"), None, "frame0.png"),
    "a clip in place of frames": (("estimate", "clip.mp4", "-o", "flows"), 3, "`featherflow video`"),
    "a clip in place of a frame": (("estimate", "frame0.png", "clip.mp4", "-o", "o.flo"), 3, "`featherflow video`"),
    "sound in place of a clip": (("video", "sound.mp4", "-o", "o.mkv"), 3, "it is damaged, cut short or no video"),
    "no name of a model": (("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--model", ""), 2, "name of the model is empty"),
    "unknown option": (("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--modle", "dis"), 2, "Unknown option: --modle"),
    "unknown verb": (("estimat", "frame0.png"), 2, 'Unknown command "estimat"'),
    "a word too many": (("models", "\x1b[2J"), 2, "nothing is done with \\x1b[2J"),
    "no number": (("piv", "frame0.png", "frame1.png", "-o", "x.csv", "--dt", "\x1b[2J"), 2, 'unable to convert "\\x1b[2J"'),
    "no value": (("estimate", "frame0.png", "frame1.png", "-o"), 2, "requires an argument"),
    "no source": (("video",), 2, "requires an argument"),
    "no samples": (("evaluate", "."), 3, "no pair"),
    "unknown recipe": (("train", "modern/raftt", "--run", "r"), 2, "modern/raftt"),
    "unknown number": (("train", "modern/liteflownetx", "--run", "r", "--set", "speed=9"), 2, "speed"),
    "number of wrong type": (("train", "modern/liteflownetx", "--run", "r", "--set", "batch=many"), 2, "many"),
    "no equals sign": (("train", "modern/liteflownetx", "--run", "r", "--set", "batch"), 2, "KEY=VALUE"),
}


@pytest.mark.parametrize("key", BAD_INPUT)
def test_bad_input_ends_in_one_sentence(work, key, capsys):
    arguments, expected, said = BAD_INPUT[key]
    if "farneback" in arguments:
        pytest.importorskip("cv2")
    bad_files(work)
    before = sorted(os.listdir(work))
    code = run_command(*arguments)
    error = capsys.readouterr().err.strip()
    assert code == expected if expected else code not in (0, 1)
    assert said in error and len(error.splitlines()) == 1 and "Traceback" not in error
    assert sorted(os.listdir(work)) == before


@pytest.mark.parametrize("name, said", [("cut.flo", "cut.flo"), ("huge.flo", "huge.flo"), ("empty.flo", "empty.flo")])
def test_bad_flow_files_are_named(work, name, said):
    from featherflow.errors import FileError

    bad_files(work)
    (work / "empty.flo").write_bytes(b"")
    with pytest.raises(FileError, match=said):
        read_flow(name)


def test_unwritable_target_keeps_the_old_file(work, capsys, monkeypatch):
    pytest.importorskip("cv2")
    assert run_command("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--model", "farneback") == 0
    old = (work / "o.flo").read_bytes()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert run_command("estimate", "frame1.png", "frame0.png", "-o", "o.flo", "--model", "farneback") == 3
    assert "permission is denied" in capsys.readouterr().err
    assert (work / "o.flo").read_bytes() == old and not [name for name in os.listdir() if "tmp" in name or name.startswith(".")]


def test_full_disk_is_one_sentence(work, capsys, monkeypatch):
    """Writing fails half way with ENOSPC: one sentence, the old file intact, no leftovers."""
    pytest.importorskip("cv2")
    from featherflow import flow

    (work / "o.flo").write_bytes(b"old")

    class FullDisk:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    original = flow.files.atomic_write

    @contextlib.contextmanager
    def full(path):
        with original(path) as file:
            yield FullDisk(file)

    monkeypatch.setattr(flow.files, "atomic_write", full)
    assert run_command("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--model", "farneback") == 3
    error = capsys.readouterr().err.strip()
    assert "the disk is full" in error and len(error.splitlines()) == 1
    assert (work / "o.flo").read_bytes() == b"old" and not [name for name in os.listdir() if name.startswith(".")]


@pytest.mark.parametrize(
    "verb",
    [(), ("estimate",), ("demo",), ("evaluate",), ("models",), ("train",), ("serve",), ("app",), ("weights",), ("data",)],
)
def test_help_shows_an_example(verb, capsys):
    assert run_command(*verb, "--help") == 0
    assert "Example" in capsys.readouterr().out


def test_models_lists_every_network(capsys):
    from featherflow import networks

    assert run_command("models", "--json") == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(networks.names()) <= set(listed)
    assert listed["liteflownetx"]["parameters"] == 902_855


def test_interruption_leaves_130_and_one_line(tmp_path):
    """Ctrl-C while a long estimate runs, in a process of its own."""
    write_frames(tmp_path, 80, 320, 448)
    small_weights(tmp_path / "w.safetensors")
    command = [
        sys.executable,
        "-m",
        "featherflow",
        "estimate",
        str(tmp_path),
        "-o",
        str(tmp_path / "flows"),
        "--model",
        "liteflownetx",
        "--weights",
        str(tmp_path / "w.safetensors"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "flows").glob("*.flo")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and error.strip().splitlines()[-1].startswith("featherflow: interrupted")
    assert all(read_flow(path).shape == (320, 448, 2) for path in (tmp_path / "flows").glob("*.flo"))


def test_packed_textures_train(work, capsys):
    """One file from photos; the trainer takes it."""
    words = ("data", "pack", ".", "--output", "textures.st", "--drawn", "4", "--particles", "2", "--size", "64")
    assert run_command(*words) == 0
    assert "9 textures" in capsys.readouterr().out and os.path.getsize("textures.st") < 30_000_000
    small = [word for change in ("height=64", "width=64", "batch=2", "chunks=1") for word in ("--set", change)]
    assert run_command("train", "modern/liteflownetx", "--run", "r", "--textures", "textures.st", "--samples", "2", *small) == 0


def test_data_render_writes_pairs_and_a_sheet(work, capsys):
    assert run_command("data", "render", "samples", "--count", "2", "--height", "64", "--width", "96", "--depth", "1") == 0
    assert sorted(os.listdir("samples")) == ["flow", "frames", "occlusions", "sheet.png"]
    assert read_flow("samples/flow/00001/frame1.flo").shape == (64, 96, 2)
    assert Image.open("samples/sheet.png").size == (96 * 4, 64 * 2)


@pytest.mark.parametrize("said, meant", [("diss", "dis"), ("farnebck", "farneback"), ("liteflownet2-slm", "liteflownet2-slim")])
def test_a_slip_of_the_pen_is_seen_among_all_models(work, said, meant, capsys):
    assert run_command("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--model", said) == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["raft", "pwcnet"])
def test_the_cure_for_missing_weights_is_one_that_works(work, name, capsys):
    assert run_command("estimate", "frame0.png", "frame1.png", "-o", "o.flo", "--model", name) == 4
    error = capsys.readouterr().err
    assert f"--as {name}" in error and "fetch" not in error


VERBS = (
    "demo",
    "estimate",
    "video",
    "interpolate",
    "stabilise",
    "magnify",
    "tracks",
    "evaluate",
    "bench",
    "export",
    "tables",
    "models",
)


@pytest.mark.parametrize("verb", [*VERBS, "train", "serve", "app", "data check", "weights import"])
def test_help_shows_examples_of_its_own(verb, capsys):
    assert run_command(*verb.split(), "--help") == 0
    shown = capsys.readouterr().out
    lines = " ".join(line.strip() for line in shown.splitlines())
    examples = lines.split("Example: ")[1:]
    assert examples and all(f"featherflow {verb}" in example[:110] for example in examples)
    assert "--empty-" not in shown
    if verb == "data check":
        assert "frames/*.png" in shown


def test_the_command_in_a_report_can_be_pasted(tmp_path, capsys):
    import html
    import re
    import shlex

    root = tmp_path / "my pairs"
    assert run_command("data", "render", root, "--count", "1", "--height", "64", "--width", "64") == 0
    command = ("evaluate", "--data", f"folder={root}", "--model", "horn-schunck", "--html", tmp_path / "a.html")
    assert run_command(*command) == 0
    note = html.unescape(re.search(r"<p class=note>(.*?)</p>", (tmp_path / "a.html").read_text())[1])
    words = shlex.split(note)
    assert words[:2] == ["featherflow", "evaluate"] and f"folder={root}" in words
    assert run_command(*words[1:]) == 0


@pytest.mark.parametrize("place", ["input", "output", "picture"])
def test_names_that_are_too_long_are_one_sentence(tmp_path, capsys, place):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    names = {
        "input": tmp_path / "a.png",
        "output": tmp_path / "x.flo",
        "picture": tmp_path / "x.png",
        place: tmp_path / ("x" * 300),
    }
    arguments = ("estimate", names["input"], tmp_path / "a.png", "-o", names["output"], "--picture", names["picture"])
    assert run_command(*arguments, "--model", "horn-schunck") != 0
    error = capsys.readouterr().err.strip()
    assert "too long" in error and "\n" not in error and not (tmp_path / "x.flo").exists()


def test_a_progress_bar_leaves_nothing_where_there_is_no_terminal(tmp_path, capfd):
    write_frames(tmp_path, 3)
    assert run_command("estimate", tmp_path, "-o", tmp_path / "flows", "--model", "horn-schunck") == 0
    assert capfd.readouterr().err.count("\n") == 1  # the totals


@pytest.mark.parametrize("height", [0, -3, 15])
def test_a_network_is_not_exported_for_frames_that_cannot_be(height, tmp_path, capsys):
    assert run_command("export", "liteflownet2-slim", "-o", tmp_path / "a.onnx", f"--height={height}") == 2
    assert f"got 1024x{height}" in capsys.readouterr().err and not list(tmp_path.iterdir())
