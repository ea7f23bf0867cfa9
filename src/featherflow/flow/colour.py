"""Pictures of flow: the Middlebury colour wheel, arrows over a frame, and maps of the error.

All pictures are `(H, W, 3)` uint8 RGB.
"""

import os
from pathlib import Path

import numpy as np

from featherflow.errors import InputError
from featherflow.files import atomic_write
from featherflow.flow.fields import as_field, as_mask, known

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


def automatic_scale(flow) -> float:
    """The flow length [px] that `flow_to_rgb` draws at full saturation when no scale is given.

    It is the largest length over the known pixels, and at least `SMALLEST_AUTOMATIC_SCALE`. To give every frame of a
    video the same colours, take the largest of its frames' scales and pass it to `flow_to_rgb`.
    Raises `InputError` for what is not a flow (see `flow_to_rgb`).
    """
    field = as_field(flow)
    lengths = np.hypot(field[..., 0], field[..., 1])[known(field)]
    return max(float(lengths.max(initial=0)), SMALLEST_AUTOMATIC_SCALE)


def flow_to_rgb(flow, scale: float | None = None) -> np.ndarray:
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
    scale = automatic_scale(field) if scale is None else _positive(scale, "scale")
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


def save_flow_picture(path: str | os.PathLike, flow, scale: float | None = None) -> float:
    """Write `flow_to_rgb(flow, scale)` as a PNG, complete or not at all, and return the scale [px] that was used.

    The scale also stands in the file, as the PNG text `featherflow:flow-scale-px`.
    Raises `InputError` as `flow_to_rgb` does and for a suffix other than `.png`; `FileError` when it cannot write.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} cannot hold a flow picture: expected a file name that ends in .png")
    scale = automatic_scale(flow) if scale is None else _positive(scale, "scale")
    picture = Image.fromarray(flow_to_rgb(flow, scale))
    text = PngInfo()
    text.add_text(SCALE_KEY, repr(scale))
    with atomic_write(path) as file:
        picture.save(file, format="PNG", pnginfo=text)
    return scale


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


def draw_arrows(image, flow, step: int | None = None, magnify: float | None = None, colour=None) -> np.ndarray:
    """Draw the flow as arrows over a frame.

    Each arrow starts at a pixel of a regular grid, or where the flow is unknown there at the nearest known pixel of
    the grid's cell, and shows that pixel's flow exactly, `magnify` times as long as it is. Cells without a known pixel
    have no arrow, and pixels that move less than a twentieth of the longest arrow's have a dot.

    Args:
        image: `(H, W, 3)` or `(H, W)` uint8, the frame on whose grid the flow stands.
        flow: `(H, W, 2)` array, or `(2, H, W)` / `(1, 2, H, W)` tensor [px].
        step: distance of the arrows [px], at least 2; None takes about 28 of them along the longer side.
        magnify: drawn length over flow length, above 0; None makes long arrows (95th percentile) about as long as
            `step`. Use 1 for arrows that end where the pixel goes.
        colour: `(R, G, B)`, 0 to 255, for all arrows; None gives each its direction's hue on the colour wheel.

    Returns `(H, W, 3)` uint8 RGB; `image` is unchanged.

    Raises `InputError` for another shape, type or range of any argument.
    """
    from PIL import Image, ImageDraw

    frame = _as_frame(image)
    field = as_field(flow)
    height, width = frame.shape[:2]
    if field.shape[:2] != (height, width):
        raise InputError(
            f"the flow must stand on the image's grid, {(height, width)}, but its grid is {field.shape[:2]}"
        )
    if step is None:
        step = max(10, round(max(height, width) / 28))
    elif step < 2:
        raise InputError(f"step must be at least 2 px, but is {step}")
    step = int(step)

    # Centred, so that the margins left and right, above and below are alike.
    columns = np.arange((width - 1) % step // 2, width, step)
    rows = np.arange((height - 1) % step // 2, height, step)
    tails = _known_near(known(field), columns, rows, step)
    if len(tails) == 0:
        return frame.copy()
    vectors = field[tails[:, 1], tails[:, 0]].astype(np.float64)
    hues = flow_to_rgb((vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))[None], 1.0)[0]
    if magnify is None:
        magnify = 1.05 * step / max(np.percentile(np.linalg.norm(vectors, axis=1), 95), SMALLEST_AUTOMATIC_SCALE)
    vectors = vectors * _positive(magnify, "magnify")
    lengths = np.linalg.norm(vectors, axis=1)
    # Long ones last, so that they lie above the short ones.
    order = np.argsort(lengths, kind="stable")

    # Drawn larger and scaled down, for smooth edges; less so on large frames, where it matters less and costs more.
    fine = 4 if height * width <= 1 << 20 else 2
    layer = Image.new("RGBA", (width * fine, height * fine), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    thickness = float(np.clip(step / 11, 1.3, 5)) * fine
    halo = float(np.clip(step / 22, 0.9, 2)) * fine
    dot_below = lengths.max() / 20
    for index in order:
        ink = tuple(int(c) for c in (hues[index] if colour is None else colour))
        tail = (tails[index] + 0.5) * fine  # a pixel's centre lies half a pixel inside the picture
        if lengths[index] <= max(dot_below, 0.5):
            for radius, paint in ((thickness * 0.7 + halo, (0, 0, 0)), (thickness * 0.7, ink)):
                pen.ellipse([*(tail - radius), *(tail + radius)], fill=(*paint, 255))
            continue
        _draw_arrow(pen, tail, vectors[index] * fine, thickness, halo, ink)
    layer = layer.resize((width, height), Image.Resampling.BOX)
    picture = Image.fromarray(frame).convert("RGBA")
    picture.alpha_composite(layer)
    return np.asarray(picture.convert("RGB")).copy()


def _known_near(valid: np.ndarray, columns: np.ndarray, rows: np.ndarray, step: int) -> np.ndarray:
    """One pixel (x, y) for each grid cell that has a known one: the known pixel nearest to the cell's centre."""
    reach = (step - 1) // 2
    found = []
    for y in rows:
        for x in columns:
            if valid[y, x]:
                found.append((x, y))
                continue
            top, left = max(y - reach, 0), max(x - reach, 0)
            near_y, near_x = np.nonzero(valid[top : y + reach + 1, left : x + reach + 1])
            if len(near_y):
                best = np.argmin((near_y + top - y) ** 2 + (near_x + left - x) ** 2)
                found.append((near_x[best] + left, near_y[best] + top))
    return np.array(found, np.intp).reshape(-1, 2)


def _draw_arrow(pen, tail: np.ndarray, vector: np.ndarray, thickness: float, halo: float, ink) -> None:
    """One arrow as a single polygon, first wider in black, so that it stands out from any background."""
    length = float(np.linalg.norm(vector))
    along = vector / length
    across = np.array([-along[1], along[0]])
    # Short arrows are thinner, so that they keep an arrow's proportions.
    thickness *= float(np.clip(length / (6 * thickness), 0.55, 1))
    head = min(3.4 * thickness, 0.6 * length)
    wing = max(0.5 * head, 0.9 * thickness)
    half = min(thickness / 2, 0.5 * wing)
    outline = [(0, half), (length - head, half), (length - head, wing), (length, 0)]
    outline += [(x, -y) for x, y in reversed(outline[:3])]
    points = [tuple(tail + along * x + across * y) for x, y in outline]
    # The halo is the outline's stroke with round joints: a polygon's own `width` would leave gaps at sharp corners.
    closed = [*points, points[0], points[1]]
    pen.line(closed, fill=(0, 0, 0, 255), width=round(2 * halo), joint="curve")
    pen.polygon(points, fill=(*ink, 255))


def error_map(flow, truth, valid=None, absolute: float = 3.0, relative: float = 0.05) -> np.ndarray:
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
    absolute, relative = _positive(absolute, "absolute"), _positive(relative, "relative")
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


def _as_frame(image) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise InputError(
            f"the image must be (H, W, 3) or (H, W) of type uint8, but got {image.shape} of type {image.dtype}"
        )
    return np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2))


def _positive(value, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not (np.isfinite(number) and number > 0):
        raise InputError(f"{name} must be a positive number, but is {value!r}")
    return number
