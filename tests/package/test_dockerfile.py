"""The Dockerfile, by what it says: pinned bases, no privileges, nothing from elsewhere but packages, a command that exists."""

import json
import re
import sys
from pathlib import Path

import pytest

from featherflow.cli import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch):
    """The script that executes the steps, as root."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import docker_steps

    yield docker_steps
    sys.modules.pop("docker_steps")


@pytest.fixture
def steps(script) -> list[tuple[str, str]]:
    """Instruction and its text, lines joined, comments left out."""
    return script.instructions(ROOT / "Dockerfile")


def test_the_script_that_executes_the_steps_knows_all_of_them(script, steps):
    assert {name for name, _ in steps} >= {"FROM", "COPY", "RUN", "USER", "ENTRYPOINT"}
    assert all(hasattr(script.BuiltImage, f"_{name.lower()}") for name, _ in steps)
    assert script.allowed("src") and script.allowed("LICENSE") and not script.allowed("tests") and not script.allowed(".git")


def last(steps, instruction: str) -> str:
    return [text for name, text in steps if name == instruction][-1]


def test_bases_are_pinned_and_nothing_is_added_from_an_address(steps):
    assert all(re.match(r"python:3\.\d+-slim-\w+( AS \w+)?$", text) for name, text in steps if name == "FROM")
    assert not [text for name, text in steps if name == "ADD" or "curl" in text or "wget" in text]
    assert not [text for name, text in steps if name in ("ENV", "ARG") and re.search("token|secret|password", text, re.IGNORECASE)]


def test_it_runs_as_a_user_without_privileges(steps):
    order = [name for name, _ in steps]
    user = last(steps, "USER").partition(":")[0]
    assert user.isdecimal() and int(user) > 0  # a number, so that a cluster can see that it is not root
    assert f"--uid {user}" in last(steps, "RUN")
    after = order[len(order) - order[::-1].index("USER") :]
    assert "RUN" not in after and "COPY" not in after


def test_what_is_copied_is_there_and_not_ignored(steps):
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [word for name, text in steps if name == "COPY" and "--from" not in text for word in text.split()[:-1]]
    assert copied and all((ROOT / name).exists() and f"!{name}" in ignored for name in copied)


def test_the_extras_that_it_installs_exist(steps):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    (extras,) = re.findall(r"\"\.\[([\w,]+)\]\"", " ".join(text for name, text in steps if name == "RUN"))
    assert set(extras.split(",")) <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_its_command_is_one_and_the_port_is_the_one_that_is_checked(steps):
    program, *arguments = json.loads(last(steps, "ENTRYPOINT"))
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    (options,) = bound.arguments.values()
    assert program == "featherflow" and options.host == "0.0.0.0"
    assert str(options.port) == last(steps, "EXPOSE")
    assert f":{options.port}/healthz" in last(steps, "HEALTHCHECK")
