"""The service: would catch an answer that is not the library's, a limit that does not hold, and a request that stops others."""

import base64
import contextlib
import dataclasses
import gc
import io
import itertools
import math
import signal
import socket
import struct
import threading
import time
import weakref
import zlib

import numpy as np
import pytest
from helpers import frame
from PIL import Image

import featherflow
from featherflow.errors import InputError, MissingExtraError
from featherflow.flow import decode_flow, flow_to_rgb, occlusion

cv2 = pytest.importorskip("cv2")
fastapi = pytest.importorskip("fastapi")
from fastapi.testclient import TestClient  # noqa: E402

from featherflow.app import Settings, create_app  # noqa: E402
from featherflow.app.queues import BusyError, Options, PairQueue  # noqa: E402
from featherflow.app.service import negotiate  # noqa: E402

MODELS = ("dis-ultrafast", "liteflownet2-slim")
ADDRESS = "http://localhost"


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


FIRST, SECOND = frame(seed=1), frame(seed=2)
PAIR = {"frame1": png(FIRST), "frame2": png(SECOND)}


def as_json(files: dict[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(data).decode() for name, data in files.items()}


@pytest.fixture(scope="module")
def client():
    with TestClient(create_app(Settings(models=MODELS)), base_url=ADDRESS, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def flow():
    return featherflow.estimate(FIRST, SECOND, model=MODELS[0])


@pytest.mark.parametrize("model", MODELS)
def test_the_answer_is_the_library_s(client, model):
    answer = client.post("/v1/flow", files=PAIR, params={"model": model})
    assert answer.status_code == 200 and answer.headers["x-flow-model"] == model
    np.testing.assert_array_equal(decode_flow("a.flo", answer.content), featherflow.estimate(FIRST, SECOND, model=model))


@pytest.mark.parametrize("colours", [True, False])
def test_deep_frames_are_scaled_alike(client, colours):
    """12 bit in files of 16, the first frame no brighter than 10 bit: by its own numbers it would become four times as bright."""
    deep = [
        (FIRST if colours else FIRST[..., 0]).astype(np.uint16) * 4,
        (SECOND if colours else SECOND[..., 0]).astype(np.uint16) * 16,
    ]
    files = {
        f"frame{number}": cv2.imencode(".png", array[..., ::-1] if colours else array)[1].tobytes()
        for number, array in enumerate(deep, 1)
    }
    answer = client.post("/v1/flow", files=files, params={"model": MODELS[0]})
    first, second = (np.round(array / 4095 * 255).astype(np.uint8) for array in deep)
    expected = featherflow.estimate(first, second, model=MODELS[0])
    np.testing.assert_array_equal(decode_flow("a.flo", answer.content), expected)


def test_every_type_of_answer(client, flow):
    def ask(accept, **params):
        answer = client.post("/v1/flow", files=PAIR, params=params, headers={"Accept": accept})
        assert answer.status_code == 200 and answer.headers["content-type"] == accept
        return answer.content

    np.testing.assert_array_equal(decode_flow("a.npz", ask("application/x-npz")), flow)
    np.testing.assert_allclose(decode_flow("a.png", ask("image/x-kitti-png")), flow, atol=1 / 128)
    picture = np.asarray(Image.open(io.BytesIO(ask("image/png", scale=4))))
    np.testing.assert_array_equal(picture, flow_to_rgb(flow, 4))


def test_json_and_form_are_the_same(client):
    form, json = client.post("/v1/flow", files=PAIR), client.post("/v1/flow", json=as_json(PAIR))
    assert form.content == json.content and json.status_code == 200


def test_base64_as_people_write_it(client, flow):
    plain = as_json(PAIR)
    assert any(text.endswith("=") for text in plain.values()) and any(mark in "".join(plain.values()) for mark in "+/")
    for written in (
        lambda text: f"data:image/png;base64,{text}",
        lambda text: text.rstrip("="),
        lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
        lambda text: f"data:;base64,{text[:76]}\r\n{text[76:]}",
    ):
        answer = client.post("/v1/flow", json={name: written(text) for name, text in plain.items()})
        assert answer.status_code == 200
        np.testing.assert_array_equal(decode_flow("x.flo", answer.content), flow)


def test_backward_brings_the_occlusion(client, flow):
    answer = client.post("/v1/flow", files=PAIR, params={"backward": True}, headers={"Accept": "application/x-npz"})
    arrays = np.load(io.BytesIO(answer.content))
    backward = featherflow.estimate(SECOND, FIRST, model=MODELS[0])
    np.testing.assert_array_equal(arrays["flow"], flow)
    np.testing.assert_array_equal(arrays["backward"], backward)
    np.testing.assert_array_equal(arrays["occlusion"], occlusion(flow, backward))


def test_confidence_is_a_field_and_a_mask(client, flow):
    expected = featherflow.estimate(FIRST, SECOND, model=MODELS[0], confidence=True)[1]
    npz = {"Accept": "application/x-npz"}
    arrays = np.load(io.BytesIO(client.post("/v1/flow", files=PAIR, params={"confidence": True}, headers=npz).content))
    assert sorted(arrays) == ["confidence", "flow"]
    np.testing.assert_array_equal(arrays["confidence"], expected)
    least = float(np.median(expected))
    masked = decode_flow("a.flo", client.post("/v1/flow", files=PAIR, params={"min_confidence": least}).content)
    np.testing.assert_array_equal(np.isnan(masked[..., 0]), expected < least)
    np.testing.assert_array_equal(masked[expected >= least], flow[expected >= least])
    params = {"backward": True, "confidence": True, "min_confidence": least}
    arrays = np.load(io.BytesIO(client.post("/v1/flow", files=PAIR, params=params, headers=npz).content))
    assert sorted(arrays) == ["backward", "confidence", "flow", "occlusion", "valid"]
    np.testing.assert_array_equal(arrays["valid"], expected >= least)
    refused = client.post("/v1/flow", files=PAIR, params={"confidence": True})
    assert refused.status_code == 422 and "NPZ" in refused.json()["error"]
    assert client.post("/v1/flow", files=PAIR, params={"min_confidence": 2}).status_code == 422


def claims(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes whose header claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"


def animation() -> bytes:
    file = io.BytesIO()
    Image.fromarray(FIRST).save(file, format="TIFF", save_all=True, append_images=[Image.fromarray(SECOND)])
    return file.getvalue()


ANIMATION = animation()
REFUSED = {
    "text": ({"files": PAIR | {"frame1": b"no picture"}}, 422, "frame1 cannot be read as an image"),
    "nothing in it": ({"files": PAIR | {"frame2": b""}}, 422, "it is empty"),
    "cut": ({"files": PAIR | {"frame1": PAIR["frame1"][:900]}}, 422, "frame1 cannot be read"),
    "a format that starts programs": ({"files": PAIR | {"frame1": POSTSCRIPT}}, 422, "no image format"),
    "another size": ({"files": PAIR | {"frame2": png(FIRST[:60])}}, 422, "80x64 and 80x60"),
    "too small": ({"files": dict.fromkeys(PAIR, png(FIRST[:8, :8]))}, 422, "8x8"),
    "5 million pixels": ({"files": PAIR | {"frame1": claims(2500, 2000)}}, 413, "2500x2000"),
    "a bomb": ({"files": PAIR | {"frame2": claims(60000, 60000)}}, 413, "more pixels"),
    "one frame": ({"files": {"frame1": PAIR["frame1"]}}, 422, "'frame2' is missing"),
    "a third": ({"files": PAIR | {"frame3": b""}}, 422, "'frame3'"),
    "a field of text": ({"files": {"frame1": PAIR["frame1"]}, "data": {"frame2": "text"}}, 422, "no image format"),
    "twice": ({"files": [("frame1", b"a"), ("frame1", b"b")]}, 422, "twice"),
    "no form": ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 422, "boundary"),
    "broken form": ({"content": b"abc", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422, "cannot be read"),
    "another type": ({"content": b"abc", "headers": {"Content-Type": "text/plain"}}, 415, "text/plain"),
    "no JSON": ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "not readable JSON"),
    "deep JSON": ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 422, "JSON"),
    "a list": ({"json": [1, 2]}, 422, "JSON object"),
    "no base64": ({"json": {"frame1": "#", "frame2": "#"}}, 422, "base64"),
    "no base64 in a data URL": ({"json": dict.fromkeys(PAIR, "data:image/png,abcd")}, 422, "base64"),
    "an animation": ({"files": PAIR | {"frame2": ANIMATION}}, 422, "frame2 holds 2 pictures"),
    "a number": ({"json": {"frame1": 1, "frame2": 2}}, 422, "base64"),
    "unknown model": ({"files": PAIR, "params": {"model": "raft"}}, 422, "'raft'"),
    "unknown parameter": ({"files": PAIR, "params": {"modle": "dis"}}, 422, "'modle'"),
    "no number": ({"files": PAIR, "params": {"refine": "x"}}, 422, "'refine'"),
    "beyond": ({"files": PAIR, "params": {"refine": 99}}, 422, "'refine'"),
    "does not iterate": ({"files": PAIR, "params": {"iterations": 3}}, 422, "iterations"),
    "backward as .flo": ({"files": PAIR, "params": {"backward": True}}, 422, "NPZ"),
    "html": ({"files": PAIR, "headers": {"Accept": "text/html"}}, 406, "Accept"),
    "from another page": ({"files": PAIR, "headers": {"Origin": "http://elsewhere.example"}}, 403, "elsewhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_sentence(client, case):
    request, status, said = REFUSED[case]
    answer = client.post("/v1/flow", **request)
    sentence = answer.json()["error"]
    assert answer.status_code == status and list(answer.json()) == ["error"]
    assert said in sentence and len(sentence.splitlines()) == 1 and sentence.endswith(".")


def test_other_addresses_and_methods(client):
    assert client.get("/nothing").json() == {"error": "There is nothing at /nothing."}
    assert client.get("/v1/flow").status_code == 405


def test_too_many_bytes():
    with TestClient(create_app(Settings(models=MODELS[:1], max_bytes=1000)), base_url=ADDRESS) as client:
        answer = client.post("/v1/flow", files=PAIR)
        assert answer.status_code == 413 and "too large" in answer.json()["error"]
        assert client.get("/healthz").json()["status"] == "ok"


def test_models_and_openapi(client):
    listed = client.get("/v1/models").json()
    assert [entry["name"] for entry in listed] == list(MODELS) and [entry["default"] for entry in listed] == [True, False]
    document = client.get("/openapi.json").json()
    assert {"/v1/flow", "/v1/models", "/healthz", "/metrics"} <= set(document["paths"])
    assert {"413", "422", "429", "503"} <= set(document["paths"]["/v1/flow"]["post"]["responses"])


def test_metrics_count_requests_by_route(client):
    client.post("/v1/flow", files=PAIR)
    client.get("/made-up-by-a-stranger")
    text = client.get("/metrics").text
    assert 'featherflow_requests_total{path="/v1/flow",status="200"}' in text
    assert 'featherflow_estimate_seconds_count{model="dis-ultrafast"}' in text
    assert "process_resident_memory_bytes" in text and "stranger" not in text


def test_token():
    with TestClient(create_app(Settings(models=MODELS[:1], token="secret")), base_url=ADDRESS) as client:
        for value in (b"", b"Bearer", b"Bearer wrong", b"Basic secret", b"Bearer \xff"):
            headers = {"Authorization": value}
            refused = client.post("/v1/flow", files=PAIR, headers=headers)
            assert refused.status_code == 401 and "token" in refused.json()["error"]
            assert refused.headers["www-authenticate"] == "Bearer"
            assert client.get("/metrics", headers=headers).status_code == 401
        assert client.post("/v1/flow", files=PAIR, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "accept, answer",
    [
        (None, "application/octet-stream"),
        ("*/*", "application/octet-stream"),
        ("image/*", "image/png"),
        ("text/html, image/png;q=0.2, application/x-npz;q=0.3", "application/x-npz"),
        ("IMAGE/X-KITTI-PNG", "image/x-kitti-png"),
        ("image/png;q=0, application/*;q=x, */*;q=0.1", "application/octet-stream"),
    ],
)
def test_negotiation(accept, answer):
    assert negotiate(accept) == answer


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 70000},
        {"queue": 0},
        {"seconds": -1},
        {"token": ""},
        {"token": "é"},
        {"decode_seconds": 0},
        {"seconds": math.inf},
        {"max_bytes": math.nan},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(InputError):
        Settings(**settings)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'featherflow\[serve\]'"):
        create_app()


# The queue ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held_queue(settings: Settings, method=None):
    """A queue in this process whose first batch waits until the event is set, and the sizes of the batches it ran."""
    from featherflow.inference.estimator import kept_estimator

    go, sizes = threading.Event(), []

    def compute(options, first, second, deadline):
        go.wait(30)
        sizes.append(len(first))
        run = method or kept_estimator(options.model, enlarge=options.enlarge, dtype="float32")
        return [run(list(first), list(second))]

    queue = PairQueue(settings, compute=compute)
    try:
        yield queue, go, sizes
    finally:
        go.set()
        queue.close()


def test_pairs_of_one_kind_run_together_and_answers_do_not_change():
    """In float32 a batch and its pairs differ by less than a thousandth of a pixel; bfloat16 rounds them apart by more."""
    network, other = Options("liteflownet2-slim"), Options("liteflownet2-slim", enlarge=1)
    pairs = [(frame(seed=10 + i), frame(seed=20 + i)) for i in range(4)]
    with held_queue(Settings(batch=3)) as (queue, go, sizes):
        jobs = [queue.submit(network, *pairs[0])]
        while queue.waiting:  # the first has left the queue alone
            time.sleep(0.01)
        jobs += [queue.submit(network, *pairs[1]), queue.submit(other, *pairs[1])]
        jobs += [queue.submit(network, *pair) for pair in (pairs[2], pairs[3])]
        small = queue.submit(network, *(side[:32, :32] for side in pairs[3]))
        go.set()
        flows = [job.result(60).flow for job in jobs]
        assert small.result(60).flow.shape == (32, 32, 2)
    assert sizes == [1, 3, 1, 1]
    del flows[2]
    for flow, pair in zip(flows, pairs, strict=True):
        assert np.abs(flow - featherflow.estimate(*pair, model="liteflownet2-slim", dtype="float32")).max() < 1e-3


def test_a_batch_is_no_larger_than_the_largest_frame():
    with held_queue(Settings(batch=8, max_pixels=2 * FIRST.shape[0] * FIRST.shape[1])) as (queue, go, sizes):
        jobs = [queue.submit(Options(MODELS[0]), FIRST, SECOND) for _ in range(5)]
        go.set()
        for job in jobs:
            job.result(30)
    assert max(sizes) == 2


def test_a_pair_that_fails_does_not_fail_its_batch():
    def method(first, second):
        if any((image == 0).all() for image in first):
            raise ValueError("black")
        return np.stack(first)[..., :2]

    with held_queue(Settings(batch=8), method) as (queue, go, sizes):
        jobs = [queue.submit(Options("any"), image, image) for image in (FIRST, FIRST, FIRST * 0, FIRST)]
        go.set()
        assert [job.exception(30) is None for job in jobs] == [True, True, False, True]
    assert 3 in sizes or 4 in sizes


def test_both_directions_look_at_each_frame_once(monkeypatch):
    from featherflow.app import worker
    from featherflow.networks.liteflownet import LiteFlowNet

    looked, encode = [], LiteFlowNet.encode
    monkeypatch.setattr(LiteFlowNet, "encode", lambda *given, **options: looked.append(1) or encode(*given, **options))
    options = dataclasses.asdict(Options("liteflownet2-slim", backward=True)) | Settings().estimation
    _, (flow, back) = worker.flow(options, [FIRST[None], SECOND[None]], lambda _: None)
    assert len(looked) == 2
    forward, backward = featherflow.estimate(FIRST, SECOND, "liteflownet2-slim", backward=True)
    assert np.array_equal(flow[0], forward) and np.array_equal(back[0], backward)


def test_many_clients_get_their_own_flows():
    """Eight clients, twenty pairs each: what each is told is what it would be told alone."""
    clips = [[frame(64, 80, 100 * client + k) for k in range(21)] for client in range(8)]
    queue = PairQueue(Settings(queue=200, seconds=120))
    told: dict[int, list[np.ndarray]] = {}

    def client(number: int) -> None:
        jobs = [queue.submit(Options("liteflownetx"), *pair) for pair in itertools.pairwise(clips[number])]
        told[number] = [job.result(120).flow for job in jobs]

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    try:
        for one in clients:
            one.start()
        for one in clients:
            one.join()
    finally:
        queue.close()
    for number, clip in enumerate(clips):
        alone = [featherflow.estimate(*pair, "liteflownetx") for pair in itertools.pairwise(clip)]
        assert all(np.array_equal(flow, expected) for flow, expected in zip(told[number], alone, strict=True))


def test_many_clients_get_their_own_flows_over_http(start):
    """Eight clients, twenty requests each at once, of other frames: every answer is, byte by byte, that to the request alone."""
    import httpx

    process, address = start("serve", "--model", "liteflownetx", "--queue", "100", "--seconds", "120")
    frames = [png(frame(64, 64, 500 + k)) for k in range(21)]
    asked = [{"frame1": one, "frame2": other} for one, other in itertools.pairwise(frames)]

    def ask(client: httpx.Client, number: int) -> bytes:
        answer = client.post(f"{address}/v1/flow", files=asked[number], timeout=120)
        assert answer.status_code == 200, answer.text
        return answer.content

    with httpx.Client() as client:
        alone = [ask(client, number) for number in range(20)]
    assert len(set(alone)) == 20
    told: dict[int, list[bytes]] = {}

    def client_of(place: int) -> None:
        with httpx.Client() as client:
            told[place] = [ask(client, (place * 5 + k) % 20) for k in range(20)]

    clients = [threading.Thread(target=client_of, args=(place,)) for place in range(8)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    process.terminate()
    assert told == {place: [alone[(place * 5 + k) % 20] for k in range(20)] for place in range(8)}


def test_a_pair_is_forgotten_without_waiting_for_the_garbage_collection():
    """Else the memory under load is that of hundreds of pairs."""
    gc.collect()
    gc.disable()
    try:
        queue = PairQueue(Settings())
        image = FIRST.copy()
        flow = queue.submit(Options(MODELS[0]), image, SECOND).result(30).flow
        left = [weakref.ref(image), weakref.ref(flow)]
        del image, flow
        queue.close()
        assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


def test_full_queue_late_answer_and_departed_client():
    options = Options(MODELS[0])
    with held_queue(Settings(queue=2)) as (queue, go, sizes):
        running = queue.submit(options, FIRST, SECOND)
        while queue.waiting:
            time.sleep(0.01)
        waiting = [queue.submit(options, FIRST, SECOND) for _ in range(2)]
        with pytest.raises(BusyError):
            queue.submit(options, FIRST, SECOND)
        assert waiting[0].cancel() and queue.waiting == 1
        go.set()
        assert running.result(30).flow.shape == waiting[1].result(30).flow.shape
    assert sizes == [1, 1]


def test_statuses_of_a_busy_and_a_slow_service():
    settings = Settings(models=MODELS[:1], queue=1, seconds=2)
    with held_queue(settings) as (held, go, _):
        app = create_app(settings)
        app.state.engine.queue.close()
        app.state.engine.queue = held
        with TestClient(app, base_url=ADDRESS) as client:
            late = client.post("/v1/flow", files=PAIR)
            assert late.status_code == 503 and late.headers["retry-after"] and "2 s" in late.json()["error"]
            held.submit(Options(MODELS[0]), FIRST, SECOND)
            busy = client.post("/v1/flow", files=PAIR)
            assert busy.status_code == 429 and busy.headers["retry-after"]
            go.set()


def test_memory_that_runs_out_is_503():
    def method(first, second):
        raise MemoryError

    settings = Settings(models=MODELS[:1])
    with held_queue(settings, method) as (held, go, _):
        go.set()
        app = create_app(settings)
        app.state.engine.queue = held
        with TestClient(app, base_url=ADDRESS) as client:
            answer = client.post("/v1/flow", files=PAIR)
    assert answer.status_code == 503 and "memory" in answer.json()["error"]


# A process of its own -------------------------------------------------------------------------------------------------


PATIENCE = 4  # s, of the service with slow clients


@pytest.fixture(scope="module")
def service(start):
    return start("serve", "--model", "dis-ultrafast", "--model", "horn-schunck", "--transfer-seconds", str(PATIENCE))


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    return connection


def post(address: str, **params) -> "httpx.Response":  # noqa: F821
    import httpx

    return httpx.post(f"{address}/v1/flow", files=PAIR, params=params, timeout=60)


def is_open(connection: socket.socket) -> bool:
    """Whether the service has neither sent anything nor broken it off."""
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except ConnectionResetError:
        pass
    finally:
        connection.settimeout(20)
    return False


def test_slow_and_malformed_clients_do_not_stop_others(service):
    _, address = service
    head = b"POST /v1/flow HTTP/1.1\r\nHost: localhost\r\n"
    body = head + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    slow_heads, slow_bodies = [[connect(address) for _ in range(40)] for _ in range(2)]
    garbage = connect(address)
    garbage.sendall(b"\x16\x03\x01\x00\xff garbage \r\n\r\n")
    for connection, start in [(c, head) for c in slow_heads] + [(c, body) for c in slow_bodies]:
        connection.sendall(start)
    started = time.monotonic()
    assert post(address).status_code == 200 and is_open(slow_heads[0]) and is_open(slow_bodies[0])
    assert garbage.recv(100).startswith(b"HTTP/1.1 400")
    while is_open(slow_heads[-1]):
        slow_heads[-1].sendall(b"X")  # a byte now and then, as slow clients do
        assert time.monotonic() - started < PATIENCE + 5
        time.sleep(0.2)
    for connection in slow_heads:
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""  # broken off
    for connection in slow_bodies:
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < PATIENCE + 10
    for connection in (garbage, *slow_heads, *slow_bodies):
        connection.close()
    assert post(address).status_code == 200


def test_an_answer_that_nobody_reads_is_broken_off(service):
    import httpx

    _, address = service

    def open_files() -> float:
        lines = httpx.get(f"{address}/metrics", headers={"Connection": "close"}).text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("process_open_fds")))

    image = png(frame(700, 1000))
    # The worker for frames of this size is started by the first pair.
    httpx.post(f"{address}/v1/flow", files={"frame1": image, "frame2": image}, timeout=60)
    before = open_files()
    request = httpx.Request("POST", f"{address}/v1/flow", files={"frame1": image, "frame2": image})
    content = request.read()
    with connect(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        connection.sendall(f"POST /v1/flow HTTP/1.1\r\n{lines}\r\n".encode() + content)
        assert connection.recv(12) == b"HTTP/1.1 200" and open_files() == before + 1
        deadline = time.monotonic() + PATIENCE + 10
        while open_files() > before:
            assert time.monotonic() < deadline, "the service waits for a client that does not read"
            time.sleep(0.2)


def test_the_end_finishes_what_is_running_and_waiting(start):
    import httpx

    process, address = start("serve", "--model", "horn-schunck")
    answers = []
    asking = [threading.Thread(target=lambda: answers.append(post(address, refine=1))) for _ in range(3)]
    for thread in asking:
        thread.start()
    deadline = time.monotonic() + 30
    while httpx.get(f"{address}/healthz").json()["waiting"] < 2:  # the third is running
        assert time.monotonic() < deadline and not answers
    process.send_signal(signal.SIGTERM)
    for thread in asking:
        thread.join(60)
    assert process.wait(30) == 0
    assert [decode_flow("a.flo", answer.content).shape for answer in answers if answer.status_code == 200] == 3 * [(64, 80, 2)]


def test_a_port_that_is_taken(service, capsys):
    from helpers import run_command

    _, address = service
    assert run_command("serve", "--model", "dis", "--port", address.rpartition(":")[2]) == 2
    assert "Nothing can listen" in capsys.readouterr().err
