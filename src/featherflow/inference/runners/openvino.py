"""Networks run by OpenVINO on the CPU."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ...errors import MissingExtraError
from . import bfloat16, calibration, int8, onnx
from .graphs import ExportWrapper, exported_program, quiet
from .processor import cpu_has_bfloat16

NAME = "openvino"
DTYPES = ("float32", "bfloat16", "int8")
_FILE = "model.xml"


def version(dtype: str = "float32") -> str:
    """Of all that makes a build."""
    own = _openvino().__version__.split("-")[0]
    return f"{own}, {int8.version()}" if dtype == "int8" else own


def graph(module: ExportWrapper, frames: tuple[Tensor, Tensor], dynamic_shapes=None, dtype: str = "float32"):
    """`module` as an OpenVINO model for frames of these shapes, with its convolutions in `dtype`."""
    openvino = _openvino()
    if dynamic_shapes is None:
        with quiet(), _without_arguments():
            model = openvino.convert_model(exported_program(module, frames))
        model.reshape({index: list(frame.shape) for index, frame in enumerate(frames)})
        for index, name in enumerate(("frame1", "frame2")):
            model.inputs[index].get_tensor().set_names({name})
        model.outputs[0].get_tensor().set_names({"flow"})
    else:
        # Its converter of PyTorch's graphs has no rule for arithmetic on sizes; that of ONNX has.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.graph(module, frames, dynamic_shapes).save(path)
            with quiet(), _without_arguments():
                model = openvino.convert_model(path)
    if dtype == "bfloat16":
        bfloat16.narrow(model)
    if dtype == "int8":
        return int8.quantize(model, calibration.rendered_pairs(module, len(frames[0])), module.fitting.grid)
    return model


@contextmanager
def _without_arguments() -> Iterator[None]:
    """OpenVINO looks for --verbose among the words of any program's command line, and reports on standard output then."""
    words = sys.argv
    sys.argv = words[:1]
    try:
        yield
    finally:
        sys.argv = words


def write(module: ExportWrapper, frames: tuple[Tensor, Tensor], folder: Path, dtype: str) -> None:
    """The model as files in a folder: in int8, or in float32, which serves bfloat16 as well."""
    save(graph(module, frames, dtype="int8" if dtype == "int8" else "float32"), folder / _FILE)


def save(model, path: Path) -> None:
    """A model as an .xml file and a .bin file beside it."""
    _openvino().save_model(model, path, compress_to_fp16=False)


def load(path: Path, dtype: str, threads: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The model of a folder, or of an .xml file, as a function of two frames.

    Any number of threads may call it: one computes, on all cores, while others wait.

    Args:
        dtype: "bfloat16" narrows the convolutions and what leads to them, "int8" those that are not quantised, where the CPU has
            bfloat16; else all is as it was written.
    """
    openvino = _openvino()
    core = openvino.Core()
    model = core.read_model(path / _FILE if path.is_dir() else path)
    if dtype == "bfloat16" or (dtype == "int8" and cpu_has_bfloat16()):
        bfloat16.narrow(model)
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    )
    request, lock = compiled.create_infer_request(), threading.Lock()

    def run(first: Tensor, second: Tensor) -> Tensor:
        frames = [first.cpu().numpy(), second.cpu().numpy()]
        with lock:  # a request holds the maps of one pair; its answer is overwritten by the next
            return torch.from_numpy(request.infer(frames, share_inputs=True, share_outputs=True)[0].copy())

    return run


def _openvino():
    try:
        import openvino
    except ImportError:
        raise MissingExtraError('The engine openvino needs OpenVINO: pip install "featherflow[openvino]".') from None
    return openvino
