"""The process that Ray runs in, seen from outside: its lines, and its end before the work is done. Ray is played by a script."""

import json
import socket
import sys
import time

import pytest

from featherflow.errors import FeatherflowError, InputError
from featherflow.scale import ScaleJob, cluster
from featherflow.scale.job import Item
from featherflow.scale.session import Pool, Session

ITEMS = {3: Item(("a.mp4",), "a"), 5: Item(("b.mp4",), "b")}


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Puts a script in the place of the process; gives a session with it."""

    def put(script: str, **pool) -> Session:
        program = tmp_path / "python"
        program.write_text(f"#!{sys.executable}\nimport json, sys, time\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return Session(ScaleJob(target="out", verb="video"), Pool(run="x", **pool))

    return put


ECHO = """
request = json.loads(sys.stdin.readline())
print(json.dumps({"state": "joined"}))
for number, (sources, name, fault, span) in request["items"]:
    outcome = {"name": name, "status": "done", "frames": len(sources), "seconds": 1.0, "worker": request["job"]["verb"]}
    print(json.dumps({"state": "outcome", "number": number, "outcome": outcome}), flush=True)
"""
END = 'print(json.dumps({"state": "end", "seconds": 2.5}), flush=True); sys.stdin.read()'


def test_outcomes_come_with_their_numbers(play):
    session = play(ECHO + END)
    outcomes = dict(session.outcomes(ITEMS, alone=False))
    assert {number: outcome.name for number, outcome in outcomes.items()} == {3: "a", 5: "b"}
    assert outcomes[3].worker == "video" and session.seconds == 2.5


def test_a_cluster_that_is_lost_is_one_sentence_and_what_came_before_counts(play):
    session = play(ECHO + 'print("no more GCS", file=sys.stderr); sys.exit(1)')
    seen = []
    with pytest.raises(FeatherflowError, match=r"in the middle of the work.* \(no more GCS\)\. .*run the same command again"):
        for number, _ in session.outcomes(ITEMS, alone=False):
            seen.append(number)
    assert seen == [3, 5]


def test_one_that_does_not_read_is_told_too(play):
    with pytest.raises(FeatherflowError, match="in the middle of the work"):
        list(play("sys.exit(1)").outcomes({number: Item(("x" * 1000,), str(number)) for number in range(1000)}, alone=False))


@pytest.mark.parametrize(("kind", "error"), [("InputError", InputError), ("RayError", FeatherflowError)])
def test_what_it_refuses_is_raised(play, kind, error):
    session = play(f'print(json.dumps({{"state": "refused", "kind": "{kind}", "text": "No room."}}))')
    with pytest.raises(error, match=r"^No room\.$"):
        list(session.outcomes(ITEMS, alone=False))


def test_who_stops_listening_ends_it(play, tmp_path):
    session = play(ECHO + f'sys.stdin.read(); open("{tmp_path}/ended", "w")')
    began = time.monotonic()
    outcomes = session.outcomes(ITEMS, alone=False)
    next(outcomes)
    outcomes.close()
    assert (tmp_path / "ended").exists() and time.monotonic() - began < 30


def test_a_cluster_that_does_not_let_us_in_is_left(play, monkeypatch):
    monkeypatch.setattr("featherflow.scale.session._PATIENCE", 0.5)
    with pytest.raises(FeatherflowError, match=r"Ray at 'auto' does not answer within 0\.5 s"):
        list(play("time.sleep(60)", address="auto").outcomes(ITEMS, alone=False))


def test_a_port_that_nobody_listens_at_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(FeatherflowError, match=f"Ray at '{address}' does not answer: connection refused"):
            cluster._check_answers(address)


class Played:
    """A session whose items end as a table says, one entry for each time."""

    def __init__(self, table):
        self.table, self.pool, self.seconds, self.calls = table, Pool(run="x"), 1.0, []

    def outcomes(self, items, alone):
        from featherflow.scale.work import Outcome

        self.calls.append((sorted(items), alone))
        for number, item in items.items():
            if (status := self.table[number].pop(0)) != "lost":
                yield number, Outcome(item.name, status, "bad" if status == "failed" else None, 1, 1.0, "w")


def run_played(table, retries):
    session = Played(table)
    items = [Item((name,), name) for name in "abc"] + [Item(("d",), "d", "holds 1 image")]
    return cluster._run(items, session, retries, None), session.calls


def test_what_failed_is_tried_again_after_all_others_and_then_listed():
    result, calls = run_played([["done"], ["failed", "done"], ["failed", "failed", "done"]], retries=1)
    assert calls == [([0, 1, 2], False), ([1, 2], True)]
    assert (result.items, result.done) == (4, 2)
    failures = {failure.name: (failure.error, failure.attempts) for failure in result.failures}
    assert failures == {"d": ("holds 1 image", 0), "c": ("bad", 2)}


def test_what_died_is_tried_alone_once_even_without_retries():
    result, calls = run_played([["lost", "skipped"], ["lost", "lost"], ["done"]], retries=0)
    assert calls == [([0, 1, 2], False), ([0, 1], True)]
    assert (result.done, result.skipped) == (1, 1)
    assert [(failure.name, "died each time" in failure.error) for failure in result.failures] == [("d", False), ("b", True)]


def test_the_summary_is_json():
    result, _ = run_played([["done"], ["done"], ["skipped"]], retries=0)
    told = json.loads(json.dumps(result.as_dict()))
    assert (told["done"], told["skipped"], told["failed"], told["frames"], told["frames_per_core_hour"]) == (2, 1, 1, 2, 3600.0)
