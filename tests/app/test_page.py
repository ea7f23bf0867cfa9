"""The page in a real browser: would catch a view that does not load, a wrong reading under the pointer, and a file that is not
the command's. Needs Debian's Chromium and Playwright (`apt-get install chromium`, `pip install playwright`)."""

import json
import shutil
import time

import numpy as np
import pytest
from helpers import run_command

from featherflow.flow import FlowMetrics, read_flow

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive a browser")
pytest.importorskip("fastapi")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def address(start):
    return start("app", "--no-browser")[1]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page, opened; at the end nothing may have gone wrong in its script, and no other machine may have been asked."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page, faults, asked = context.new_page(), [], set()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: asked.add(request.url.split("/")[2] if request.url.startswith("http") else ""))
    page.goto(address)
    page.wait_for_selector("#model option", state="attached")
    yield page
    context.close()
    assert not faults and asked - {""} == {address.split("/")[2]}


def choose(page, **files) -> None:
    for field, path in files.items():
        page.set_input_files(f"input[name={field}]", path)


def run(page) -> None:
    page.click("#run")
    page.wait_for_selector("#shown:not([hidden])", timeout=60_000)
    page.wait_for_selector("#busy", state="hidden")


def until(page, expression: str) -> None:
    """Playwright's own way would need the page to allow `eval`, which it does not."""
    deadline = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def save(page, name: str, target):
    with page.expect_download() as download:
        page.click(f'.save a[data-name="{name}"]')
    download.value.save_as(target)
    return target


def test_a_real_pair(page, shared_data, tmp_path, capsys):
    folder = shared_data / "middlebury" / "RubberWhale"
    frames, truth = [folder / "frame10.png", folder / "frame11.png"], folder / "flow10.flo"
    choose(page, frame1=frames[0], frame2=frames[1], truth=truth)
    run(page)

    assert run_command("estimate", *frames, "-o", tmp_path / "command.flo", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] in page.inner_text("#figures")
    flow = read_flow(save(page, "flow.flo", tmp_path / "page.flo"))

    def epe(field):
        return FlowMetrics().update(field, read_flow(truth)).errors.epe

    assert epe(flow) == epe(read_flow(tmp_path / "command.flo"))
    assert f"{epe(flow):.3f} px" in page.inner_text("#figures")
    np.testing.assert_array_equal(read_flow(save(page, "flow.npz", tmp_path / "page.npz")), flow)
    np.testing.assert_allclose(read_flow(save(page, "flow.png", tmp_path / "page.png")), flow, atol=1 / 128)

    stage = page.locator("#stage")
    scale = stage.bounding_box()["width"] / flow.shape[1]
    for x, y in ((200, 150), (0, 0), (583, 387)):
        stage.hover(position={"x": (x + 0.5) * scale, "y": (y + 0.5) * scale})
        u, v = flow[y, x]
        said = page.inner_text("#reading").replace("\u2212", "-").replace("\n", " ")
        assert f"{x}, {y}" in said and f"u {u:+.2f} px" in said and f"v {v:+.2f} px" in said
        assert f"length {np.hypot(u, v):.2f} px" in said
    stage.press("ArrowLeft")
    assert "582, 387" in page.inner_text("#reading")

    loaded = "[...document.querySelectorAll('.stage img')].every(i => i.hidden || (i.complete && i.naturalWidth == 584))"
    seen = set()
    for view in ("arrows", "overlay", "compare", "occlusion", "confidence", "truth", "error", "colour"):
        page.check(f"input[value={view}]", force=True)
        until(page, loaded)
        seen.add(stage.screenshot())
    assert len(seen) == 7


def test_without_truth_there_is_no_error_view(page, shared_data):
    folder = shared_data / "piv" / "backstep_Re800_00001"
    frame1, frame2 = sorted(folder.glob("*_img*.tif"))
    choose(page, frame1=frame1, frame2=frame2)  # a format that browsers do not show
    run(page)
    assert page.locator("input[value=error]").is_hidden() and "EPE" not in page.inner_text("#figures")


def test_a_text_file_ends_in_a_sentence(page, tmp_path):
    (tmp_path / "notes.txt").write_text("these are notes\n")
    page.click("#example")
    page.wait_for_selector("#shown:not([hidden])", timeout=60_000)
    choose(page, frame1=tmp_path / "notes.txt")
    page.click("#run")
    page.wait_for_selector("#alert:not([hidden])")
    said = page.inner_text("#alert")
    assert said == "frame1 cannot be read as an image: its 16 bytes are of no image format that is known here."


def test_frames_dropped_together_are_sorted_by_name(page):
    page.select_option("#model", "dis-ultrafast")
    dropped = page.evaluate_handle("""async () => {
        const dropped = new DataTransfer();
        for (const name of ["frame2.png", "frame1.png"]) {
            const blob = await (await fetch(`page/example/${name}`)).blob();
            dropped.items.add(new File([blob], name, { type: blob.type }));
        }
        return dropped;
    }""")
    page.dispatch_event("#result", "drop", {"dataTransfer": dropped})
    assert "frame1.png" in page.inner_text("#tile-frame1") and "frame2.png" in page.inner_text("#tile-frame2")
    run(page)
    assert "512 x 384" in page.inner_text("#figures")
    page.dispatch_event("#tile-truth", "drop", {"dataTransfer": dropped})  # two at once, on a place for one
    assert "if you have it" in page.inner_text("#tile-truth")


def test_a_clip(page, tmp_path):
    av = pytest.importorskip("av")
    from helpers import frame

    with av.open(tmp_path / "clip.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        wide = frame(64, 120)
        for index in range(6):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[:, 2 * index : 2 * index + 96]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    page.select_option("#model", "dis-ultrafast")
    choose(page, clip=tmp_path / "clip.mp4")
    page.click("#run")
    page.wait_for_selector("#film:not([hidden])", timeout=60_000)
    assert page.inner_text("#film p").startswith("5 frames")
    until(page, "document.querySelector('video').videoWidth == 96")
    (tmp_path / "no clip.mp4").write_text("these are notes\n")
    choose(page, clip=tmp_path / "no clip.mp4")
    page.click("#run")
    page.wait_for_selector("#alert:not([hidden])")
    assert "cannot be read as a video" in page.inner_text("#alert")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    page.click("#example")
    page.wait_for_selector("#shown:not([hidden])", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
