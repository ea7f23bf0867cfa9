"""The lines of a run as TensorBoard shows them (extra `tensorboard`)."""

from __future__ import annotations

from pathlib import Path

from ..errors import MissingExtraError


class Board:
    """Writes each line of the log to `folder` as curves over samples; pictures of the validation too, as they appear."""

    def __init__(self, folder: Path, pictures: Path | None = None):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError(
                "Curves for TensorBoard need its package; install it with: pip install 'featherflow[tensorboard]'"
            ) from None
        self.writer = SummaryWriter(str(folder))
        self.pictures = pictures

    def __call__(self, line: dict) -> None:
        samples = line["samples"]
        for group, value in line.get("validation", {}).items():
            self.writer.add_scalar(f"validation EPE [px] per_image/{group}", value, samples)
        for key in ("loss", "epe", "norm", "rate", "samples_per_s", "data_share", "skipped"):
            if key in line:
                self.writer.add_scalar(f"training/{key}", line[key], samples)
        if "validation" in line and self.pictures is not None:
            from ..images import read_image

            for path in sorted(self.pictures.glob(f"{samples:09d}-*.png")):
                self.writer.add_image(path.stem.partition("-")[2], read_image(path), samples, dataformats="HWC")
        self.writer.flush()
