"""What a run would do, before it does it: stages, lengths, rates and memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import networks
from ..ops import laid_out
from .initialization import initialize
from .loop import autocast_dtype, order_of_maps
from .optimizers import make_optimizer, trained
from .recipe import Recipe

#: Copies of the trained parameters beside the weights: gradients, their sum, the average, and an optimiser's moments.
_COPIES = {"adam": 2, "adamw": 2, "muon": 1}


@dataclass(frozen=True)
class StagePlan:
    """One stage of a run."""

    name: str
    network: str
    parameters: int
    iterations: int
    samples: int
    #: Highest and lowest learning rate.
    rates: tuple[float, float]
    #: Memory of weights, gradients, averages and moments [MiB], counted.
    state_mib: float
    #: What one chunk keeps for its gradients [MiB], counted in one pass over a pair of the crop's size.
    chunk_mib: float

    def memory_mib(self, chunks_at_once: int) -> float:
        """Estimate for a device that differentiates so many chunks side by side; its library's own memory comes on top."""
        return self.state_mib + chunks_at_once * self.chunk_mib


def plan(recipe: Recipe, device: str = "cpu") -> list[StagePlan]:
    """The stages of a recipe, each with its memory measured on the device."""
    stages, where = [], torch.device(device)
    for index, stage in enumerate(recipe.schedule()):
        network = networks.build(stage.network, **stage.options)
        initialize(network, torch.Generator().manual_seed(0))
        laid_out(network.to(where), order_of_maps(autocast_dtype(stage.precision, where), where)).train()
        make_optimizer(network, stage)  # an unknown optimiser is an error now, not hours later
        parameters = sum(parameter.numel() for parameter in trained(network))
        copies = 4 + _COPIES[stage.optimizer]
        rates = [stage.rate(stage.samples * k // 1000) for k in range(1, 1001)]
        stages.append(
            StagePlan(
                recipe.stages[index].name if recipe.stages else "all",
                stage.network,
                parameters,
                stage.samples // stage.batch,
                stage.samples,
                (max(rates), min(rates)),
                copies * 4 * parameters / 2**20,
                stage.batch // stage.chunks * kept_bytes(network, stage, device) / 2**20,
            )
        )
    return stages


def kept_bytes(network: torch.nn.Module, recipe: Recipe, device: str) -> int:
    """Bytes that one pair keeps between the forward and the backward pass: every tensor saved for a gradient, once."""
    storages: dict[int, tuple[int, object]] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    size, where = (1, 3, recipe.height, recipe.width), torch.device(device)
    dtype = autocast_dtype(recipe.precision, where)
    order = order_of_maps(dtype, where)
    frame1, frame2 = (torch.rand(size, device=where).contiguous(memory_format=order) for _ in range(2))
    truth, weight = torch.zeros(1, 2, *size[2:], device=where), torch.ones(1, 1, *size[2:], device=where)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast(where.type, dtype, enabled=dtype is not None, cache_enabled=False):
            recipe.loss(network, frame1, frame2, truth, weight)
    return sum(size for size, _ in storages.values())
