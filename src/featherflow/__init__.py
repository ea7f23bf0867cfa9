"""featherflow: dense optical flow, exact, light and free to use.

The public face is small: `load` a network, `estimate` the flow between two frames or `stream` it along a clip,
`read_flow` / `write_flow` it, and turn it into a picture with `flow_to_rgb`. Everything is imported where it is first used,
so that `import featherflow` costs next to nothing and touches no network, file or global flag.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "load": "featherflow.weights",
    "Estimator": "featherflow.inference",
    "estimate": "featherflow.inference",
    "stream": "featherflow.inference",
    "read_flow": "featherflow.flow",
    "write_flow": "featherflow.flow",
    "flow_to_rgb": "featherflow.flow",
}

_ROOMS = (
    "app",
    "classical",
    "data",
    "demo",
    "errors",
    "inference",
    "evaluation",
    "flow",
    "networks",
    "ops",
    "training",
    "transport",
    "video",
    "weights",
)

__all__ = ["__version__", "errors", "flow", "networks", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
    elif name in _ROOMS:
        return import_module(f"featherflow.{name}")
    else:
        raise AttributeError(f"module 'featherflow' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_PUBLIC, *_ROOMS})
