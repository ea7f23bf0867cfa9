"""The Triton kernels without a GPU: in Triton's interpreter against the torch forms, through its compiler for GPUs that are not
there, and the rules by which they are used. Would catch a kernel that reads outside a map or puts a cost in the wrong place."""

import os
import subprocess
import sys

import pytest
import torch
from helpers import run_network

from featherflow import networks, ops
from featherflow.ops import correlate, kernels, local_convolution
from featherflow.ops.correlation import _correlate
from featherflow.ops.local_convolution import _by_patches
from featherflow.training.initialization import initialize

# Whether kernels are interpreted is settled when Triton is imported, so those tests run in a process of their own.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
in_the_interpreter = pytest.mark.skipif(not INTERPRETED, reason="run by test_interpreter_agrees")
HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_interpreter_agrees(tmp_path):
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", __file__, "-k", "interpreted", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout + done.stderr


def random(*shape, seed=0, dtype=torch.float32, channels_last=False):
    maps = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return maps.contiguous(memory_format=torch.channels_last) if channels_last else maps


def agrees(found, expected):
    absolute, relative = kernels.TOLERANCES[found.dtype]
    return torch.allclose(found.double(), expected, atol=absolute, rtol=relative)


@in_the_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize(
    "shape, radius, stride, channels_last",
    [
        ((2, 5, 3, 19), 3, 1, True),
        ((1, 40, 5, 33), 4, 1, False),
        ((1, 16, 7, 16), 3, 2, True),
        ((1, 3, 5, 35), 3, 2, False),
        ((1, 1, 1, 1), 4, 1, False),
        ((1, 33, 2, 17), 10, 1, True),
    ],
)
def test_interpreted_correlation(dtype, shape, radius, stride, channels_last):
    from featherflow.ops import triton_kernels

    maps = [random(*shape, seed=seed, dtype=dtype, channels_last=channels_last)[..., ::stride, ::stride] for seed in (1, 2)]
    found = triton_kernels.correlate(*maps, radius, dtype)
    expected = _correlate(*(x.double() for x in maps), radius)
    assert found.dtype == dtype and found.stride() == expected.stride()
    assert agrees(found, expected)


@in_the_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize(
    "shape, size, channels_last",
    [
        ((2, 2, 3, 19), 3, True),
        ((1, 2, 5, 70), 5, False),
        ((1, 3, 4, 64), 7, True),
        ((1, 1, 1, 1), 7, False),
    ],
)
def test_interpreted_local_convolution(dtype, shape, size, channels_last):
    from featherflow.ops import triton_kernels

    flow = random(*shape, dtype=dtype)
    filters = random(shape[0], size * size, *shape[2:], seed=1, dtype=dtype, channels_last=channels_last)
    found = triton_kernels.local_convolution(flow, filters, dtype)
    assert found.dtype == dtype
    assert agrees(found, _by_patches(flow.double(), filters.double()))


@in_the_interpreter
def test_interpreted_answer_of_another_dtype():
    from featherflow.ops import triton_kernels

    f1, f2 = random(1, 4, 3, 5), random(1, 4, 3, 5, seed=1)
    assert agrees(triton_kernels.correlate(f1, f2, 3, torch.bfloat16), _correlate(f1.double(), f2.double(), 3))


@in_the_interpreter
def test_interpreted_kernels_raise_for_maps_that_do_not_fit():
    from featherflow.ops import triton_kernels

    with pytest.raises(ValueError, match="features of"):
        triton_kernels.correlate(random(1, 4, 3, 5), random(1, 5, 3, 5), 3, torch.float32)
    for filters in (random(1, 8, 3, 5), random(1, 4, 3, 5), random(1, 9, 3, 4)):
        with pytest.raises(ValueError, match="and filters of"):
            triton_kernels.local_convolution(random(1, 2, 3, 5), filters, torch.float32)


@in_the_interpreter
def test_interpreted_network(monkeypatch, lines):
    """All of it: the rules, the trials and the kernels in the place where they work."""
    small = {
        "features": ((4,), (4,), (4,), (4,), (4,), (4,)),
        "finest_level": 5,
        "matching": (4,),
        "subpixel": (4,),
        "regularization": (4,),
    }
    network = networks.build("liteflownet2", **small)
    initialize(network, torch.Generator().manual_seed(0))
    frames = torch.rand(2, 1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = run_network(network, *frames)
    monkeypatch.setattr(kernels, "_on_gpu", lambda tensor: True)
    found = run_network(network, *frames)
    assert {key[0] for key in kernels._answers} == {"correlate", "local_convolution"}
    assert set(kernels._answers.values()) == {torch.float32} and not lines
    assert 0 < (found - expected).abs().max() < 1e-4


@pytest.mark.skipif(INTERPRETED, reason="there is nothing to compile")
@pytest.mark.parametrize("capability", [80, 90])
def test_compiles_to_machine_code(capability, tmp_path, monkeypatch):
    """Triton compiles for a GPU that is not there. TF32 is asked for halves only."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from featherflow.ops import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def compiled(kernel, maps, dtype, **constants):
        types = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(maps, f"*{dtype}") | dict.fromkeys(constants, "constexpr")
        numbered = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        return triton.compile(ASTSource(kernel, types, numbered), target=GPUTarget("cuda", capability, 32)).asm

    for dtype, precision in (("fp32", "ieee"), ("bf16", "tf32"), ("fp16", "tf32")):
        maps = ("features1", "features2", "costs")
        asm = compiled(triton_kernels._correlation, maps, dtype, radius=3, positions=16, reached=32, step=32, precision=precision)
        assert asm["cubin"] and ("tf32" in asm["ptx"]) == (precision == "tf32")
    maps = ("flow", "filters", "filtered")
    assert compiled(triton_kernels._local_convolution, maps, "fp32", size=7, all_channels=2, columns=64)["cubin"]


# ------------------------------------------------------------------------------------------------ the rules


@pytest.fixture(autouse=True)
def nothing_tried():
    kernels._answers.clear()
    kernels._say.cache_clear()
    yield
    kernels._answers.clear()


@pytest.fixture
def lines(monkeypatch):
    """What is logged as a warning."""
    logged = []
    monkeypatch.setattr(kernels.log, "warning", lambda message, *arguments: logged.append(message % arguments))
    return logged


class Spy:
    """A kernel that computes by the torch form in float32, does to the answer what it is told, and counts its calls."""

    def __init__(self, change=lambda costs: costs):
        self.change, self.calls = change, []

    def __call__(self, first, second, *parameters, dtype):
        self.calls.append(dtype)
        with ops.full_precision(first):
            answer = (_correlate if parameters else _by_patches)(first.float(), second.float(), *parameters)
        return self.change(answer.to(dtype))


@pytest.fixture
def pretend(monkeypatch):
    """Tensors of the CPU count as those of a GPU, and a spy as the kernel."""

    def begin(spy):
        monkeypatch.setattr(kernels, "_on_gpu", lambda tensor: True)
        monkeypatch.setattr(kernels, "_kernel", lambda name: spy)
        return spy

    return begin


FEATURES = random(1, 6, 8, 20), random(1, 6, 8, 20, seed=1)
EXPECTED = _correlate(*FEATURES, 3)


def test_a_kernel_that_agrees_is_tried_once_and_used(pretend, lines):
    spy = pretend(Spy())
    for _ in range(3):
        assert torch.allclose(correlate(*FEATURES, 3), EXPECTED)
    assert len(spy.calls) == 4 and not lines  # a trial, three uses
    correlate(*FEATURES, 4)
    correlate(FEATURES[0], FEATURES[1].contiguous(memory_format=torch.channels_last), 3)
    correlate(*(x[:, :4] for x in FEATURES), 3)
    assert len(spy.calls) == 10  # another radius, format and number of channels are tried anew
    filters = random(1, 9, 8, 20)
    assert torch.allclose(local_convolution(FEATURES[0], filters), _by_patches(FEATURES[0], filters))
    assert len(spy.calls) == 12


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda costs: costs + 1e-3, "differs from PyTorch by 0.001"),
        (lambda costs: costs.roll(1, 1), "differs from PyTorch by"),
        (lambda costs: costs * float("nan"), "differs from PyTorch by nan"),
        (lambda costs: costs[..., :-1], "must match"),
        (lambda costs: 1 / 0, "division by zero"),
    ],
)
def test_a_kernel_that_is_wrong_is_not_used(change, said, pretend, lines):
    spy = pretend(Spy(change))
    for _ in range(3):
        assert torch.equal(correlate(*FEATURES, 3), EXPECTED)
    assert len(spy.calls) == 1  # the trial
    assert len(lines) == 1 and "the GPU kernel correlate is not used" in lines[0] and said in lines[0]


def test_a_kernel_that_fails_later_is_given_up(pretend, lines):
    spy = pretend(Spy())
    correlate(*FEATURES, 3)
    spy.change = lambda costs: 1 / 0
    for _ in range(2):
        assert torch.equal(correlate(*FEATURES, 3), EXPECTED)
    assert len(spy.calls) == 3 and len(lines) == 1


def test_memory_that_runs_out_says_nothing_of_a_kernel(pretend, lines):
    def full(costs):
        raise torch.OutOfMemoryError

    spy = pretend(Spy(full))
    with pytest.raises(torch.OutOfMemoryError):
        correlate(*FEATURES, 3)
    spy.change = lambda costs: costs
    correlate(*FEATURES, 3)
    spy.change = full
    with pytest.raises(torch.OutOfMemoryError):
        correlate(*FEATURES, 3)
    assert set(kernels._answers.values()) == {torch.float32} and not lines


def test_without_triton_one_line_is_logged(monkeypatch, lines):
    monkeypatch.setattr(kernels, "_on_gpu", lambda tensor: True)
    monkeypatch.delitem(sys.modules, "featherflow.ops.triton_kernels", raising=False)
    monkeypatch.delattr(ops, "triton_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)  # its import raises
    assert torch.equal(correlate(*FEATURES, 3), EXPECTED)
    assert torch.equal(correlate(*FEATURES, 4), _correlate(*FEATURES, 4))
    local_convolution(FEATURES[0], random(1, 9, 8, 20))
    assert lines == ["GPU kernels are not used, PyTorch's own operators are: Triton is not installed"]


@pytest.mark.skipif(INTERPRETED, reason="the interpreter needs no GPU")
def test_kernels_that_cannot_be_launched_are_given_up(monkeypatch, lines):
    """The real ones, on maps that no GPU can reach."""
    pytest.importorskip("triton")
    monkeypatch.setattr(kernels, "_on_gpu", lambda tensor: True)
    for _ in range(2):
        assert torch.equal(correlate(*FEATURES, 3), EXPECTED)
    assert len(lines) == 1 and "the GPU kernel correlate is not used" in lines[0]


def test_no_kernel_where_a_gradient_is_wanted(pretend):
    spy = pretend(Spy())
    features = FEATURES[0].clone().requires_grad_()
    correlate(features, FEATURES[1], 3).sum().backward()
    assert features.grad.abs().sum() > 0 and not spy.calls
    with torch.no_grad():
        correlate(features, FEATURES[1], 3)
    assert spy.calls


def test_no_kernel_in_a_graph(pretend):
    spy = pretend(Spy())
    whole = torch.compile(lambda a, b: correlate(a, b, 3), backend="eager", fullgraph=True, dynamic=False)
    assert torch.allclose(whole(*FEATURES), EXPECTED, atol=1e-6)
    traced = torch.jit.trace(lambda a, b: correlate(a, b, 3), FEATURES, check_trace=False)
    assert torch.allclose(traced(*FEATURES), EXPECTED, atol=1e-6)

    class Module(torch.nn.Module):
        def forward(self, a, b):
            return correlate(a, b, 3)

    exported = torch.export.export(Module(), FEATURES, strict=False)
    assert torch.allclose(exported.module()(*FEATURES), EXPECTED, atol=1e-6)
    assert not spy.calls


def test_no_kernel_without_a_gpu_for_other_dtypes_or_when_switched_off(pretend, monkeypatch):
    spy = Spy()
    monkeypatch.setattr(kernels, "_kernel", lambda name: spy)
    correlate(*FEATURES, 3)
    pretend(spy)
    correlate(*(x.double() for x in FEATURES), 3)
    correlate(*(x[:0] for x in FEATURES), 3)
    correlate(FEATURES[0].expand(2, -1, -1, -1), FEATURES[1], 3)  # batches that are broadcast
    monkeypatch.setenv("FEATHERFLOW_TRITON", "0")
    correlate(*FEATURES, 3)
    assert not spy.calls
    monkeypatch.delenv("FEATHERFLOW_TRITON")
    correlate(*FEATURES, 3)
    assert spy.calls


def test_shapes_alone_meet_no_kernel(pretend):
    from torch._subclasses.fake_tensor import FakeTensorMode

    spy = pretend(Spy())
    with FakeTensorMode():
        assert correlate(torch.empty(1, 6, 8, 20), torch.empty(1, 6, 8, 20), 3).shape == EXPECTED.shape
    assert not spy.calls


def test_answers_in_the_dtype_of_the_torch_form(pretend, lines):
    """Whatever autocast makes of it, inside or outside, and in which order."""
    spy = pretend(Spy())
    halves = tuple(x.bfloat16() for x in FEATURES)
    for maps in (FEATURES, halves):
        for enabled in (False, True, False):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                assert correlate(*maps, 3).dtype == _correlate(*maps, 3).dtype == spy.calls[-1]
    assert spy.calls and not lines
