"""`estimate` takes frames in any form, gives one answer for all of them, and restores every size."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import frame, run_network, small_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import featherflow
from featherflow.errors import FeatherflowError, FileError, InputError
from featherflow.frames import as_batch
from featherflow.images import read_image
from featherflow.inference import EstimationSettings, Estimator
from featherflow.inference.defaults import usual_octaves
from featherflow.inference.tiling import LARGEST_WHOLE
from featherflow.networks import FlowNetwork, Traits, build
from featherflow.ops import ReadyConvolution, can_make_ready


@pytest.fixture(scope="module")
def estimate(tmp_path_factory):
    weights = small_weights(tmp_path_factory.mktemp("weights") / "x.safetensors")
    return lambda a, b, **options: featherflow.estimate(a, b, **{"model": "liteflownetx", "weights": weights, **options})


def test_every_form_of_a_frame_gives_the_same_flow(estimate, tmp_path):
    first, second = frame(seed=1), frame(seed=2)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, image in zip(paths, (first, second), strict=True):
        Image.fromarray(image).save(path)
    expected = estimate(first, second)
    assert expected.shape == (64, 80, 2) and expected.dtype == np.float32
    forms = [
        (str(paths[0]), str(paths[1])),
        (paths[0], paths[1]),
        (Image.open(paths[0]), Image.open(paths[1])),
        (first.astype(np.uint16) * 257, second.astype(np.uint16) * 257),
        (first / 255.0, second / 255.0),
        (np.dstack((first, first[..., 0])), np.dstack((second, second[..., 0]))),  # RGBA: alpha does not count
    ]
    for a, b in forms:
        assert np.abs(estimate(a, b) - expected).max() < 1e-4, type(a)
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in (first, second)]
    flow = estimate(*tensors)
    assert isinstance(flow, torch.Tensor) and flow.shape == (2, 64, 80)
    assert np.abs(flow.permute(1, 2, 0).numpy() - expected).max() < 1e-4


def test_batches(estimate):
    firsts, seconds = np.stack([frame(seed=1), frame(seed=3)]), np.stack([frame(seed=2), frame(seed=4)])
    flows = estimate(firsts, seconds)
    assert flows.shape == (2, 64, 80, 2)
    assert np.abs(flows[1] - estimate(firsts[1], seconds[1])).max() < 1e-3
    assert np.array_equal(flows, estimate(list(firsts), list(seconds)))
    assert estimate(*(torch.from_numpy(x).permute(0, 3, 1, 2) for x in (firsts, seconds))).shape == (2, 2, 64, 80)


def test_backward_is_the_flow_of_the_swapped_frames(estimate):
    first, second = frame(seed=1), frame(seed=2)
    forward, backward = estimate(first, second, backward=True)
    assert np.array_equal(forward, estimate(first, second)) and np.array_equal(backward, estimate(second, first))


def test_grey_frames(estimate):
    grey = frame()[..., 0]
    rgb = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(estimate(grey, grey[:, ::-1]), estimate(rgb, rgb[:, ::-1]))


@settings(max_examples=12, deadline=None)
@given(st.integers(16, 150), st.integers(16, 150), st.sampled_from([np.uint8, np.uint16, np.float32, np.float64]))
def test_any_size_and_dtype_is_restored(height, width, dtype):
    network = build("liteflownetx")
    image = frame(height, width)
    image = image / 255.0 if np.issubdtype(dtype, np.floating) else image
    batch = as_batch(image.astype(dtype))
    flow = run_network(network, batch, batch.flip(-1))
    assert flow.shape == (1, 2, height, width) and flow.dtype == torch.float32 and flow.isfinite().all()


def test_a_known_shift_keeps_its_scale_through_the_resize_rule():
    """A network that always answers 3 px of the inner grid: the outer flow must be 3 * outer/inner, per axis."""

    class Constant(FlowNetwork):
        traits = Traits(size_multiple=32, smallest_size=64, size_rule="resize")

        def forward(self, first, second, size):
            height, width = first.shape[-2:]
            assert height % 32 == 0 and width % 32 == 0
            flow = torch.full((first.shape[0], 2, *size), 3.0)
            return flow * torch.tensor([size[1] / width, size[0] / height]).view(1, 2, 1, 1)

    flow = run_network(Constant(), torch.rand(1, 3, 100, 70), torch.rand(1, 3, 100, 70))
    assert flow.shape == (1, 2, 100, 70)
    assert torch.allclose(flow[:, 0], torch.tensor(3 * 70 / 96)) and torch.allclose(flow[:, 1], torch.tensor(3 * 100 / 128))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_half_precision_stays_near(estimate, dtype):
    exact = estimate(frame(seed=1), frame(seed=2))
    assert np.abs(estimate(frame(seed=1), frame(seed=2), dtype=dtype) - exact).max() < 0.5


def test_weights_are_channels_last_on_a_gpu():
    """The device "meta" stands for one: it too is not the CPU."""
    network = Estimator("liteflownetx", device="meta")._network
    weights = [layer.weight for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_classical_methods_answer_the_same_call():
    pytest.importorskip("cv2")
    first = frame(96, 128)
    second = np.roll(first, 2, axis=1)
    flow = featherflow.estimate(first, second, model="dis")
    assert flow.shape == (96, 128, 2) and abs(float(np.median(flow[..., 0])) - 2) < 0.2


@pytest.mark.parametrize("mode, depth", [("L", 8), ("LA", 8), ("P", 8), ("RGBA", 8), ("1", 1), ("I;16", 16)])
def test_read_image_modes(tmp_path, mode, depth):
    rgb = Image.fromarray(frame())
    path = tmp_path / "image.png"
    if mode == "I;16":
        Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        rgb.convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (64, 80, 3) and image.dtype == np.uint8
    if mode in ("L", "I;16"):
        assert np.array_equal(image[..., 0], np.asarray(rgb.convert("L")))


BAD_FRAMES = {
    "nan": (lambda good: np.where(np.arange(80)[None, :, None] == 5, np.nan, good / 255.0), "NaN"),
    "above one": (lambda good: good.astype(np.float32), "[0, 1]"),
    "bool": (lambda good: good > 3, "bool"),
    "complex": (lambda good: good.astype(np.complex64), "complex"),
    "1x1": (lambda good: good[:1, :1], "1x1"),
    "15 px": (lambda good: good[:15], "80x15"),
    "five channels": (lambda good: np.concatenate((good, good), axis=2)[..., :5], "(64, 80, 5)"),
    "one axis": (lambda good: good[0, :, 0], "(80,)"),
    "other size": (lambda good: good[:, :40], "40x64"),
    "a number": (lambda good: 3.0, "float"),
    "no frames": (lambda good: [], "empty"),
    "missing": (lambda good: "no/such/file.png", "no/such/file.png"),
}


@pytest.mark.parametrize("key", BAD_FRAMES)
def test_bad_frames_end_in_one_sentence(key):
    make, said = BAD_FRAMES[key]
    with pytest.raises(FeatherflowError) as error:
        featherflow.estimate(frame(), make(frame()), model="farneback")
    message = str(error.value)
    assert said in message and "\n" not in message and message.endswith(".")


def test_bad_choices():
    first = frame()
    with pytest.raises(InputError, match="dtype must be one of"):
        featherflow.estimate(first, first, dtype="int4")
    with pytest.raises(InputError, match="no network named 'raftt'"):
        featherflow.estimate(first, first, model="raftt")
    with pytest.raises(InputError, match="not available here"):
        featherflow.estimate(first, first, model="liteflownetx", device="cuda:99")
    with pytest.raises(InputError, match="takes no weights"):
        featherflow.estimate(first, first, model="farneback", weights="x.safetensors")
    with pytest.raises(FileError):
        featherflow.estimate(first, first, model="liteflownetx", weights="missing.safetensors")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(EstimationSettings) if field.name != "device"])
@pytest.mark.parametrize("value", [b"x", 1j, math.nan, [1], np.array([1, 2]), object()], ids=lambda value: type(value).__name__)
def test_a_choice_of_a_wrong_type_ends_in_one_sentence(name, value):
    with pytest.raises(InputError, match=name.removesuffix("s")):
        EstimationSettings(**{name: value})


def test_numbers_of_numpy_are_numbers():
    given = EstimationSettings(refine=np.int64(1), octaves=np.uint8(2), enlarge=np.float32(2), tile=(np.int32(512), 512))
    plain = EstimationSettings(refine=1, octaves=2, enlarge=2.0, tile=(512, 512))
    assert given == plain and repr(given) == repr(plain)


def test_import_is_light():
    """Importing the package must not pull in torch, files or the network."""
    import subprocess
    import sys

    code = "import sys, featherflow; print([m for m in ('torch', 'numpy', 'PIL', 'rich', 'cyclopts') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_weights_are_loaded_without_the_compiler():
    """PyTorch imports its compiler, for some arithmetic on the meta device, where networks are laid out to check weights.

    Triton, which comes with it, ends a program that draws with OpenGL in software, such as napari.
    """
    import subprocess
    import sys

    code = """
import sys, featherflow
from featherflow import networks
from featherflow.weights.store import layout
for name in networks.names():
    layout(name)
featherflow.Estimator()
print([module for module in ("torch._dynamo", "triton") if module in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("rule", ["resize", "pad"])
def test_enlarged_frames_give_flow_in_their_own_pixels(rule):
    """A network that always answers (3, 1) px of the grid it sees: seen at twice the size, that is half of it."""

    class Constant(FlowNetwork):
        traits = Traits(size_multiple=32, smallest_size=64, size_rule=rule)

        def forward(self, first, second, size=None):
            height, width = first.shape[-2:]
            size = (height, width) if size is None else size
            flow = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, *size)
            return flow * torch.tensor([size[1] / width, size[0] / height]).view(1, 2, 1, 1)

    flow = run_network(Constant(), torch.rand(1, 3, 64, 96), torch.rand(1, 3, 64, 96), enlarge=2.0)
    assert flow.shape == (1, 2, 64, 96)
    assert torch.allclose(flow[:, 0], torch.tensor(1.5)) and torch.allclose(flow[:, 1], torch.tensor(0.5))


def test_weights_ask_for_small_frames_to_be_enlarged(tmp_path):
    import dataclasses

    from featherflow.weights import read_weights, save_weights

    state, info = read_weights(small_weights(tmp_path / "plain.safetensors"))
    save_weights(tmp_path / "asking.safetensors", state, dataclasses.replace(info, enlarge_below=70 * 90))
    for shape, enlarges in (((64, 80), True), ((80, 96), False)):
        pair = frame(*shape, seed=1), frame(*shape, seed=2)
        flows = {
            key: featherflow.estimate(*pair, model="liteflownetx", weights=tmp_path / f"{name}.safetensors", enlarge=enlarge)
            for key, name, enlarge in (("asking", "asking", None), ("twice", "plain", 2.0), ("once", "plain", None))
        }
        assert np.array_equal(flows["asking"], flows["twice" if enlarges else "once"])
        assert not np.array_equal(flows["twice"], flows["once"])


def test_octaves_are_the_networks_or_the_callers():
    plain, reaching = build("liteflownetx"), build("liteflownetx", octaves=1)
    reaching.load_state_dict(plain.state_dict())
    pair = frame(140, 180, seed=1), frame(140, 180, seed=2)
    flows = [featherflow.estimate(*pair, model=plain, octaves=octaves) for octaves in (None, 0, 1)]
    assert np.array_equal(flows[0], flows[1]) and not np.array_equal(flows[0], flows[2])
    assert np.array_equal(flows[2], featherflow.estimate(*pair, model=reaching)) and plain.config.octaves == 0
    assert np.array_equal(flows[0], featherflow.estimate(*pair, model=reaching, octaves=0))
    for model, said in (("brox", "takes no octaves"), (build("raft-small"), "takes no octaves"), (plain, "from 0 to 8")):
        with pytest.raises(InputError, match=said):
            featherflow.estimate(*pair, model=model, octaves=9)


@pytest.mark.parametrize(
    "size, more",
    [
        ((436, 1024), 0),
        ((375, 1242), 0),
        ((256, 256), 0),
        ((720, 1280), 1),
        ((1080, 1920), 1),
        ((2160, 3840), 2),
        ((4320, 7680), 3),
    ],
)
def test_reach_grows_with_the_frames(size, more):
    reaching, plain, other = build("liteflownetx", octaves=1), build("liteflownetx"), build("raft-small")
    assert usual_octaves(reaching.traits, size) == 1 + more
    published = more if size[0] * size[1] > LARGEST_WHOLE else 0
    assert usual_octaves(plain.traits, size) == published
    assert usual_octaves(other.traits, size) is None
    assert usual_octaves(reaching.traits, (540, 960), enlarge=2.0) == usual_octaves(reaching.traits, (1080, 1920))


def test_large_frames_are_seen_with_that_reach(monkeypatch):
    monkeypatch.setattr("featherflow.inference.defaults._USUAL_PIXELS", 140 * 180 // 4)
    network = build("liteflownetx", octaves=1)
    pair = frame(140, 180, seed=1), frame(140, 180, seed=2)
    flow, expected = (featherflow.estimate(*pair, model=network, octaves=octaves) for octaves in (None, 2))
    assert np.array_equal(flow, expected)
    assert np.array_equal(next(iter(featherflow.stream(pair, network))), expected)
    both = featherflow.estimate(*pair, model=network, backward=True)
    assert np.array_equal(both[0], expected)
    assert not np.array_equal(flow, featherflow.estimate(*pair, model=network, octaves=1))


@pytest.mark.parametrize("equal_means", [True, False])
def test_both_directions_share_what_is_known_of_each_frame(equal_means):
    """Each frame is encoded once for each colour mean; the flows are those of two calls."""
    network = build("liteflownetx")
    if equal_means:
        network.mean2.copy_(network.mean1)
    encoded = []
    encode = network.encode
    network.encode = lambda *given, **options: encoded.append(1) or encode(*given, **options)
    pair = frame(seed=1), frame(seed=2)
    forward, back = featherflow.estimate(*pair, model=network, backward=True)
    assert len(encoded) == (2 if equal_means else 4)
    assert np.array_equal(forward, featherflow.estimate(*pair, model=network))
    assert np.array_equal(back, featherflow.estimate(*pair[::-1], model=network))


def test_confidence_comes_as_the_last_in_the_form_of_the_frames(estimate):
    first, second = frame(seed=1), frame(seed=2)
    flow, trusted = estimate(first, second, confidence=True)
    forward, backward, again = estimate(first, second, backward=True, confidence=True)
    assert trusted.shape == (64, 80) and trusted.dtype == np.float32
    np.testing.assert_array_equal(flow, forward)
    np.testing.assert_array_equal(trusted, again)
    np.testing.assert_array_equal(trusted, featherflow.flow.confidence(first, second, forward, backward))
    both = estimate([first, second], [second, first], confidence=True)[1]
    assert both.shape == (2, 64, 80)
    tensors = [torch.from_numpy(np.moveaxis(part, -1, 0) / np.float32(255)) for part in (first, second)]
    tensor = estimate(*tensors, confidence=True)[1]
    assert isinstance(tensor, torch.Tensor) and tensor.shape == (1, 64, 80)


@pytest.mark.parametrize("model", ["liteflownet2-slim", "horn-schunck", "dis"])
def test_no_generator_of_the_caller_moves_on(model):
    """Loading and the first estimate leave the random numbers of PyTorch, NumPy and Python where they are."""
    code = f"""
import random, sys
import numpy as np, torch
torch.manual_seed(7), np.random.seed(7), random.seed(7)
def state():
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), np.random.get_state()[2], random.getstate()
before = state()
import featherflow
if {model!r}.startswith("lite"):
    featherflow.load({model!r})
    assert state() == before, "load"
frames = [np.random.default_rng(k).integers(0, 256, (64, 80, 3), dtype=np.uint8) for k in range(3)]
featherflow.estimate(*frames[:2], model={model!r})
assert state() == before, "estimate"
list(featherflow.stream(frames, model={model!r}))
featherflow.estimate(*frames[:2], model={model!r}, refine=1, backward=True)
assert state() == before, "more"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_a_named_network_is_made_ready_once_with_the_same_flow():
    """One that is given is run as it is, since its owner may change it."""
    named = featherflow.Estimator("liteflownet2-slim", dtype="bfloat16", engine="torch", refine=0)
    network = featherflow.load("liteflownet2-slim").to(memory_format=torch.channels_last)
    given = featherflow.Estimator(network, dtype="bfloat16", engine="torch", refine=0)
    pair = frame(130, 190, 1), frame(130, 190, 2)
    expected = given(*pair)
    for _ in range(2):
        assert np.array_equal(named(*pair), expected)
    kinds = [{type(module) for module in estimator._ready.modules()} for estimator in (named, given)]
    assert torch.nn.Conv2d in kinds[1] and ReadyConvolution not in kinds[1]
    if can_make_ready(torch.nn.Conv2d(8, 8, 3)):
        assert torch.nn.Conv2d not in kinds[0] and ReadyConvolution in kinds[0]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    assert not np.array_equal(given(*pair), expected)
