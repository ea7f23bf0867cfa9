"""Layers of napari from pictures and their flow, as (data, keywords, kind); nothing here needs napari.

napari's axes are (t, y, x), or (y, x), with pixel centres at whole numbers; a flow is (x to the right, y down) [px]. So the flow
(3, 1) is a vector whose step is (0, 1, 3) along (t, y, x). The flow from picture t to picture t + 1 stands at t, on the pixels of
picture t; the last picture has none. Layers take over the place of the pictures' layer (scale, rotation, units, ...), so that they
lie exactly on it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import FeatherflowError, FileError, InputError, counted, is_out_of_memory
from ..flow import SMALLEST_MEASURED_SCALE, flow_to_rgb, measured_scale
from ..inference.estimator import Estimator, kept_estimator
from ..pixels import Range, own_range, range_of, to_unit
from ..transport.fluids import Calibration, on_grid
from ..transport.fluids import from_flow as velocities
from ..transport.tracking import follow, grid

#: (data, keywords of the layer, its kind), as napari's plugins hand them over.
LayerData = tuple[Any, dict[str, Any], str]

MAPS = ("vorticity", "divergence", "shear")
OUTPUTS = ("vectors", "colour", "tracks", *MAPS)

_LONG = 95  # percentile of the arrows that reach to the next one
_PLACE = ("scale", "translate", "rotate", "shear", "units", "axis_labels")


@dataclass(frozen=True, eq=False)
class Place:
    """Where the pixels of a layer are."""

    #: What a layer is told to lie there.
    keywords: dict[str, Any] = field(default_factory=dict)
    #: `(n, n)`, from steps of pixels to steps of `translate`, before the layer's own affine transform.
    linear: np.ndarray = field(default_factory=lambda: np.eye(2))

    @classmethod
    def of(cls, layer) -> Place:
        """The place of a layer of napari."""
        keywords = {name: getattr(layer, name) for name in _PLACE if hasattr(layer, name)}
        affine = np.asarray(layer.affine.affine_matrix)
        count = len(affine) - 1
        axes = np.vstack([np.zeros(count), np.eye(count)])
        world = np.array([layer.data_to_world(tuple(axis)) for axis in axes])
        linear = np.linalg.solve(affine[:count, :count], (world[1:] - world[0]).T)
        return cls({**keywords, "affine": affine}, linear)

    def coarser(self, spacing: int, y: float, x: float) -> dict[str, Any]:
        """Keywords of a layer whose pixels are squares of `spacing` pixels, the first with its centre at (y, x) [px]."""
        count = len(self.linear)
        first = np.array([0.0] * (count - 2) + [y, x])
        factors = np.array([1.0] * (count - 2) + [spacing] * 2)
        scale = np.asarray(self.keywords.get("scale", np.ones(count))) * factors
        translate = np.asarray(self.keywords.get("translate", np.zeros(count))) + self.linear @ first
        return {**self.keywords, "scale": scale, "translate": translate}


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in the order of time, each read when it is needed."""

    name: str
    #: A stack `(T, H, W)` or `(T, H, W, C)`, C = 3 or 4, or a list of such pictures; arrays, or what becomes one (dask, zarr).
    arrays: Any
    place: Place
    #: Whether they are a stack along an axis of time; two layers are none.
    timed: bool
    #: The numbers that become black and white where they are deeper than 8 bit. None: as everywhere, see `featherflow.pixels`.
    value_range: Range | None = None

    @property
    def count(self) -> int:
        return self.arrays.shape[0] if self.timed else len(self.arrays)  # arrays of zarr have no length

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) [px]."""
        return tuple(self.arrays.shape[1:3] if self.timed else self.arrays[0].shape[:2])

    def frames(self) -> Iterator[np.ndarray]:
        """Pictures as an estimator takes them: uint8, or float32 in [0, 1], all scaled alike.

        Raises:
            InputError: for NaN, infinite values, a type that is no number, or floating point outside [0, 1] without a range;
            FileError: for a picture that cannot be read.
        """
        indices, common = range(self.count), None
        types = [self.arrays.dtype] if self.timed else [array.dtype for array in self.arrays]
        if self.value_range is None and any(np.dtype(kind).kind in "iu" and kind != np.uint8 for kind in types):
            common = range_of(self._read(index) for index in indices)
        for index in indices:
            array = self._read(index)
            if array.dtype != np.uint8:
                array = to_unit(array, f"Picture {index} of '{self.name}'", own_range(array, self.value_range, common))
            yield array

    def _read(self, index: int) -> np.ndarray:
        try:
            array = np.asarray(self.arrays[index])
        except Exception as error:  # of whatever stands behind a stack that is read when it is needed
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise FileError(f"Picture {index} of '{self.name}' cannot be read: {reason.rstrip('.')}.") from error
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def pictures_of(layer, second=None, by_contrast: bool = False) -> Pictures:
    """The pictures of an image layer of napari.

    Args:
        layer: a stack (T, Y, X) or (T, Y, X, RGB); or one picture (Y, X), (Y, X, RGB) with a second layer of the same kind.
        second: the picture after it. Default: none.
        by_contrast: take the layers' contrast limits as black and white, where they are deeper than 8 bit and grey.

    Raises:
        InputError: for one picture alone, more axes, two sizes, or a second layer beside a stack.
    """
    layers = [layer] if second is None else [layer, second]
    arrays = [one.data[0] if one.multiscale else one.data for one in layers]
    axes = [array.ndim - bool(one.rgb) for array, one in zip(arrays, layers, strict=True)]
    if second is None and (axes[0] == 2 or (axes[0] == 3 and arrays[0].shape[0] < 2)):
        raise InputError(f"'{layer.name}' is one picture; flow needs two: a stack along time, or a second layer.")
    for array, count, one in zip(arrays, axes, layers, strict=True):
        if second is None and count != 3:
            raise InputError(
                f"'{one.name}' has {count} axes {tuple(array.shape[:count])}; flow takes a stack (T, Y, X), so choose one plane or "
                "channel, or project volumes first."
            )
        if second is not None and count != 2:
            raise InputError(f"'{one.name}' is no single picture, which both layers have to be; a stack is taken without a second.")
    if second is not None and arrays[0].shape[:2] != arrays[1].shape[:2]:
        (height, width), (height2, width2) = (array.shape[:2] for array in arrays)
        raise InputError(
            f"The two pictures must have one size, but '{layer.name}' is {width}x{height} and '{second.name}' {width2}x{height2}."
        )
    limits = [one.contrast_limits for one in layers if not one.rgb] if by_contrast else []
    value_range = (float(min(low for low, _ in limits)), float(max(high for _, high in limits))) if limits else None
    return Pictures(layer.name, arrays[0] if second is None else arrays, Place.of(layer), second is None, value_range)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for.

    Raises:
        InputError: for no output, or one that is none of `OUTPUTS`.
    """

    outputs: Sequence[str] = ("vectors",)
    #: Distance of vectors, and of the points that tracks start from [px]. A vector is the mean of a square of this side.
    spacing: int = 16
    #: Side of the squares of vorticity, divergence and shear [px].
    map_spacing: int = 4
    #: Unit of speeds and of the maps; positions and steps stay in pixels, which the layer's scale turns into its own unit.
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        if not self.outputs or set(self.outputs) - set(OUTPUTS):
            raise InputError(f"Choose at least one output of {', '.join(OUTPUTS)}.")


@dataclass(frozen=True)
class Outcome:
    """What became of it: layers of the pairs that were done, whatever ended it."""

    layers: list[LayerData]
    done: int
    total: int
    error: Exception | None = None

    @property
    def is_unexpected(self) -> bool:
        """Whether the error is a fault of the program, of which a person has to see where it happened."""
        return self.error is not None and not isinstance(self.error, FeatherflowError) and not is_out_of_memory(self.error)

    def sentence(self) -> str | None:
        """What a person has to be told: an error, or that it was stopped; None where all went well."""
        if self.error is None and self.done == self.total:
            return None
        reason = str(self.error)
        if self.error is None:
            reason = "The estimation was stopped."
        elif is_out_of_memory(self.error):
            reason = "There is not enough memory for pictures of this size; try smaller ones."
        return f"{reason} The layers hold {self.done} of {counted(self.total, 'pair')}." if self.done else reason


class Collected:
    """Layers that grow with each flow.

    Args:
        name: of the pictures, which begins the names of the layers.
        timed: whether layers have an axis of time.
    """

    def __init__(self, name: str, place: Place, timed: bool, wanted: Wanted):
        self.name, self.place, self.timed, self.wanted = name, place, timed, wanted
        self.vectors: list[np.ndarray] = []
        self.flows: list[np.ndarray] = []
        self.maps: dict[str, list[np.ndarray]] = {name: [] for name in MAPS if name in wanted.outputs}
        self.states: list[tuple[np.ndarray, np.ndarray]] = []
        self.corner = (0.0, 0.0)
        self.count = 0

    def add(self, flow: np.ndarray) -> None:
        """The next flow `(H, W, 2)` [px]."""
        wanted = self.wanted
        if "vectors" in wanted.outputs:
            self.vectors.append(vectors_of(flow, wanted.spacing, self.count if self.timed else None))
        if "colour" in wanted.outputs:
            with np.errstate(over="ignore"):  # fine enough for colours, whose scale is known at the end alone
                self.flows.append(flow.astype(np.float16))
        if self.maps:
            found = velocities(flow, calibration=wanted.calibration, spacing=wanted.map_spacing)
            _, x, y = on_grid(flow, wanted.map_spacing)
            self.corner = float(y[0]), float(x[0])
            for name, values in self.maps.items():
                values.append(getattr(found, name).astype(np.float32))
        self.count += 1

    def steps(self, frames: Iterator[np.ndarray], estimator: Estimator) -> Iterator[None]:
        """Estimates flow after flow and adds each, and the points where it leads them."""
        if "tracks" not in self.wanted.outputs:
            for flow in estimator.stream(frames):
                self.add(flow)
                yield
            return
        first = next(frames)

        def both():
            yield first
            yield from frames

        def flows():
            for flow, backward in estimator.stream(both(), backward=True):
                self.add(flow)
                yield flow, backward

        for state in follow(flows(), grid(first.shape[1], first.shape[0], self.wanted.spacing)):
            self.states.append(state)
            if len(self.states) > 1:
                yield

    def layers(self) -> list[LayerData]:
        """Of the flows that were added, the ones that lie below first."""
        if not self.count:
            return []
        found: list[LayerData] = []
        if self.flows:
            found.append(self._colours())
        found += [self._map(name, values) for name, values in self.maps.items()]
        if self.vectors:
            found.append(self._vectors())
        if self.states:
            data, confidence = tracks_of(self.states)
            keywords = {"name": f"{self.name} tracks", "features": {"confidence": confidence}, **self.place.keywords}
            found.append((data, keywords, "tracks"))
        return found

    def _joined(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(values) if self.timed else values[0]

    def _colours(self) -> LayerData:
        scale = max(measured_scale(flow.astype(np.float32)) for flow in self.flows)
        data = self._joined([flow_to_rgb(flow, scale) for flow in self.flows])
        name = f"{self.name} flow, full colour at {scale:.3g} px"
        return data, {"name": name, "rgb": True, **self.place.keywords}, "image"

    def _vectors(self) -> LayerData:
        data = np.concatenate(self.vectors)
        calibration = self.wanted.calibration
        lengths = np.linalg.norm(data[:, 1], axis=1)
        longest = float(np.percentile(lengths, _LONG)) if len(lengths) else 0.0
        keywords = {
            "name": f"{self.name} flow",
            "features": {f"speed [{calibration.velocity_unit}]": lengths * calibration.velocity_per_px},
            "edge_color": f"speed [{calibration.velocity_unit}]",
            "edge_colormap": "viridis",
            "vector_style": "arrow",
            "edge_width": max(self.wanted.spacing / 8, 0.5),
            # Times as long as the step, so that long ones reach to the next; a scene at rest is not blown up to noise.
            "length": max(round(self.wanted.spacing / max(longest, SMALLEST_MEASURED_SCALE)), 1),
        }
        return data, {**keywords, **self.place.keywords}, "vectors"

    def _map(self, name: str, values: list[np.ndarray]) -> LayerData:
        data = self._joined(values)
        known = np.abs(data[np.isfinite(data)])
        most = (float(np.percentile(known, 99)) if known.size else 0.0) or 1.0
        unit = self.wanted.calibration.rate_unit
        keywords = {
            "name": f"{self.name} {name}" if unit == "1" else f"{self.name} {name} [{unit}]",
            "colormap": "coolwarm",
            "contrast_limits": (-most, most),
            "blending": "translucent",
            "opacity": 0.7,
        }
        return data, {**keywords, **self.place.coarser(self.wanted.map_spacing, *self.corner)}, "image"


def vectors_of(flow: np.ndarray, spacing: int, time: int | None = None) -> np.ndarray:
    """A flow `(H, W, 2)`, x and y [px], as vectors of napari `(N, 2, 2)`: where each starts, and its step, both as (y, x) [px].

    Args:
        spacing: side of squares [px]: a vector is the mean of one and starts at its centre; those that are unknown are left out.
        time: index of the picture, by which vectors become `(N, 2, 3)`, in (t, y, x).

    Raises:
        InputError: for a spacing beyond the frame.
    """
    steps, x, y = on_grid(flow, spacing)
    starts = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    vectors = np.stack([starts, steps[..., ::-1]], axis=-2)[~np.isnan(steps[..., 0])]
    if time is None:
        return vectors
    times = np.broadcast_to(np.array([time, 0.0])[:, None], (len(vectors), 2, 1))
    return np.concatenate([times, vectors], axis=-1)


def tracks_of(states: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Points as tracks of napari, in order.

    Args:
        states: for each picture the positions `(N, 2)`, x and y [px], and the confidences `(N,)`, 0 from where a point is lost on.

    Returns:
        `(M, 4)`: number of the point, t, y, x; and the confidence `(M,)` of each row.
    """
    positions, confidence = (np.stack(values, axis=1) for values in zip(*states, strict=True))
    point, time = np.nonzero(confidence > 0)
    x, y = positions[point, time].T
    return np.stack([point, time, y, x], axis=1), confidence[point, time]


def estimated(
    pictures: Pictures, wanted: Wanted, model: str | None = None, stopped: Callable[[], bool] = lambda: False
) -> Generator[int, None, Outcome]:
    """The layers of pictures, estimated pair by pair.

    Args:
        model: as `featherflow.estimate`. stopped: asked after each pair whether that is enough.

    Yields:
        After each pair, how many are done.

    Returns:
        The outcome. Nothing is raised: an error stands in it beside the layers of the pairs that were done before.
    """
    total, error = pictures.count - 1, None
    if not pictures.timed and "tracks" in wanted.outputs:
        return Outcome(
            [], 0, total, InputError("Tracks go through a stack; leave them out for two layers, or make a stack of these.")
        )
    collected = Collected(pictures.name, pictures.place, pictures.timed, wanted)
    try:
        on_grid(np.zeros((*pictures.size, 2)), max(wanted.spacing, wanted.map_spacing if collected.maps else 1))  # before all work
        for _ in collected.steps(pictures.frames(), kept_estimator(model)):
            yield collected.count
            if stopped():
                break
    except Exception as reason:
        error = reason
    return Outcome(collected.layers(), collected.count, total, error)
