"""What hostile requests do to everyone else: slow clients, JPEG files of many scans, bombs of JSON, while small requests go on.

    python benchmarks/service_attacks.py --seconds 40

Starts `featherflow app` (the service with its page) on a free port. For each attack it prints the statuses that the attack got and
the longest wait for one, and of everyone else meanwhile: the slowest small request (two 96x64 frames), the slowest `/healthz`, and
how many failed. Memory is that of the service and its worker processes together (proportional set size), five times a second.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from service import frames

MIB = 1 << 20
MODEL = "dis-ultrafast"


class Watch:
    """Small requests, questions for health and samples of memory in the background, as long as the block lasts."""

    def __init__(self, address: str, process: int) -> None:
        self.address, self.process = address, process
        self.small, self.health, self.memory, self.failed = [], [], [], collections.Counter()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=target) for target in (self._ask, self._look, self._sample)]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        files = frames(64, 96)
        self._repeat(self.small, 0.2, lambda client: client.post(f"{self.address}/v1/flow", files=files))

    def _look(self) -> None:
        self._repeat(self.health, 0.2, lambda client: client.get(f"{self.address}/healthz"))

    def _repeat(self, waits: list[float], pause: float, ask: Callable[[httpx.Client], httpx.Response]) -> None:
        with httpx.Client(timeout=200) as client:
            while not self._end.wait(pause):
                started = time.monotonic()
                try:
                    status = ask(client).status_code
                except httpx.HTTPError as error:
                    status = type(error).__name__
                waits.append(time.monotonic() - started)
                if status != 200:
                    self.failed[status] += 1

    def _sample(self) -> None:
        while not self._end.wait(0.2):
            self.memory.append(memory(self.process))


def memory(process: int) -> float:
    """MiB of a process and its children, shared pages counted once."""
    numbers = [process]
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that is gone meanwhile
            numbers += [int(number) for number in (task / "children").read_text().split()]
    total = 0
    for number in numbers:
        try:
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        except OSError:  # gone meanwhile
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def many_scans(side: int, size: int) -> bytes:
    """A progressive JPEG of `side` x `side` pixels, whose last scan is repeated until it has `size` bytes."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((side, side)).save(out, "JPEG", progressive=True, quality=30)
    data = out.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * ((size - len(data)) // len(last)) + data[-2:]


def progressive(side: int) -> bytes:
    """An ordinary progressive JPEG of noise, the longest to decode of what is taken."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "JPEG", progressive=True, quality=90)
    return out.getvalue()


def slow(address: str, path: str, seconds: float) -> tuple[str, float]:
    """Send the head of a request for 4 MiB, then a byte a second; what was answered, and when."""
    host, port = address.removeprefix("http://").split(":")
    started = time.monotonic()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {4 * MIB}\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        connection.settimeout(1)
        while time.monotonic() - started < seconds:
            try:
                answer = connection.recv(4096)
                return (answer.split(b" ")[1].decode() if b" " in answer else "closed"), time.monotonic() - started
            except TimeoutError:
                try:
                    connection.sendall(b" ")
                except OSError:
                    return "closed", time.monotonic() - started
            except OSError:
                return "closed", time.monotonic() - started
    return "still open", time.monotonic() - started


def post(address: str, **what: object) -> tuple[str, float]:
    started = time.monotonic()
    try:
        status = str(httpx.post(f"{address}/v1/flow", timeout=300, **what).status_code)
    except httpx.HTTPError as error:
        status = type(error).__name__
    return status, time.monotonic() - started


def report(name: str, address: str, process: int, attacks: list[Callable[[], tuple[str, float]]]) -> None:
    before = memory(process)
    with Watch(address, process) as watch:
        if attacks:
            with ThreadPoolExecutor(len(attacks)) as pool:
                got = [future.result() for future in [pool.submit(attack) for attack in attacks]]
        else:
            got = []
        time.sleep(5)  # what comes after an attack counts too
    statuses = dict(collections.Counter(status for status, _ in got))
    longest = max((seconds for _, seconds in got), default=0)
    middle, slowest = np.median(watch.small), max(watch.small)
    print(
        f"{name}: {statuses}, longest {longest:.1f} s; small {middle:.2f} s median, {slowest:.2f} s slowest of {len(watch.small)}; "
        f"health {max(watch.health):.2f} s slowest; failed {dict(watch.failed)}; "
        f"memory {before:.0f} -> {max(watch.memory):.0f} MiB at the peak, {memory(process):.0f} after",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40, help="how long slow clients go on")
    arguments = parser.parse_args()
    words = [sys.executable, "-m", "featherflow", "app", "--no-browser", "--port", "0", "--model", MODEL]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        address = next(word for word in process.stderr.readline().split() if word.startswith("http")).rstrip("/.")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        scans, plain = many_scans(2048, int(7.8 * MIB)), progressive(2048)
        tiny = json.dumps({f"{number:x}": 0 for number in range(2_600_000)}).encode()[: int(31.7 * MIB)]
        body = {"content": tiny, "headers": {"Content-Type": "application/json"}}
        deep = {"content": b"[" * int(31 * MIB), "headers": {"Content-Type": "application/json"}}
        post(address, files=frames(64, 96))

        def pair(file: bytes) -> list[Callable[[], tuple[str, float]]]:
            return [lambda: post(address, files={"frame1": file, "frame2": file})] * 2

        for name, attacks in (
            ("nobody else", []),
            ("12 slow bodies", [lambda: slow(address, "/v1/flow", arguments.seconds)] * 12),
            ("12 slow clips", [lambda: slow(address, "/page/clip?name=a.mp4", arguments.seconds)] * 12),
            (f"2 pairs of JPEG files of many scans, {len(scans) / MIB:.1f} MiB", pair(scans)),
            (f"2 pairs of sound progressive JPEG files, {len(plain) / MIB:.1f} MiB", pair(plain)),
            (f"4 bombs of JSON, {len(tiny) / MIB:.1f} MiB", [lambda: post(address, **body)] * 4),
            ("4 of deep JSON, 31 MiB", [lambda: post(address, **deep)] * 4),
        ):
            report(name, address, process.pid, attacks)
    finally:
        process.terminate()
    print(f"service's exit code {process.wait(60)}, on {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
