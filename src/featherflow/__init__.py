"""featherflow: dense optical flow, exact, light and free to use.

The public face is small: `load` a network, `estimate` the flow between two frames or `stream` it along a clip (or make an
`Estimator` ready once and call it), `read_flow` / `write_flow` it, and turn it into a picture with `flow_to_rgb`. Everything is
imported where it is first used, so that `import featherflow` costs next to nothing and touches no network, file or global flag.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import app as app
    from . import classical as classical
    from . import data as data
    from . import demo as demo
    from . import errors as errors
    from . import evaluation as evaluation
    from . import flow as flow
    from . import inference as inference
    from . import napari_plugin as napari_plugin
    from . import networks as networks
    from . import ops as ops
    from . import scale as scale
    from . import training as training
    from . import transport as transport
    from . import video as video
    from . import weights as weights
    from .flow import flow_to_rgb, read_flow, write_flow
    from .inference.estimator import Estimator, estimate, stream
    from .weights import load

__version__ = "0.1.0"

_PUBLIC = {
    "Estimator": "featherflow.inference.estimator",
    "estimate": "featherflow.inference.estimator",
    "flow_to_rgb": "featherflow.flow",
    "load": "featherflow.weights",
    "read_flow": "featherflow.flow",
    "stream": "featherflow.inference.estimator",
    "write_flow": "featherflow.flow",
}

_SUBPACKAGES = (
    "app",
    "classical",
    "data",
    "demo",
    "errors",
    "evaluation",
    "flow",
    "inference",
    "napari_plugin",
    "networks",
    "ops",
    "scale",
    "training",
    "transport",
    "video",
    "weights",
)

__all__ = [
    "Estimator",
    "__version__",
    "errors",
    "estimate",
    "flow",
    "flow_to_rgb",
    "load",
    "networks",
    "read_flow",
    "stream",
    "write_flow",
]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
    elif name in _SUBPACKAGES:
        return import_module(f"featherflow.{name}")
    else:
        raise AttributeError(f"module 'featherflow' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_SUBPACKAGES})
