"""The most memory that a piece of work held at once."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak resident memory of this process since `start` [MiB].

    Linux can forget its record, so that each method of a comparison has a peak of its own. Where that is not possible the
    peak is that of the whole process so far, and `own` is False.
    """

    own = False

    def start(self) -> None:
        """Forget what was held before."""
        try:
            _CLEAR.write_text("5")
            self.own = True
        except OSError:
            self.own = False

    def mib(self) -> float | None:
        """The peak so far; None on a system that does not tell."""
        try:
            lines = _STATUS.read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
        except (OSError, StopIteration, ValueError):
            pass
        try:
            import resource
        except ImportError:
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
