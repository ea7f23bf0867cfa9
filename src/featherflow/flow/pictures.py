"""Flow drawn over the frame that it stands on: as arrows, and as a tint.

All pictures are `(H, W, 3)` uint8 RGB.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from featherflow.errors import InputError
from featherflow.flow.colour import SMALLEST_AUTOMATIC_SCALE, automatic_scale, flow_to_rgb
from featherflow.flow.fields import Flow, Mask, as_field, as_mask, known, positive
from featherflow.pixels import GREY

#: (R, G, B), 0 to 255.
Colour: TypeAlias = "tuple[int, int, int]"

_DOUBTFUL, _WRONG = np.array([255, 208, 0], np.float32), np.array([208, 0, 32], np.float32)


def draw_arrows(
    image: np.ndarray, flow: Flow, step: int | None = None, magnify: float | None = None, colour: Colour | None = None
) -> np.ndarray:
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
    _check_grid(frame, field)
    height, width = frame.shape[:2]
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
    vectors = vectors * positive(magnify, "magnify")
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


def overlay(image: np.ndarray, flow: Flow, scale: float | None = None, strength: float = 0.75) -> np.ndarray:
    """Tint a frame by its flow: what rests looks as it is, what moves takes the hue of its direction.

    Each pixel is `(1 - a) * image + a * hue` with `a = strength * min(|flow| / scale, 1)`, where hue is the colour of
    `flow_to_rgb` at full saturation, darkened beyond `scale` as there. Pixels whose flow is unknown stay as they are.

    Args:
        image: `(H, W, 3)` or `(H, W)` uint8, the frame on whose grid the flow stands.
        flow: `(H, W, 2)` array, or `(2, H, W)` / `(1, 2, H, W)` tensor [px].
        scale: flow length [px] with the full tint, above 0; None takes `automatic_scale(flow)`.
        strength: share of the hue at `scale`, above 0, at most 1.

    Returns `(H, W, 3)` uint8 RGB; `image` is unchanged.

    Raises `InputError` for another shape, type or range of any argument.
    """
    frame, field = _as_frame(image), as_field(flow)
    _check_grid(frame, field)
    scale = automatic_scale(field) if scale is None else positive(scale, "scale")
    if positive(strength, "strength") > 1:
        raise InputError(f"strength must be at most 1, but is {strength!r}")
    valid = known(field)
    length = np.hypot(field[..., 0], field[..., 1], where=valid, out=np.zeros(valid.shape, np.float32))
    share = np.minimum(length / np.float32(scale), 1)[..., None]
    # flow_to_rgb mixes the same hue with white, so that taking the white away leaves share * hue.
    hue = flow_to_rgb(field, scale).astype(np.float32) - 255 * (1 - share)
    tint = np.where(valid[..., None], strength * hue, 0)
    return np.rint(np.clip(frame * (1 - strength * share) + tint, 0, 255)).astype(np.uint8)


def draw_confidence(image: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Show how far each pixel's flow can be trusted: 1 is the frame in grey, less is tinted from yellow (about 1/2) to red (0).

    Args:
        image: `(H, W, 3)` or `(H, W)` uint8; confidence: `(H, W)` in [0, 1], as `featherflow.flow.confidence` gives it.

    Returns `(H, W, 3)` uint8 RGB; `image` is unchanged. Raises `InputError` for another shape, type or range.
    """
    frame = _as_frame(image)
    values = np.asarray(confidence, np.float32)
    if values.shape != frame.shape[:2] or not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"the confidence must be of the image's size {frame.shape[:2]} and in [0, 1], but got {values.shape}")
    values = values[..., None]
    hue = np.where(values < 0.5, _DOUBTFUL * (2 * values) + _WRONG * (1 - 2 * values), _DOUBTFUL)
    tint = 0.75 * np.minimum(2 * (1 - values), 1)
    grey = (frame @ np.array(GREY, np.float32))[..., None]
    return np.rint(grey * (1 - tint) + hue * tint).astype(np.uint8)


def mark(image: np.ndarray, mask: Mask, colour: Colour = (255, 96, 0)) -> np.ndarray:
    """Mark pixels of a frame, for example those of `occlusion`: they take the colour, the others fade to grey.

    Args:
        image: `(H, W, 3)` or `(H, W)` uint8.
        mask: `(H, W)`, true or non-zero where to mark.
        colour: `(R, G, B)`, 0 to 255.

    Returns `(H, W, 3)` uint8 RGB; `image` is unchanged. Raises `InputError` for another shape or type.
    """
    frame = _as_frame(image)
    marked = as_mask(mask, frame.shape[:2], "the mask")[..., None]
    grey = frame @ np.array(GREY, np.float32)
    faded = np.repeat(grey[..., None] * 0.6 + 60, 3, axis=-1)
    return np.rint(np.where(marked, 0.8 * np.array(colour, np.float32) + 0.2 * frame, faded)).astype(np.uint8)


def _check_grid(frame: np.ndarray, field: np.ndarray) -> None:
    if field.shape[:2] != frame.shape[:2]:
        raise InputError(f"the flow must stand on the image's grid, {frame.shape[:2]}, but its grid is {field.shape[:2]}")


def _as_frame(image) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise InputError(f"the image must be (H, W, 3) or (H, W) of type uint8, but got {image.shape} of type {image.dtype}")
    return np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2))
