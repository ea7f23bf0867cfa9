"""What README and manual show is run: Python blocks, and the commands of shell blocks, on small frames made for it.

Commands that need what a test has not are named in `NOT_RUN` with the reason; of these, `featherflow` commands are still parsed, so
that no page shows an option that there is not, and scripts have to exist.
"""

import re
import shlex
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import moving, write_clip
from helpers import run_command, small_weights
from particle_images import write_recordings
from PIL import Image

from featherflow import write_flow
from featherflow.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Commands that are not run, by a pattern, and why. Each pattern has to fit a command somewhere.
NOT_RUN = {
    r"pip install|^python3 -m venv|^\.venv/bin/": "installs packages; .ci/run does it",
    r"^docker ": "needs Docker",
    r"^(\w+=\S+ )*(python benchmarks/|python -m (featherflow\.training|fuzz\.)|torchrun )": "measures or trains for up to hours",
    r"^featherflow train (?!--list|modern/\S+ --dry-run)": "trains; tests/training",
    r"^(\w+=\S+( -hex 24\))? )*featherflow (app|serve)\b": "answers until it is stopped; tests/app",
    r"^(curl|schemathesis) |^python -c .* curl ": "asks a service that has to run; tests/app",
    r"^featherflow bench ": "times networks for a minute and more; tests/evaluation",
    r"^featherflow scale |^ray start": "needs the extra scale; tests/scale",
    r"^featherflow export |--engine ": "compiles a network for a minute and more; tests/engines",
    r"hf://": "needs a repository on the Hub; tests/weights/test_hub.py",
    r"^featherflow weights (fetch|import) ": "needs a published file; tests/weights",
    r"^featherflow (evaluate|tables) (?!--data folder=own-pairs)|^featherflow data check (?!folder own-pairs)": (
        "needs a benchmark, which may not be passed on; tests/evaluation and tests/data"
    ),
    r"^featherflow data (pack|heldback) ": "makes hundreds of textures or pairs; tests/data",
    r"^featherflow piv .*--quiver ": "needs the extra piv; run by test_fluids_page.py",
    r"^ffmpeg ": "needs the program FFmpeg; tests/video",
    r"^trtexec ": "needs a GPU and TensorRT",
}
#: Pages whose Python blocks are not run here, and why.
PYTHON_NOT_RUN = {
    "training.md": "needs particle images; run by test_training_page.py where they are",
    "lineage.md": "run by test_lineage_page.py, which looks at what comes out",
    "algebra.md": "run by test_algebra_page.py, which looks at what comes out",
    "fluids.md": "run by test_fluids_page.py, which looks at what comes out",
    "speed.md": "compiles a network for a minute and more; tests/engines",
}
#: First words of a line that make it a command, in blocks that do not say that they are shell.
_PROGRAMS = ("featherflow", "python", "python3", "pip", "curl", "ffmpeg", "torchrun", "schemathesis", "trtexec", "docker")
_PLACEHOLDER = re.compile(r"\.\.\.|[\[|]|\b[A-Z]{4,}\b(?!=)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Code blocks in order, as (language or "", text): fenced ones, and those indented by four spaces after an empty line."""
    found, rest = [], page.read_text(encoding="utf-8")
    pattern = re.compile(r"^```(\w*)\n(.*?)^```$|(?:^\n)((?:^ {4}[^\n]*\n(?:\n(?= {4}))?)+)", re.MULTILINE | re.DOTALL)
    for language, fenced, indented in pattern.findall(rest):
        text = fenced or re.sub(r"^ {4}", "", indented, flags=re.MULTILINE)
        if not language and re.match(r"(from|import) ", text):
            language = "python"
        found.append((language, text))
    return found


def commands(page: Path) -> list[str]:
    """Commands of a page's shell blocks, each on one line and without its comment."""
    found = []
    for language, text in blocks(page):
        if language not in ("", "sh"):
            continue
        joined = re.sub(r"( \\|(?<= \|))\n\s*", " ", text)
        for line in joined.splitlines():
            command = re.sub(r"\s+#.*$", "", line).strip()
            words = [word for word in command.split() if not re.match(r"[A-Z_]+=", word)]
            if command and (language == "sh" or (words and words[0] in _PROGRAMS)):
                found.append(command)
    return found


def reason_not_to_run(command: str) -> str | None:
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, command)), None)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """The files that the pages speak of, small: two frames, folders of frames, photos, clips, pairs with true flow, weights."""
    folder = tmp_path_factory.mktemp("inputs")
    frames = moving(4, height=82, width=124)
    for name in ("clip", "frames", "photos", "own-pairs/frames", "own-pairs/flow", "home/weights"):
        (folder / name).mkdir(parents=True)
    for index, image in enumerate(frames):
        picture = Image.fromarray(image)
        picture.save(folder / "clip" / f"{index}.jpg")
        picture.save(folder / "photos" / f"{index}.jpg")
        picture.save(folder / "frames" / f"{index}.png")
    for index, image in enumerate(frames[:2]):
        Image.fromarray(image).save(folder / f"frame{index + 1}.png")
        Image.fromarray(image).save(folder / "own-pairs" / "frames" / f"{index}.png")
    write_flow(folder / "own-pairs" / "flow" / "0.flo", np.full((*frames[0].shape[:2], 2), (2, 1), np.float32))
    for name in ("clip", "shaky", "bridge", "original", "edited"):
        write_clip(folder / f"{name}.mp4", frames, [Fraction(k) for k in range(len(frames))], codec="mpeg4")
    write_clip(folder / "beam.mp4", frames, codec="mpeg4")
    write_clip(folder / "film.mp4", frames, codec="mpeg4", sound="aac")
    (folder / "list.csv").write_text("frame1,frame2,output\nframes/0.png,frames/1.png,first\nframes/0.png,frames/2.png\n")
    (folder / "runs").mkdir()
    for index, name in enumerate(("run_1_a", "run_1_b", "run_2_a", "run_2_b")):
        Image.fromarray(frames[index]).save(folder / "runs" / f"{name}.png")
    shutil.copy(ROOT / "hubconf.py", folder)
    write_recordings(folder)
    small_weights(folder / "home" / "weights" / "raft-things.safetensors", "raft", "things")
    return folder


@pytest.fixture
def workplace(inputs, tmp_path, monkeypatch) -> Path:
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATHERFLOW_HOME", str(tmp_path / "home"))
    return tmp_path


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=ids)
def test_commands(page, workplace, capsys):
    for command in commands(page):
        words = shlex.split(command, comments=True)
        if reason_not_to_run(command):
            scripts = [word for word in words if word.startswith("benchmarks/")]
            assert all((ROOT / script).is_file() for script in scripts), command
            if words[0] == "featherflow" and not _PLACEHOLDER.search(command):
                app.parse_args(words[1:], exit_on_error=False, print_error=False)
        else:
            assert words[0] == "featherflow", f"{command}: neither a command of featherflow nor in NOT_RUN"
            assert run_command(*words[1:]) == 0, f"{command}\n{capsys.readouterr().err}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in PYTHON_NOT_RUN and any(language == "python" for language, _ in blocks(page))],
    ids=ids,
)
def test_python(page, workplace):
    names = {"frames": sorted(str(path) for path in Path("frames").iterdir())}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), names)


def test_the_tables_of_what_is_not_run_are_needed():
    shown = [command for page in PAGES for command in commands(page)]
    assert not [pattern for pattern in NOT_RUN if not any(re.search(pattern, command) for command in shown)]
    assert sum(reason_not_to_run(command) is None for command in shown) > 30
    assert set(PYTHON_NOT_RUN) <= {page.name for page in PAGES if any(language == "python" for language, _ in blocks(page))}
