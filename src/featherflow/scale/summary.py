"""What became of all items."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ..errors import counted


@dataclass(frozen=True)
class ItemFailure:
    """An item that could not be done."""

    name: str
    error: str
    #: How often it was tried.
    attempts: int


@dataclass
class ScaleResult:
    """Numbers of items, and seconds."""

    items: int
    #: Done now.
    done: int = 0
    #: There already, and intact.
    skipped: int = 0
    #: Flows, or pictures of videos, that were made now.
    frames: int = 0
    #: From the start of the workers to the last item, without that of Ray [s].
    seconds: float = 0.0
    #: Of all workers together, on what is done now [s].
    work_seconds: float = 0.0
    cpus_per_worker: float = 1.0
    #: "node/process" of each worker that did something.
    workers: list[str] = field(default_factory=list)
    failures: list[ItemFailure] = field(default_factory=list)

    @property
    def core_hours(self) -> float:
        """Time of work by the CPUs that were set aside for it [h]."""
        return self.work_seconds * self.cpus_per_worker / 3600

    @property
    def frames_per_core_hour(self) -> float | None:
        """None where nothing was done."""
        return self.frames / self.core_hours if self.core_hours > 0 else None

    def as_dict(self) -> dict[str, object]:
        """As JSON has it."""
        rate = self.frames_per_core_hour
        figures = {"failed": len(self.failures), "core_hours": round(self.core_hours, 6)}
        figures["frames_per_core_hour"] = None if rate is None else round(rate, 1)
        return asdict(self) | {"seconds": round(self.seconds, 3), "work_seconds": round(self.work_seconds, 3)} | figures

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads, and a row for each figure."""
        rate = self.frames_per_core_hour
        cells = {
            "items": str(self.items),
            "done": str(self.done),
            "there already": str(self.skipped),
            "failed": str(len(self.failures)),
            "flows or pictures": str(self.frames),
            "seconds": f"{self.seconds:.1f}",
            "workers": str(len(self.workers)),
            "core-hours": f"{self.core_hours:.4f}",
            "flows or pictures for each core-hour": "" if rate is None else f"{rate:.0f}",
        }
        return ["", "number"], [list(cell) for cell in cells.items()]

    def sentence(self) -> str:
        """One line for a person."""
        parts = [f"{counted(self.items, 'item')}: {self.done} done"]
        parts += [f"{self.skipped} {'was' if self.skipped == 1 else 'were'} there already"] if self.skipped else []
        parts += [f"{len(self.failures)} failed"] if self.failures else []
        parts += [f"{self.seconds:.1f} s by {counted(len(self.workers), 'worker')}"] if self.workers else []
        return "; ".join(parts) + "."
