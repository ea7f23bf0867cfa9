"""The page on refusals quotes what the program says: would catch a sentence that was reworded on one side only."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import featherflow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "refusals.md").read_text(encoding="utf-8")
#: What stands for a value: dots, what is in quotation marks, and numbers.
VALUES = re.compile(r"\.\.\.|'[^']*'|\d[\d.,x]*(?<![.,])")
ENOUGH = 0.6  # of a piece's letters must be the program's own words; the rest are words that it fills in, such as a file's role


def quoted() -> list[str]:
    """The sentences of the tables' first columns."""
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    return [sentence for row in rows for sentence in re.findall(r"`([^`]+)`", row) if not sentence.endswith("Error")]


@cache
def templates() -> list[list[str]]:
    """Each text of the program as the parts between what is filled in."""
    found = []
    for path in sorted(Path(featherflow.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                text = node.value
            else:
                continue
            found.append(re.sub(VALUES, "\0", text.replace("'\0'", "\0")).split("\0"))
    return found


def said(piece: str, parts: list[str]) -> int:
    """Letters of a piece of a sentence that a text says, with anything where it is filled in; 0 where it does not."""
    most = 0
    for index, part in enumerate(parts):
        if piece in part:
            return len(piece)
        for begun in [0, *(n for n in range(1, len(part) + 1) if piece.startswith(part[-n:]))]:
            place = matched = begun
            for following in parts[index + (begun > 0) :]:
                if not following:
                    continue
                at = piece.find(following, place)
                if at < 0:  # the piece may end in the middle of this part
                    ends = [n for n in range(1, len(following)) if piece.endswith(following[:n]) and len(piece) - n >= place]
                    matched += max(ends, default=0)
                    break
                matched, place = matched + len(following), at + len(following)
            most = max(most, matched)
    return most


def pieces(sentence: str) -> list[str]:
    return [piece.strip() for piece in VALUES.split(sentence) if len(piece.strip()) > 3]


@pytest.mark.parametrize("sentence", quoted())
def test_each_sentence_is_the_program_s(sentence):
    for piece in pieces(sentence):
        assert any(said(piece, parts) >= ENOUGH * len(piece) for parts in templates()), piece


def test_what_nothing_says_is_found():
    changed = "'...' cannot be cut short: it tells how long it takes"
    assert not all(any(said(piece, parts) >= ENOUGH * len(piece) for parts in templates()) for piece in pieces(changed))
    assert len(quoted()) > 35


def test_exit_codes_are_the_errors_own():
    from featherflow import errors

    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    codes = {name: int(code) for code, name in rows}
    ours = {name: error.exit_code for name, error in vars(errors).items() if getattr(error, "exit_code", None) and name in codes}
    assert ours == {name: code for name, code in codes.items() if name != "KeyboardInterrupt"}
