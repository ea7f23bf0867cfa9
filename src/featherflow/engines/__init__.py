"""What runs a network: PyTorch as it is, PyTorch compiled, OpenVINO or ONNX Runtime; and networks as files for other programs.

    flow = featherflow.estimate(first, second, engine="openvino")      # built once, kept on disk, checked against PyTorch
    featherflow.engines.export("liteflownet2-slim", "flow.onnx", "onnx", size=(436, 1024))

An engine other than PyTorch's own takes a network apart into a graph for frames of one size. That takes seconds to a minute,
so it is done once for each network, weights and size, and kept in the user's cache folder (`builds.folder`).
"""

from importlib import import_module

ENGINES = ("auto", "torch", "compile", "openvino", "onnx")

_LAZY = {
    "choose": "choice",
    "runner": "choice",
    "Work": "choice",
    "usual_dtype": "choice",
    "export": "export",
    "FORMATS": "export",
    "Portable": "graphs",
}

__all__ = ["ENGINES", *_LAZY]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
