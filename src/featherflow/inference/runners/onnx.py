"""Networks run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...errors import MissingExtraError
from .graphs import ExportWrapper, exported_program, quiet

NAME = "onnx"
DTYPES = ("float32",)
OPSET = 20  # the first with bilinear GridSample of that name
_FILE = "model.onnx"


def version(dtype: str = "float32") -> str:
    return _runtime().__version__


def graph(module: ExportWrapper, frames: tuple[Tensor, Tensor], dynamic_shapes=None):
    """`module` as an ONNX program for frames of these shapes."""
    _need("onnx", "onnxscript")
    program = exported_program(module, frames, dynamic_shapes)
    with quiet():
        made = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=["frame1", "frame2"], output_names=["flow"], verbose=False
        )
    assert made is not None  # it is None without `dynamo`
    return made


def write(module: ExportWrapper, frames: tuple[Tensor, Tensor], folder: Path, dtype: str) -> None:
    """The model as a file in a folder; `dtype` is float32."""
    graph(module, frames).save(folder / _FILE)


def load(path: Path, dtype: str, threads: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The model of a folder, or of an .onnx file, as a function of two frames, for any number of threads; `dtype` is float32."""
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    path = path / _FILE if path.is_dir() else path
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(first: Tensor, second: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {names[0]: first.cpu().numpy(), names[1]: second.cpu().numpy()})[0])

    return run


def _runtime():
    return _need("onnxruntime")[0]


def _need(*names: str):
    from importlib import import_module

    try:
        return [import_module(name) for name in names]
    except ImportError:
        raise MissingExtraError('The engine onnx needs ONNX Runtime: pip install "featherflow[onnx]".') from None
