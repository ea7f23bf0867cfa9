"""The cache of things that take long to make."""

import threading

import pytest

from featherflow.inference.few import Few


def test_the_least_recently_wanted_goes():
    few, made = Few(2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        assert few.get(key, lambda key=key: made.append(key) or key.upper()) == key.upper()
    assert made == ["a", "b", "c", "b"]


def test_of_threads_that_want_one_at_once_one_makes_it_and_others_do_not_wait():
    few, made, begun, go = Few(4), [], threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        assert go.wait(10)
        made.append(1)
        return len(made)

    told: list[int] = []
    threads = [threading.Thread(target=lambda: told.append(few.get("slow", slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    assert few.get("quick", lambda: 5) == 5  # while the other is being made
    go.set()
    for thread in threads:
        thread.join()
    assert told == [1] * 4


def test_what_could_not_be_made_is_tried_again():
    few = Few(2)

    def fail() -> int:
        raise OSError("no")

    with pytest.raises(OSError):
        few.get("a", fail)
    assert few.get("a", lambda: 1) == 1
