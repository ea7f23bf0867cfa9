"""Several processes that train one network together, as `torchrun` starts them; without it, one process alone.

Each makes and differentiates its share of the parts of a batch; gradients are summed over all, so that every process takes the same
step. Process 0 writes what is written; the others read the run's folder when they start, so it must be one that all of them see.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, distributed


class Processes:
    """This process and the others.

    Args:
        device: "cuda" becomes the GPU of this process; the processes then talk through NCCL, else through Gloo.
    """

    def __init__(self, device: str = "cpu"):
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if device == "cuda" and self.count > 1:
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        self.device = torch.device(device)
        if self.count > 1 and not distributed.is_initialized():
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all processes, in place."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, wish: bool) -> bool:
        """Whether any process wants it; the same answer everywhere."""
        if self.count == 1:
            return wish
        flag = torch.tensor([float(wish)], device=self.device)
        distributed.all_reduce(flag)
        return bool(flag > 0)

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            distributed.barrier()

    def leave(self) -> None:
        """End the talks; after a run."""
        if self.count > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
