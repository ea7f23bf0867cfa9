"""Messages: would catch one that moves a terminal's cursor, fills a screen, or cannot be printed."""

import pickle

import pytest

from featherflow.errors import FileError, InputError, WeightsError, printable


@pytest.mark.parametrize("kind", [FileError, InputError, WeightsError])
def test_messages_are_safe_to_print(kind):
    message = str(kind("layer '\x1b[2J\x9b\n\u202e\udc80' of " + "9" * 4000))
    assert message == r"layer '\x1b[2J\x9b\n\u202e\udc80' of 99999999...9999"
    assert str(pickle.loads(pickle.dumps(kind("of a process")))) == "of a process"


def test_what_people_write_stays():
    for text in ("Straße 東京 — 1,024 px.", "Screenshot 9.41\u202fAM.png", "12345678901234567890"):
        assert printable(text) == text


def test_long_texts_lose_their_middle():
    text = "begin " + "x" * 10_000 + " end"
    assert len(printable(text)) <= 2000 and printable(text).startswith("begin") and printable(text).endswith("end")
