"""Networks as files for other programs, each loaded again and compared with PyTorch before it is kept."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import classical, networks
from ..errors import EngineError, InputError, WeightsError
from ..files import atomic_write, full_disk_told, together
from ..networks import PLAIN, FlowNetwork, RunOptions, as_network
from ..weights import load
from .defaults import check_model, usual_enlargement, usual_octaves
from .runners import int8, onnx, openvino
from .runners.choice import TOLERANCE
from .runners.graphs import ExportWrapper, deepest, exported_program, quiet

#: Name to the suffix of its file.
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt", "exported-program": ".pt2"}
#: Those whose files can leave height and width free; a TorchScript trace keeps numbers that it computed from the sizes it saw.
FREE_SIZES = ("onnx", "openvino", "exported-program")
#: Size that is exported where nobody says which: (height, width).
USUAL_SIZE = (448, 1024)

#: Inside a TorchScript file or an exported program.
_FACTS_FILE = "featherflow.json"

Runner = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """A file that was written."""

    model: str
    format: str
    files: tuple[str, ...]
    #: (height, width) of the frames it takes; of the smallest, where heights and widths are free.
    size: tuple[int, int]
    dynamic: bool
    bytes_in: bool
    dtype: str
    #: Size to the largest difference from PyTorch [px].
    differences: dict[str, float]

    def sentence(self) -> str:
        """One line for a person."""
        takes = "any multiple of the network's" if self.dynamic else f"{self.size[1]}x{self.size[0]} px"
        kind = "uint8 frames (1, H, W, 3)" if self.bytes_in else "float32 frames (1, 3, H, W) in [0, 1]"
        checks = ", ".join(f"{size}: {value:.1e} px" for size, value in self.differences.items())
        return f"{', '.join(self.files)}: {self.model} as {self.format}, {kind}, {takes}; largest difference from PyTorch {checks}"


def named_network(name: str, weights: str | os.PathLike[str] | None = None, untrained: bool = False) -> FlowNetwork:
    """The network of a name to be exported.

    Args:
        untrained: where it has no weights and none are given, take random ones, always the same.

    Raises:
        InputError: for a name that is no network's. WeightsError: where it has none, unless they may be random.
    """
    check_model(name)
    if name.partition(":")[0] in classical.METHODS:
        raise InputError(f"'{name}' is a classical method, which has no weights to write into a file; name a network.")
    try:
        return as_network(load(name, weights=weights))
    except WeightsError as error:
        if weights is not None or ":" in name:
            raise
        if not untrained:
            raise WeightsError(f"{str(error).rstrip('.')}. To try a file out with random weights, say --untrained.") from None
        return networks.untrained(name)


def facts(network: FlowNetwork, name: str, module: ExportWrapper) -> dict[str, str]:
    """What a file says of itself: which weights and under which licence, what it takes and what it gives."""
    info, multiple = network.weights_info, network.traits.size_multiple
    enlarge_below = 0 if info is None else info.enlarge_below
    shape = "(1, H, W, 3) uint8" if module.bytes_in else "(1, 3, H, W) float32 in [0, 1]"
    rule = "padded by repeating the border" if module.fitting.pads else "resized"
    height, width = module.fitting.size
    said = {
        "model": name,
        "weights": "not stated, perhaps random" if info is None else info.name,
        "licence of the weights": (info.licence_weights if info is not None else "") or "not stated",
        "licence of the code": (info.licence_code if info is not None else "") or "Apache-2.0",
        "frames": f"{shape}, RGB",
        "flow": ("(1, H, W, 2)" if module.bytes_in else "(1, 2, H, W)") + " float32 [px], to the right and down, on frame 1",
        "sizes": f"multiples of {multiple} px"
        if module.free
        else f"{width}x{height} px, {rule} inside to multiples of {multiple} px",
    }
    if module.free and enlarge_below:
        said["small frames"] = f"of fewer than {enlarge_below} pixels: enlarge them twofold and halve their flow, as estimate does"
    elif module.fitting.seen != module.fitting.size:
        said["small frames"] = "enlarged inside to {1}x{0} px, as the weights ask".format(*module.fitting.seen)
    return {f"featherflow {key}": value for key, value in said.items()}


def export(
    model: str | nn.Module,
    path: str | os.PathLike[str],
    to: str | None = None,
    *,
    options: RunOptions = PLAIN,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    dynamic: bool = False,
    with_frames: bool = False,
    dtype: str = "float32",
) -> Exported:
    """Write a network as a file that other programs run. The file is kept only if it gives PyTorch's flow.

    Inputs `frame1`, `frame2` are `(1, 3, H, W)` float32 RGB in [0, 1], output `flow` is `(1, 2, H, W)` float32 [px]. Small frames
    are seen enlarged where the weights ask for it, as by `featherflow.estimate`; a file with free sizes sees them as they are. The
    file says what it is: see `facts`.

    Args:
        model: a network, or the name of one (see `named_network`).
        options: how the network is run. Octaves: as `featherflow.estimate`; where sizes are free as the weights ask, whatever the
            size of the frames, and the smallest size doubles with each octave beyond the first.
        name: how the network is called. Default: `model`, if that is a name; else the network's class.
        to: one of `FORMATS`. Default: as the suffix of `path` says. OpenVINO writes a .bin beside its .xml.
        size: (height, width) of the frames. Other sizes than multiples of the network's are resized or padded inside, by its
            official rule. Default: 448x1024.
        dynamic: leave height and width free; they must then be multiples of the network's `size_multiple`. For the formats in
            `FREE_SIZES`, of networks whose graph does not depend on the size.
        with_frames: take frames `(1, H, W, 3)` uint8 RGB and give flow `(1, H, W, 2)`, as files and cameras have them.
        dtype: "float32", or for OpenVINO "bfloat16" or "int8": of the convolutions; frames and flow stay as they are.

    Raises:
        InputError: for what cannot be combined. MissingExtraError: for a format whose package is not installed.
        EngineError: if the exporter cannot take the network, or what it wrote differs by more than 0.001 px (in bfloat16: 1 px; in
            int8: a tenth of the flow's mean length, on average).
        FileError: for a path that cannot be written. WeightsError: for the name of a network without weights.
    """
    path = Path(path)
    if to is None:
        to = next((name for name, suffix in FORMATS.items() if suffix == path.suffix), None)
    if to not in FORMATS:
        raise InputError(f"The format must be one of {', '.join(FORMATS)}, got '{to or path.suffix}'.")
    if path.suffix != FORMATS[to]:
        raise InputError(f"A file of the format {to} must end in {FORMATS[to]}, got '{path.name}'.")
    if dtype not in (openvino.DTYPES if to == "openvino" else ("float32",)):
        raise InputError(f"The format {to} is not exported in '{dtype}'; openvino takes {', '.join(openvino.DTYPES)}.")
    if dynamic and to not in FREE_SIZES:
        raise InputError(f"The format {to} is exported for one size; leave --dynamic out and name height and width.")
    if dynamic and dtype == "int8":
        raise InputError("In int8 a file is calibrated for one size; leave --dynamic out and name height and width.")
    if dynamic and (with_frames or size is not None):
        raise InputError("A file with free height and width takes frames of the network's multiple as they are: no size, no bytes.")
    if size is not None and min(size) < 16:
        raise InputError(f"The smallest frame is 16x16 px, got {size[1]}x{size[0]}.")
    network = named_network(model) if isinstance(model, str) else as_network(model)
    name = name or (model if isinstance(model, str) else type(network).__name__)
    if dynamic and network.traits.graph_follows_size:
        raise InputError(f"The graph of {name} depends on the size of the frames; leave --dynamic out and name height and width.")
    enlarge = 1.0 if dynamic else usual_enlargement(network, size or USUAL_SIZE)
    if options.octaves is None and not dynamic:
        options = replace(options, octaves=usual_octaves(network.traits, size or USUAL_SIZE, enlarge))
    sizes = _free_sizes(network, options) if dynamic else [size or USUAL_SIZE]
    fixed = deepcopy(network).requires_grad_(False)  # a file that asks for gradients hands on tensors that numpy refuses
    module = ExportWrapper(fixed, sizes[-1], options, enlarge=enlarge, bytes_in=with_frames, free=dynamic)
    said = facts(network, name, module)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        try:
            shapes = _free_shapes(network, options) if dynamic else None
            with full_disk_told(folder):
                run = _WRITERS[to](module, module.example(), draft, dtype, shapes, said)
            differences = _compare(network, module, run, sizes, options, dynamic, dtype)
        except (EngineError, ImportError, MemoryError, OSError):
            raise
        except Exception as error:  # exporters raise whatever they stumble over
            where = f"{to} with free sizes" if dynamic else to
            raise EngineError(f"{name} cannot be exported to {where} ({deepest(error)}).") from error
        most = {"float32": TOLERANCE, "bfloat16": 1.0, "int8": float("inf")}[dtype]
        worst = max(differences.values())
        if not worst <= most:
            raise EngineError(f"{name} as {to} differs from PyTorch by {worst:.2g} px, more than {most} px; nothing was written.")
        files = sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name)  # the named one last: it needs the others
        with together():
            for file in files:
                with atomic_write(path.with_name(file.name), durable=True) as target:
                    target.write(file.read_bytes())
    written = tuple(str(path.with_name(file.name)) for file in reversed(files))
    return Exported(name, to, written, sizes[0], dynamic, with_frames, dtype, differences)


def _least(network: FlowNetwork, options: RunOptions) -> int:
    """Of the sides that a file with free sizes takes [px]. In each octave no side is then smaller than the network's smallest."""
    unit = network.traits.size_multiple
    octaves = network.traits.usual_octaves if options.octaves is None else options.octaves
    return -(-max(network.traits.smallest_size * 2**octaves, 128) // unit) * unit


def _free_sizes(network: FlowNetwork, options: RunOptions) -> list[tuple[int, int]]:
    """Two sizes that the network takes. The second is no limit anywhere: exporters take what equals a limit for a constant."""
    unit, least = network.traits.size_multiple, _least(network, options)
    return [(least, least + unit), (least + 2 * unit, 2 * least)]


def _free_shapes(network: FlowNetwork, options: RunOptions):
    unit, least = network.traits.size_multiple, _least(network, options)
    height, width = (torch.export.Dim(name, min=least // unit, max=8192 // unit) for name in ("rows", "columns"))
    return ({2: unit * height, 3: unit * width},) * 2


def _compare(
    network: FlowNetwork,
    module: ExportWrapper,
    run: Runner,
    sizes: list[tuple[int, int]],
    options: RunOptions,
    dynamic: bool,
    dtype: str,
) -> dict[str, float]:
    """Largest difference from PyTorch [px] on each size; of a file for one size, on two pairs of frames.

    Raises:
        EngineError: for a file in int8 that differs by more than `int8.LIMIT`.
    """
    differences = {}
    for index, size in enumerate(sizes if dynamic else sizes * 2):
        direct = ExportWrapper(network, size, options, bytes_in=module.bytes_in) if dynamic else module
        frames = direct.example(seed=index)
        name = f"{size[1]}x{size[0]}" + ("" if dynamic or index == 0 else ", other frames")
        with torch.no_grad():
            expected, flow = direct(*frames), run(*frames)
        differences[name] = float((flow - expected).abs().max())
        if dtype == "int8":
            int8.check(flow, expected)
    return differences


def _write_onnx(module: ExportWrapper, frames, path: Path, dtype: str, shapes, said: dict[str, str]) -> Runner:
    program = onnx.graph(module, frames, shapes)
    program.model.metadata_props.update(said)
    program.save(path)
    return onnx.load(path, "float32", torch.get_num_threads())


def _write_openvino(module: ExportWrapper, frames, path: Path, dtype: str, shapes, said: dict[str, str]) -> Runner:
    model = openvino.graph(module, frames, shapes, dtype)
    for key, value in said.items():
        model.set_rt_info(value, key.replace(" ", "_"))
    openvino.save(model, path)
    return openvino.load(path, "float32", torch.get_num_threads())  # any other dtype is part of the file


def _write_exported_program(module: ExportWrapper, frames, path: Path, dtype: str, shapes, said: dict[str, str]) -> Runner:
    program = exported_program(module, frames, shapes)
    with quiet():
        torch.export.save(program, path, extra_files={_FACTS_FILE: json.dumps(said)})
        return torch.export.load(path).module()


def _write_torchscript(module: ExportWrapper, frames, path: Path, dtype: str, shapes, said: dict[str, str]) -> Runner:
    with torch.no_grad(), quiet():
        traced = torch.jit.trace(module, frames, check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={_FACTS_FILE: json.dumps(said)})
        return torch.jit.load(str(path))


_WRITERS = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "torchscript": _write_torchscript,
    "exported-program": _write_exported_program,
}
