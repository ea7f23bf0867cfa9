"""Long clips in spans, so that several workers share one: each ends with the frame that the next begins with."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

from ..images import IMAGE_SUFFIXES
from .job import Item
from .places import opened

_AT_ONCE = 8  # clips whose length is asked for; elsewhere each answer takes a while


def in_spans(items: Sequence[Item], seconds: int) -> list[Item]:
    """The same items, those of videos in parts of about so many seconds, each named after its start: `film/000300s`.

    As many as fit best, and the last to the end, so that a length that a file gives a little wrong leaves nothing out. What is no
    video, says no length or cannot be read stays one item.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        lengths = pool.map(_length, items)
    return [part for item, length in zip(items, lengths, strict=True) for part in _parts(item, length, seconds)]


def _parts(item: Item, length: Fraction, seconds: int) -> list[Item]:
    starts = range(0, max(round(length / seconds), 1) * seconds, seconds)
    if len(starts) == 1:
        return [item]
    ends = [*starts[1:], None]
    return [replace(item, name=f"{item.name}/{start:06d}s", span=(start, end)) for start, end in zip(starts, ends, strict=True)]


def _length(item: Item) -> Fraction:
    """Of a video [s]; 0 of all else."""
    from ..video.clips import Selection
    from ..video.containers import open_bytes
    from ..video.decoding import VideoClip

    (place, *more) = item.sources
    if more or item.fault or place.lower().endswith(IMAGE_SUFFIXES):
        return Fraction(0)
    try:
        clip = VideoClip(place, lambda: open_bytes(opened(place), place), Selection())
    except Exception:  # each service has errors of its own, also in the middle of a file
        return Fraction(0)  # whoever does the item says why
    return Fraction(clip.expected or 0) / clip.rate
