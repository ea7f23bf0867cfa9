"""Options of verbs that write a video: how it is written, and what it may replace."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter


@dataclass(frozen=True)
class WritingOptions:
    """How a video is written.

    Parameters
    ----------
    crf
        Quality of vp9, av1 and h264, smaller is better and larger: 0 to 63, by default 24, 28 and 18. Nothing at all is lost by
        --codec ffv1 (in .mkv) and by numbered PNG files (-o out/%06d.png).
    overwrite
        Let the video take the place of the clip it is made from.
    """

    crf: int | None = None
    overwrite: Annotated[bool, Parameter(negative="")] = False

    def settings(self) -> dict[str, Any]:
        """Keywords of `featherflow.video.flow_video` and its like."""
        return dataclasses.asdict(self)


#: As parameters of a verb, whose fields become its options; and their defaults.
Writing = Annotated[WritingOptions, Parameter(name="*")]
WRITING = WritingOptions()
