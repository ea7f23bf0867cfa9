"""The Dockerfile, by what it says: pinned bases, no privileges, nothing from elsewhere but packages, a command that exists."""

import json
import re
from pathlib import Path

import pytest

from featherflow.cli import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """Instruction and its text, lines joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


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
    assert program == "featherflow" and bound.arguments["host"] == "0.0.0.0"
    assert str(bound.arguments["port"]) == last(steps, "EXPOSE")
    assert f":{bound.arguments['port']}/healthz" in last(steps, "HEALTHCHECK")
