"""What the service costs beside the library: errors, throughput against a plain loop, and memory, under load from another process.

    python benchmarks/service.py --model dis --requests 1000
    python benchmarks/service.py --model liteflownet2-slim --requests 1000 --height 96 --width 128

The loop decodes the same files, estimates, and encodes a .flo file, in one thread of a process of its own. Both take turns in
rounds, so that a machine that is busy with something else slows both alike; the ratio is that of the sums of their times.
"""

import argparse
import io
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
from PIL import Image


def frames(height: int, width: int) -> dict[str, bytes]:
    """Two noise frames that differ by a shift, as PNG files."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 4, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((width + 16, height), Image.Resampling.BICUBIC))
    files = {}
    for name, left in (("frame1", 8), ("frame2", 5)):
        file = io.BytesIO()
        Image.fromarray(image[:, left : left + width]).save(file, format="PNG")
        files[name] = file.getvalue()
    return files


def loop(model: str, files: dict[str, bytes], pipe) -> None:
    """Run so many pairs in a plain loop whenever asked, and say how long they took."""
    from featherflow import estimate
    from featherflow.flow import encode_flow
    from featherflow.images import decode_image

    while count := pipe.recv():
        started = time.perf_counter()
        for _ in range(count):
            frame1, frame2 = (decode_image(data) for data in files.values())
            encode_flow("flow.flo", estimate(frame1, frame2, model=model))
        pipe.send(time.perf_counter() - started)


def load(address: str, model: str, files: dict[str, bytes], at_once: int, pipe) -> None:
    """Send so many requests whenever asked, `at_once` at a time; give the seconds, the latencies and what went wrong."""
    import httpx

    clients = threading.local()

    def ask(_: int) -> tuple[float, str | None]:
        if not hasattr(clients, "client"):
            clients.client = httpx.Client(timeout=120)
        started = time.perf_counter()
        try:
            answer = clients.client.post(f"{address}/v1/flow", params={"model": model}, files=files)
            error = None if answer.status_code == 200 else f"{answer.status_code} {answer.text}"
        except httpx.HTTPError as failure:
            error = repr(failure)
        return time.perf_counter() - started, error

    with ThreadPoolExecutor(at_once) as pool:
        while count := pipe.recv():
            started = time.perf_counter()
            results = list(pool.map(ask, range(count)))
            latencies, errors = zip(*results, strict=True)
            pipe.send((time.perf_counter() - started, latencies, [error for error in errors if error]))


def resident(address: str) -> float:
    """MiB of the service's process, as it says itself."""
    import httpx

    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("process_resident_memory_bytes"))) / 2**20


def start(model: str) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "featherflow", "serve", "--port", "0", "--model", model], stderr=subprocess.PIPE, text=True
    )
    return process, process.stderr.readline().split()[3].rstrip("/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="liteflownet2-slim")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=128)
    arguments = parser.parse_args()

    files = frames(arguments.height, arguments.width)
    process, address = start(arguments.model)
    context = get_context("spawn")
    pipes, workers = {}, []
    for name, target, values in (
        ("loop", loop, (arguments.model, files)),
        ("load", load, (address, arguments.model, files, arguments.at_once)),
    ):
        pipes[name], other = context.Pipe()
        workers.append(context.Process(target=target, args=(*values, other), daemon=True))
        workers[-1].start()

    def run(name: str, count: int):
        pipes[name].send(count)
        return pipes[name].recv()

    each = arguments.requests // arguments.rounds
    run("loop", 5)
    run("load", 10 * arguments.at_once)  # until here, memory grows by what each thread and each size needs once
    before = resident(address)
    loop_seconds, load_seconds, latencies, errors = 0.0, 0.0, [], []
    for _ in range(arguments.rounds):
        loop_seconds += run("loop", each)
        seconds, some, wrong = run("load", each)
        load_seconds += seconds
        latencies += some
        errors += wrong
    after = resident(address)
    for pipe in pipes.values():
        pipe.send(0)
    process.terminate()

    total = each * arguments.rounds
    middle, late = np.percentile(latencies, (50, 99)) * 1000
    print(f"{arguments.model}, {arguments.width}x{arguments.height} px, {total} requests, {arguments.at_once} at once")
    print(f"errors              {len(errors)}{': ' + errors[0] if errors else ''}")
    print(f"plain loop          {total / loop_seconds:.2f} pairs/s")
    print(f"service             {total / load_seconds:.2f} pairs/s, {100 * loop_seconds / load_seconds:.1f} % of the loop")
    print(f"latency             {middle:.0f} ms median, {late:.0f} ms 99th percentile")
    print(f"resident memory     {before:.1f} -> {after:.1f} MiB, {100 * (after / before - 1):+.1f} %")
    print(f"service's exit code {process.wait(60)}")


if __name__ == "__main__":
    main()
