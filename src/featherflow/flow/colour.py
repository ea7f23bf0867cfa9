"""Flow and its errors as colours: the Middlebury colour wheel and KITTI's bins of the error.

All pictures are `(H, W, 3)` uint8 RGB.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from featherflow.errors import InputError
from featherflow.files import atomic_write
from featherflow.flow.fields import Flow, Mask, as_field, as_mask, known, positive

# Baker et al., IJCV 2011: steps from each of six hues to the next; more where the eye tells more colours apart.
_WHEEL_STEPS = (
    ((255, 0, 0), (255, 255, 0), 15),  # red to yellow
    ((255, 255, 0), (0, 255, 0), 6),  # yellow to green
    ((0, 255, 0), (0, 255, 255), 4),  # green to cyan
    ((0, 255, 255), (0, 0, 255), 11),  # cyan to blue
    ((0, 0, 255), (255, 0, 255), 13),  # blue to magenta
    ((255, 0, 255), (255, 0, 0), 6),  # magenta to red
)
_BEYOND_SCALE = 0.75  # how much a length beyond the scale is darkened

# An automatic scale stops here: below a hundredth of a pixel there is only noise, which should not fill the wheel.
SMALLEST_AUTOMATIC_SCALE = 0.01

# Rows are coloured in bands, so that the float temporaries of a 4K field stay small.
_BAND_PIXELS = 1 << 16

#: Share of the longest motions that one scale for a whole sequence draws in full colour and a little darker, so that a few wild
#: pixels do not turn all others pale.
SCALE_PERCENTILE = 99.0
SMALLEST_MEASURED_SCALE = 0.5  # px; below it there is nothing but noise to fill the wheel with

SCALE_KEY = "featherflow:flow-scale-px"

# KITTI 2015 development kit: upper end of each bin in multiples of the outlier threshold, and its colour. Blue bins
# are inliers, from yellow on they are outliers (a ColorBrewer RdYlBu scale).
_ERROR_BINS = (
    (1 / 16, (49, 54, 149)),
    (1 / 8, (69, 117, 180)),
    (1 / 4, (116, 173, 209)),
    (1 / 2, (171, 217, 233)),
    (1, (224, 243, 248)),
    (2, (254, 224, 144)),
    (4, (253, 174, 97)),
    (8, (244, 109, 67)),
    (16, (215, 48, 39)),
    (np.inf, (165, 0, 38)),
)


def _make_wheel() -> np.ndarray:
    """The 55 colours `(55, 3)`, 0 to 255, rounded down as in the original."""
    colours = []
    for start, end, steps in _WHEEL_STEPS:
        for step in range(steps):
            change = 255 * step // steps
            colours.append([a + change * ((b > a) - (b < a)) for a, b in zip(start, end, strict=True)])
    return np.array(colours, np.float32)


_WHEEL = _make_wheel()


def automatic_scale(flow: Flow) -> float:
    """The flow length [px] that `flow_to_rgb` draws at full saturation when no scale is given.

    It is the largest length over the known pixels, and at least `SMALLEST_AUTOMATIC_SCALE`. To give every frame of a
    video the same colours, take the largest of its frames' scales and pass it to `flow_to_rgb`.
    Raises `InputError` for what is not a flow (see `flow_to_rgb`).
    """
    field = as_field(flow)
    lengths = np.hypot(field[..., 0], field[..., 1])[known(field)]
    return max(float(lengths.max(initial=0)), SMALLEST_AUTOMATIC_SCALE)


def measured_scale(flow: np.ndarray, least: float = SMALLEST_MEASURED_SCALE) -> float:
    """Flow length [px] that is to have full colour in a sequence, from one flow `(H, W, 2)`: its 99th percentile, or `least`."""
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    lengths = lengths[np.isfinite(lengths)]
    return max(float(np.percentile(lengths, SCALE_PERCENTILE)) if lengths.size else 0.0, least)


def flow_to_rgb(flow: Flow, scale: float | None = None) -> np.ndarray:
    """Draw a flow in the colours of the Middlebury benchmark (Baker et al., IJCV 2011; their colorcode.cpp).

    Hue is the direction (right red, down yellow, left blue-green, up violet), saturation the length: zero flow is
    white, `scale` px and more is full colour, and what is longer than `scale` is darkened by a quarter.

    Args:
        flow: `(H, W, 2)` array, or `(2, H, W)` / `(1, 2, H, W)` tensor [px].
        scale: flow length [px] drawn at full saturation, above 0; None takes `automatic_scale(flow)`.

    Returns `(H, W, 3)` uint8 RGB. Pixels whose flow is unknown (NaN, infinite or beyond 1e9 px) are black.

    Raises `InputError` for another shape or type of flow, and for a scale that is not a positive number.
    """
    field = as_field(flow)
    scale = automatic_scale(field) if scale is None else positive(scale, "scale")
    height, width = field.shape[:2]
    picture = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        picture[top : top + rows] = _colour(field[top : top + rows], scale)
    return picture


def _colour(field: np.ndarray, scale: float) -> np.ndarray:
    valid = known(field)
    field = np.where(valid[..., None], field, np.float32(0))
    x, y = field[..., 0], field[..., 1]
    # Plus zero turns -0 into 0: at the wheel's seam the sign of zero would decide between its first and last colour.
    angle = np.arctan2(-(y + 0), -(x + 0)) / np.float32(np.pi)
    position = (angle + 1) * np.float32((len(_WHEEL) - 1) / 2)
    first = np.minimum(position.astype(np.intp), len(_WHEEL) - 1)
    between = (position - first)[..., None]
    full = _WHEEL[first] * (1 - between) + _WHEEL[(first + 1) % len(_WHEEL)] * between
    # The lengths are those of automatic_scale, bit by bit, so that the longest is exactly at full colour, not beyond.
    length = (np.hypot(x, y).astype(np.float64) / scale)[..., None]
    colours = np.where(length <= 1, 255 - length * (255 - full), full * _BEYOND_SCALE)
    colours[~valid] = 0
    # A millionth of float noise must not turn 229.99999 into 229; otherwise round down, as the original does.
    return np.floor(colours + 1e-4).astype(np.uint8)


def save_flow_picture(path: str | os.PathLike[str], flow: Flow, scale: float | None = None, legend: bool = False) -> float:
    """Write `flow_to_rgb(flow, scale)` as a PNG, complete or not at all, and return the scale [px] that was used.

    With `legend`, `with_legend` is drawn into it. The scale also stands in the file, as the PNG text `featherflow:flow-scale-px`.
    Raises `InputError` as `flow_to_rgb` does and for a suffix other than `.png`; `FileError` when it cannot write.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} cannot hold a flow picture: expected a file name that ends in .png")
    content, scale = encode_flow_picture(flow, scale, legend)
    with atomic_write(path) as file:
        file.write(content)
    return scale


def encode_flow_picture(flow: Flow, scale: float | None = None, legend: bool = False) -> tuple[bytes, float]:
    """The bytes that `save_flow_picture` would write, and the scale [px] that was used. Raises as `flow_to_rgb`."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    scale = automatic_scale(flow) if scale is None else positive(scale, "scale")
    text = PngInfo()
    text.add_text(SCALE_KEY, repr(scale))
    buffer = io.BytesIO()
    picture = flow_to_rgb(flow, scale)
    Image.fromarray(with_legend(picture, scale) if legend else picture).save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue(), scale


def colour_wheel_legend(size: int = 151) -> np.ndarray:
    """The key to `flow_to_rgb`: a disc in which each point has the colour of the flow from the centre to it.

    Its edge stands for flow of length `scale`; outside the disc it is white. Returns `(size, size, 3)` uint8 RGB.
    Raises `InputError` for a size below 3.
    """
    if size < 3:
        raise InputError(f"size must be at least 3 px, but is {size}")
    fine = 3  # samples for each pixel along each axis, for a smooth edge
    axis = (np.arange(size * fine, dtype=np.float32) + 0.5) / (size * fine) * 2 - 1
    field = np.stack(np.meshgrid(axis, axis), axis=-1)
    picture = flow_to_rgb(field, 1.0)
    picture[np.hypot(field[..., 0], field[..., 1]) > 1] = 255
    return picture.reshape(size, fine, size, fine, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def with_legend(picture: np.ndarray, scale: float) -> np.ndarray:
    """A picture `(H, W, 3)` uint8 with the wheel of colours and the length that its edge stands for, in the lower right corner.

    The wheel is a fifth of the shorter side, at least 24 px; a picture that cannot hold it stays as it is.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[:2]
    size = max(min(height, width) // 5, 24)
    label, font = f"{scale:.3g} px", ImageFont.load_default(max(size // 4, 9))
    left, top, right, bottom = font.getbbox(label)
    wide, high = max(size, right - left + 2), size + bottom - top + 4
    if wide > width or high > height:
        return picture.copy()
    box = Image.new("RGB", (wide, high), "white")
    box.paste(Image.fromarray(colour_wheel_legend(size)), ((wide - size) // 2, 0))
    ImageDraw.Draw(box).text(((wide - right + left) / 2 - left, size + 2 - top), label, fill="black", font=font)
    drawn = picture.copy()
    drawn[height - high :, width - wide :] = np.asarray(box)
    return drawn


def error_map(flow: Flow, truth: Flow, valid: Mask | None = None, absolute: float = 3.0, relative: float = 0.05) -> np.ndarray:
    """Colour the end-point error in the ten logarithmic bins of the KITTI 2015 development kit.

    The error is put in multiples of the outlier threshold, `min(epe / absolute, epe / (relative * |truth|))`: up to 1
    the pixel is an inlier, in five blues that double from 1/16 on; above, it is an outlier, in yellow to dark red.

    Args:
        flow, truth: `(H, W, 2)` arrays or `(2, H, W)` / `(1, 2, H, W)` tensors [px].
        valid: `(H, W)`, true or non-zero where the truth counts; where it is NaN or beyond 1e9 px it never does.
        absolute: threshold in px, above 0.
        relative: threshold as a fraction of the true length, above 0.

    Returns `(H, W, 3)` uint8 RGB, black where there is no truth. A pixel without a prediction has the last colour.

    Raises `InputError` for arguments of another shape or type.
    """
    field, true = as_field(flow, dtype=np.float64), as_field(truth, "the truth", np.float64)
    if field.shape != true.shape:
        raise InputError(f"flow and truth must have one size, but are {field.shape[:2]} and {true.shape[:2]}")
    absolute, relative = positive(absolute, "absolute"), positive(relative, "relative")
    counts = known(true)
    if valid is not None:
        counts &= as_mask(valid, counts.shape)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        epe = np.hypot(*np.moveaxis(field - true, -1, 0))
        # Without motion the relative error is infinite (or 0 / 0), and the absolute one decides.
        share = np.fmin(epe / absolute, epe / (relative * np.hypot(true[..., 0], true[..., 1])))
    share[~known(field)] = np.inf
    ends = np.array([end for end, _ in _ERROR_BINS[:-1]])
    colours = np.array([colour for _, colour in _ERROR_BINS], np.uint8)
    picture = colours[np.searchsorted(ends, np.where(counts, share, 0))]
    picture[~counts] = 0
    return picture
