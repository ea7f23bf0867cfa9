"""Requests made to hurt: would catch one that reads what was not given, stops others, or takes memory far beyond its own size."""

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
from helpers import frame
from PIL import Image

from featherflow.data import TextureBank
from featherflow.errors import FileError, InputError, LimitError
from featherflow.images import read_image

pytest.importorskip("cv2")
pytest.importorskip("fastapi")
from fastapi import HTTPException
from fastapi.testclient import TestClient

from featherflow.app import Settings, create_app, workers
from featherflow.app import uploads as uploads_module
from featherflow.app.guards import refusal
from featherflow.app.queues import Options, PairQueue
from featherflow.app.uploads import Uploads, _from_json
from featherflow.app.workers import DeadlineError, StoppedError, Worker, WorkerDiedError, WorkerFailedError
from featherflow.headers import MOST_SCANS, count_scans

MODEL = "dis-ultrafast"
ADDRESS = "http://localhost"


def encoded(image: np.ndarray, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


PAIR = {"frame1": encoded(frame(seed=1)), "frame2": encoded(frame(seed=2))}


@pytest.fixture(scope="module")
def client():
    settings = Settings(models=(MODEL,), page=True, hosts=("flow.example",), decode_seconds=5)
    with TestClient(create_app(settings), base_url=ADDRESS, raise_server_exceptions=False) as client:
        yield client


# Who may ask ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""])
@pytest.mark.parametrize("path", ["/", "/v1/models", "/healthz", "/nothing"])
def test_a_name_that_leads_to_this_machine_from_elsewhere(client, host, path):
    answer = client.get(path, headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == 421 and "Host" in answer.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1:8000", "[::1]:8000", "flow.example", "flow.example:443"])
def test_names_of_this_machine_and_of_its_proxy(client, host):
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_a_service_for_others_is_called_by_any_name_unless_names_are_given():
    for settings, status in ((Settings(host="0.0.0.0"), 200), (Settings(host="0.0.0.0", hosts=("flow.example",)), 421)):
        app = create_app(Settings(host=settings.host, hosts=settings.hosts, models=(MODEL,)))
        assert TestClient(app, base_url="http://elsewhere").get("/healthz").status_code == status
        app.state.engine.close()


def test_every_answer_tells_the_browser_what_it_may(client):
    for path in ("/healthz", "/v1/models", "/nothing", "/metrics", "/page/clip/none"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_the_page_asks_for_the_token():
    with TestClient(create_app(Settings(models=(MODEL,), page=True, token="s3cret")), base_url=ADDRESS) as client:
        for path in ("/", "/page/page.js", "/v1/models", "/?token=wrong", "/page/page.js?token=s3cret"):
            assert client.get(path).status_code == 401
        assert client.post("/page/flow", files=PAIR).status_code == client.post("/page/clip?name=a", content=b"").status_code == 401
        answer = client.get("/?token=s3cret", follow_redirects=False)
        cookie = answer.headers["set-cookie"].lower()
        assert answer.status_code == 303 and "httponly" in cookie and "samesite=strict" in cookie
        assert "s3cret" not in answer.headers["location"]
        assert client.get("/").status_code == client.get("/v1/models").status_code == 200
        assert client.post("/page/flow", files=PAIR).status_code == 200


def test_the_app_takes_the_token_from_the_environment(monkeypatch):
    from helpers import run_command

    from featherflow import app

    seen = []
    monkeypatch.setattr(app, "serve", seen.append)
    monkeypatch.setenv("FEATHERFLOW_TOKEN", "s3cret")
    assert run_command("app", "--no-browser", "--allow-host", "flow.example") == 0
    assert run_command("serve", "--allow-host", "flow.example") == 0
    assert [(settings.token, settings.hosts) for settings in seen] == [("s3cret", ("flow.example",))] * 2


# JSON and forms -------------------------------------------------------------------------------------------------------


def test_json_of_many_small_values():
    body = bytearray(json.dumps({f"{i}": 0 for i in range(400_000)}).encode())
    tracemalloc.start()
    started = time.monotonic()
    for text in (
        body,
        bytearray(b"[" * len(body)),
        bytearray(b'{"a":' * (len(body) // 5)),
        bytearray(b"[" + b"1," * 10**6 + b"1]"),
    ):
        with pytest.raises(HTTPException):
            _from_json(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - started < 2 and peak < 4 * len(body)


def test_base64_in_lines(client):
    lines = {name: base64.encodebytes(data).decode() for name, data in PAIR.items()}
    windows = {name: text.replace("\n", "\r\n") for name, text in lines.items()}
    once = {name: base64.b64encode(data).decode() for name, data in PAIR.items()}
    answers = [client.post("/v1/flow", json=body).content for body in (lines, windows, once)]
    assert len(set(answers)) == 1 and len(answers[0]) > 1000


def test_a_part_of_a_form_without_a_file_name(client):
    def form(disposition: str) -> bytes:
        parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"{disposition}\r\n\r\n' for name in PAIR]
        return b"".join(part.encode() + data + b"\r\n" for part, data in zip(parts, PAIR.values(), strict=True)) + b"--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    named, nameless = (client.post("/v1/flow", content=form(text), headers=headers) for text in ('; filename="a"', ""))
    assert named.status_code == nameless.status_code == 200 and named.content == nameless.content


@pytest.mark.parametrize(
    "body", [rb'{"frame1": "AAAA", "frame2": "AAAA", "\ud800": "AAAA"}', rb'{"\udfff": 1}', rb'{"frame1": "\ud800"}']
)
def test_lone_surrogates(client, body):
    answer = client.post("/v1/flow", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and answer.json()["error"].isprintable()


def test_messages_do_not_show_this_machine_s_folders(tmp_path):
    told = json.loads(refusal(f"The weights '{tmp_path}/deep/a.safetensors' are damaged; GET /v1/models lists others.", 422).body)
    assert told["error"] == "The weights 'a.safetensors' are damaged; GET /v1/models lists others."


# Images ---------------------------------------------------------------------------------------------------------------


def progressive(scans: int) -> bytes:
    """A sound progressive JPEG whose last scan is repeated."""
    data = encoded(frame(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans - count_scans(data, 1000) + 1) + data[-2:]


def test_scans_are_counted():
    thumbnail = encoded(frame(16, 16), "JPEG")
    exif = b"Exif\x00\x00" + thumbnail * 50
    assert count_scans(encoded(frame(64, 64), "JPEG"), 99) == 1
    assert count_scans(encoded(frame(64, 64), "JPEG", exif=exif), 99) == 1
    assert count_scans(encoded(frame(64, 64), "JPEG", progressive=True), 99) == 10
    assert count_scans(encoded(frame(64, 64), "JPEG", restart_marker_blocks=1), 99) == 1


def test_a_jpeg_of_many_scans_is_refused_wherever_it_is_read(tmp_path):
    (tmp_path / "usual.jpg").write_bytes(progressive(MOST_SCANS))
    assert read_image(tmp_path / "usual.jpg").shape == (64, 64, 3)
    (tmp_path / "hostile.jpg").write_bytes(progressive(200_000))
    started = time.monotonic()
    with pytest.raises(LimitError, match=r"hostile\.jpg' is a JPEG of more than 50 scans"):
        read_image(tmp_path / "hostile.jpg")
    (tmp_path / "usual.jpg").unlink()
    with pytest.raises(FileError, match="no readable JPEG"):
        TextureBank.from_folder([tmp_path], 64)
    assert time.monotonic() - started < 2


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(client):
    data = progressive(20_000)
    started = time.monotonic()
    answer = client.post("/v1/flow", files={"frame1": data, "frame2": data})
    assert answer.status_code == 413 and "scans" in answer.json()["error"] and time.monotonic() - started < 5


# Workers --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


def program(monkeypatch, text: str) -> None:
    """Have workers do another task than the service's."""
    head = "import os, signal, sys, time\nfrom featherflow.app import worker\nfrom featherflow.errors import LimitError\n"
    end = "worker.TASKS['task'] = task\nworker.main()\n"
    replace_program(monkeypatch, f"{head}def task(content, arrays, tell):\n    {text}\n{end}")


def replace_program(monkeypatch, code: str) -> None:
    """Have workers run this program in place of `featherflow.app.worker`."""
    real = subprocess.Popen
    monkeypatch.setattr(workers.subprocess, "Popen", lambda _, **options: real([sys.executable, "-c", code], **options))


def test_arrays_come_back_as_they_were_sent(worker, monkeypatch):
    program(monkeypatch, "print('libraries print'); return content, arrays")
    sent = [np.arange(24, dtype="<f4").reshape(2, 3, 4), np.zeros((0, 2), np.uint8), np.array([True, False])]
    content, found = worker.call("task", {"a": [1, "é"]}, sent)
    assert content["a"] == [1, "é"]
    for ours, theirs in zip(sent, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_a_task_that_never_ends_is_killed_and_the_next_one_is_done(worker, monkeypatch):
    program(monkeypatch, "time.sleep(content['seconds']); return {}, []")
    worker.call("task", {"seconds": 0})
    started = time.monotonic()
    with pytest.raises(DeadlineError):
        worker.call("task", {"seconds": 100}, deadline=time.monotonic() + 0.5)
    assert time.monotonic() - started < 5
    worker.call("task", {"seconds": 0})


def test_a_process_that_dies_is_replaced(worker, monkeypatch):
    program(monkeypatch, "os.kill(os.getpid(), content['signal']) if content['signal'] else None; return {}, []")
    for number in (signal.SIGKILL, signal.SIGSEGV):
        with pytest.raises(WorkerDiedError):
            worker.call("task", {"signal": int(number)})
        worker.call("task", {"signal": 0})


def test_a_task_can_be_stopped(worker, monkeypatch):
    program(monkeypatch, "tell({'done': 1}); time.sleep(100)")
    begun = threading.Event()
    threading.Thread(target=lambda: begun.wait(60) and worker.stop(), daemon=True).start()
    with pytest.raises(StoppedError):
        worker.call("task", {}, progress=lambda content: begun.set())


def test_errors_come_back_as_what_they_are(worker, monkeypatch):
    errors = "{'ours': LimitError('No.'), 'memory': MemoryError(), 'other': OSError()}"
    program(monkeypatch, f"raise {errors}[content['kind']]")
    for kind, error in (("ours", LimitError), ("memory", MemoryError), ("other", WorkerFailedError)):
        with pytest.raises(error):
            worker.call("task", {"kind": kind})


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_memory_is_limited(monkeypatch):
    worker = Worker(memory=2 << 30, threads=1)
    try:
        program(monkeypatch, "worker.limit_memory(2 << 30); bytearray(3 << 30); return {}, []")
        with pytest.raises(MemoryError):
            worker.call("task", {})
    finally:
        worker.close()


# Estimating -----------------------------------------------------------------------------------------------------------


def test_small_pairs_do_not_wait_for_large_ones():
    go = threading.Event()

    def compute(options, first, second, deadline):
        if first.shape[1] > 100:
            go.wait(30)
        return [np.zeros((*first.shape[:3], 2), np.float32)]

    queue = PairQueue(Settings(max_pixels=512 * 512), compute=compute)
    try:
        large, small = frame(512, 512), frame(64, 64)
        waiting = [queue.submit(Options(MODEL), large, large) for _ in range(2)]
        assert queue.submit(Options(MODEL), small, small).result(10).flow.shape == (64, 64, 2)
        assert not any(job.done() for job in waiting)
        go.set()
        assert waiting[1].result(10).flow.shape == (512, 512, 2)
    finally:
        go.set()
        queue.close()


def test_a_model_that_breaks_down_or_never_ends_does_not_take_the_service_with_it(monkeypatch):
    code = """
import os, signal, time
from featherflow.app import worker
flow = worker.flow
def task(content, arrays, tell):
    if content["refine"] == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if content["refine"] == 2:
        time.sleep(100)
    return flow(content, arrays, tell)
worker.TASKS["flow"] = task
worker.main()
"""
    replace_program(monkeypatch, code)
    with TestClient(create_app(Settings(models=(MODEL,), seconds=20)), base_url=ADDRESS) as client:
        assert client.post("/v1/flow", files=PAIR).status_code == 200
        broken = client.post("/v1/flow", files=PAIR, params={"refine": 1})
        assert broken.status_code == 422 and "broke down" in broken.json()["error"]
        assert client.post("/v1/flow", files=PAIR).status_code == 200
        started = time.monotonic()
        late = client.post("/v1/flow", files=PAIR, params={"refine": 2})
        assert late.status_code == 503 and "20 s" in late.json()["error"] and time.monotonic() - started < 25
        assert client.post("/v1/flow", files=PAIR).status_code == 200  # and is not told to wait for the one before


# Clips ----------------------------------------------------------------------------------------------------------------


class Body:
    """A request whose body comes in as told: pieces, pauses [s], or the end of the connection."""

    def __init__(self, *steps):
        self._steps = steps

    async def stream(self):
        from starlette.requests import ClientDisconnect

        for step in self._steps:
            if isinstance(step, bytes):
                yield step
            elif step is None:
                raise ClientDisconnect
            else:
                await asyncio.sleep(step)


async def ignore(chunk: bytes) -> None:
    pass


def test_clips_that_come_in_slowly_or_not_at_all():
    uploads = Uploads(Settings(transfer_seconds=0.3))
    for steps, status in (((b"x", 5, b"x"), 408), ((b"x", 0.2, b"x", 0.2, b"x", 0.2), 408), ((b"x", None), 400)):
        started = time.monotonic()
        with pytest.raises(HTTPException) as error:
            asyncio.run(uploads.clip(Body(*steps), ignore))
        assert error.value.status_code == status and time.monotonic() - started < 2
    asyncio.run(uploads.clip(Body(bytes(10 * uploads_module.SLOWEST), 0.5, b"x"), ignore))  # much has come: it may last longer


def test_only_a_few_clips_come_in_at_a_time():
    uploads = Uploads(Settings())

    async def run() -> list:
        slow = [asyncio.create_task(uploads.clip(Body(1), ignore)) for _ in range(uploads_module.MOST_CLIPS)]
        await asyncio.sleep(0.1)
        with pytest.raises(HTTPException) as error:
            await uploads.clip(Body(b"x"), ignore)
        assert error.value.status_code == 429
        return await asyncio.gather(*slow)

    asyncio.run(run())
    asyncio.run(uploads.clip(Body(b"x"), ignore))


def follow(client, data: bytes, name: str = "clip.mp4") -> dict:
    identity = client.post("/page/clip", params={"name": name, "model": MODEL}, content=data).json()["id"]
    deadline = time.monotonic() + 60
    while (job := client.get(f"/page/clip/{identity}").json())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return job


@pytest.fixture
def secret(tmp_path):
    """A video that nobody has uploaded."""
    av = pytest.importorskip("av")
    path = tmp_path / "secret.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for seed in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(seed=seed), format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["m3u8", "mp4", "mkv", "ffconcat", "mpd", "sdp", "jpg", "txt", "avs"])
def test_a_list_of_other_files_is_no_clip(client, secret, suffix):
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{secret}'\n"
    for text in (playlist, playlist.replace(str(secret), f"file://{secret}"), concat):
        job = follow(client, text.encode(), f"clip.{suffix}")
        assert job["state"] == "failed" and str(secret.parent) not in job["error"]
        assert "/tmp" not in job["error"] and os.sep + "featherflow-clip" not in job["error"]


def test_settings_of_hosts():
    with pytest.raises(InputError):
        Settings(decode_seconds=0)


def test_a_model_that_cannot_be_loaded_ends_the_start_in_a_sentence(monkeypatch, capsys):
    from helpers import run_command

    from featherflow.errors import WeightsError

    def prepare(self, model):
        raise WeightsError("The weights are damaged.")

    monkeypatch.setattr(PairQueue, "prepare", prepare)
    assert run_command("serve", "--model", MODEL, "--port", "0") == 4
    assert capsys.readouterr().err == "featherflow: The weights are damaged.\n"
