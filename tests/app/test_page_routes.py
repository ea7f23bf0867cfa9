"""What the page's script asks for, without a browser: pictures, figures and refusals."""

import io
import re
import time

import numpy as np
import pytest
from helpers import frame
from PIL import Image

import featherflow
from featherflow import demo
from featherflow.flow import decode_flow, draw_arrows, draw_confidence, error_map, flow_to_rgb, read_flow

pytest.importorskip("cv2")
pytest.importorskip("fastapi")
from fastapi import HTTPException
from fastapi.testclient import TestClient

from featherflow.app import Settings, create_app
from featherflow.app.page import Result, Results

MODEL = "dis-ultrafast"
FRAMES = {"frame1": demo.FRAME1.read_bytes(), "frame2": demo.FRAME2.read_bytes()}
TRUTH = ("truth", ("flow.png", demo.TRUTH.read_bytes()))


@pytest.fixture(scope="module")
def client():
    with TestClient(create_app(Settings(models=(MODEL,), page=True)), base_url="http://localhost") as client:
        yield client


def picture(client, identity: str, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(client.get(f"/page/results/{identity}/{name}.png").content)))


def test_the_page_names_no_other_machine(client):
    answer = client.get("/")
    assert answer.status_code == 200 and "default-src 'self'" in answer.headers["content-security-policy"]
    for name in ("page.js", "page.css", "icon.svg", "wheel.png"):
        part = client.get(f"/page/{name}")
        assert part.status_code == 200 and f"page/{name}" in answer.text + client.get("/page/page.js").text
        if name != "wheel.png":
            assert not re.search(r"""https?://|["'(]//""", part.text.replace("http://www.w3.org/2000/svg", ""))
    assert client.get("/page/index.html").status_code == client.get("/page/..%2Fpage.py").status_code == 404


def test_a_pair_with_truth(client):
    content = client.post("/page/flow", files=[*FRAMES.items(), TRUTH]).json()
    truth = read_flow(demo.TRUTH)
    flow = featherflow.estimate(demo.FRAME1, demo.FRAME2, model=MODEL)
    identity = content["id"]
    assert (content["width"], content["height"], content["model"]) == (512, 384, MODEL)
    assert content["errors"]["epe"] == pytest.approx(float(np.hypot(*(flow - truth).transpose(2, 0, 1)).mean()), abs=1e-4)
    for name in ("flow.flo", "flow.npz"):
        np.testing.assert_array_equal(decode_flow(name, client.get(f"/page/results/{identity}/{name}").content), flow)
    first = np.asarray(Image.open(demo.FRAME1))
    np.testing.assert_array_equal(picture(client, identity, "colour"), flow_to_rgb(flow, content["scale"]))
    np.testing.assert_array_equal(picture(client, identity, "arrows"), draw_arrows(first, flow))
    np.testing.assert_array_equal(picture(client, identity, "error"), error_map(flow, truth))
    np.testing.assert_array_equal(picture(client, identity, "frame1"), first)
    warped = picture(client, identity, "warped").astype(float)
    assert np.abs(warped - first).mean() < 0.5 * np.abs(np.asarray(Image.open(demo.FRAME2)).astype(float) - first).mean()
    trusted = featherflow.estimate(demo.FRAME1, demo.FRAME2, model=MODEL, confidence=True)[1]
    np.testing.assert_array_equal(picture(client, identity, "confidence"), draw_confidence(first, trusted))
    np.testing.assert_array_equal(
        np.load(io.BytesIO(client.get(f"/page/results/{identity}/flow.npz").content))["confidence"], trusted
    )
    assert picture(client, identity, "overlay").shape == picture(client, identity, "occlusion").shape == first.shape


def test_a_pair_without_truth(client):
    content = client.post("/page/flow", files=FRAMES).json()
    assert content["errors"] is None
    for name in ("error.png", "truth.png", "truth.flo", "nothing.png"):
        assert client.get(f"/page/results/{content['id']}/{name}").status_code == 404
    assert client.get("/page/results/guessed/colour.png").status_code == 404


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("flow.txt", b"text", "flow.txt"),
        ("flow.png", b"text", "not a PNG"),
        ("flow.png", FRAMES["frame1"], "KITTI"),
        ("flow.flo", b"text", "cut short"),
        ("small.flo", featherflow.flow.encode_flow("a.flo", np.zeros((20, 30, 2), np.float32)), "30x20"),
    ],
)
def test_a_truth_that_cannot_be_used(client, name, data, said):
    answer = client.post("/page/flow", files=[*FRAMES.items(), ("truth", (name, data))])
    assert answer.status_code == 422 and said in answer.json()["error"]


def test_only_the_latest_results_are_kept():
    def result(size):
        field = np.zeros((size, size, 2), np.float32)
        return Result(field, field, field, field, field[..., 0], None, None, 1.0)

    results = Results(max_pixels=100)
    names = [results.add(result(10)) for _ in range(5)]
    assert results.get(names[1]) and results.get(names[4])
    with pytest.raises(HTTPException):
        results.get(names[0])
    large = results.add(result(30))
    assert results.get(large)
    with pytest.raises(HTTPException):
        results.get(names[4])


def test_a_clip_is_followed_and_a_new_one_takes_its_place(client, tmp_path):
    av = pytest.importorskip("av")
    with av.open(tmp_path / "clip.mkv", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for seed in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(seed=seed), format="rgb24")))
        container.mux(stream.encode(None))

    def follow(data: bytes, view: str = "colour"):
        identity = client.post("/page/clip", params={"name": "clip.mkv", "view": view}, content=data).json()["id"]
        deadline = time.monotonic() + 30
        while (job := client.get(f"/page/clip/{identity}").json())["state"] == "running" and time.monotonic() < deadline:
            time.sleep(0.05)
        return identity, job

    data = (tmp_path / "clip.mkv").read_bytes()
    first, job = follow(data)
    assert job["state"] == "done" and job["sentence"].startswith("3 frames")
    (tmp_path / "flow.mp4").write_bytes(client.get(f"/page/clip/{first}/flow.mp4").content)
    with av.open(tmp_path / "flow.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
    second, job = follow(b"no video")
    assert job["state"] == "failed" and job["error"].startswith("The clip cannot be read as a video")
    assert client.get(f"/page/clip/{first}").status_code == 404
    assert client.get(f"/page/clip/{second}/flow.mp4").status_code == 404
    assert "view" in follow(data, "nothing")[1]["error"]


def test_without_the_option_there_is_no_page():
    with TestClient(create_app(Settings(models=(MODEL,))), base_url="http://localhost") as client:
        assert client.get("/").status_code == client.post("/page/flow", files=FRAMES).status_code == 404


@pytest.mark.parametrize(
    ("words", "most_bytes", "most_pixels"),
    [
        ([], 256 << 20, 7680 * 4320),
        (["--host", "0.0.0.0", "--token", "secret"], 32 << 20, 1 << 22),
        (["--allow-host", "flow.example.org"], 32 << 20, 1 << 22),  # a proxy passes on what others ask
        (["--host", "0.0.0.0", "--token", "secret", "--max-pixels", "9000000", "--max-mebibytes", "64"], 64 << 20, 9_000_000),
        (["--max-pixels", "100000", "--seconds", "7"], 256 << 20, 100_000),
    ],
)
@pytest.mark.parametrize("verb", ["app", "serve"])
def test_who_can_ask_decides_how_large_frames_may_be(verb, words, most_bytes, most_pixels, monkeypatch):
    """Both verbs have the same options; the page is for this machine, whose frames may be as large as the command line's."""
    from helpers import run_command

    seen = []
    monkeypatch.setattr("featherflow.app.serve", seen.append)
    assert run_command(verb, *words) == 0
    (settings,) = seen
    assert (settings.max_bytes, settings.max_pixels, settings.page) == (most_bytes, most_pixels, verb == "app")
    assert settings.seconds == (7 if "--seconds" in words else 60)
