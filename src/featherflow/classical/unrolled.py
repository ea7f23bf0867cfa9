"""The unrolling principle, executable: K iterations of Horn and Schunck straightened into K blocks, their operators learned.

Every warp of the coarse-to-fine driver of `featherflow.classical` runs the same K blocks. Block k is

    w <- w + omega_k (S(N(w)) - w)

with N the mean of the neighbours (smoothness), S the pixel-wise solution of the data term given that mean (Horn and Schunck,
Artificial Intelligence 1981, equations 12 and 13), and omega_k a step. What is learned, and its hand-set value:

| operator                                                                            | hand-set               |
|-------------------------------------------------------------------------------------|------------------------|
| features of both frames that the data term compares, a 5x5 convolution              | the grey level itself  |
| their derivative, five taps, mirrored for y                                         | (1, -8, 0, 8, -1) / 12 |
| weight of a pixel's data term, 1 / (1 + rho^2 r^2) of its residual r [grey levels]  | rho = 0                |
| alpha^2, the weight of smoothness against data                                      | alpha^2 = 64           |
| the 3x3 kernel of N, and guides whose difference makes a neighbour count less there | Horn and Schunck's; 0  |
| omega_k of each block                                                               | 1                      |

With the hand-set operators the network is the method `horn-schunck`, equal to rounding. So it starts from a method that
works, and training can only be asked how far the operators are from the best ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.contract import FlowNetwork, Traits
from ..pixels import GREY
from .pyramid import Pyramid, coarse_to_fine, rescale_flow, sample, separable
from .solvers import data_solution, data_tensor, mean_kernel

#: Of a pixel's eight neighbours: (dy, dx).
NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


@dataclass(frozen=True)
class UnrolledConfig:
    """`iterations`: K. `features`, `guides`: channels of the data term and of the guide. `alpha`: hand-set [grey levels].
    `pyramid`: of the coarse-to-fine driver."""

    iterations: int = 10
    features: int = 4
    guides: int = 4
    alpha: float = 8.0
    pyramid: Pyramid = field(default_factory=lambda: Pyramid(factor=0.5, warps=3))


class UnrolledHornSchunck(FlowNetwork):
    """Frames `(B, 3, H, W)` float32 RGB in [0, 1], of any size from 16 px, to flow `(B, 2, H, W)` float32 [px].

    Made with hand-set operators; `loosen` moves them off that point, where some gradients vanish, before training.
    """

    traits = Traits(size_multiple=1, smallest_size=16)

    def __init__(self, config: UnrolledConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UnrolledConfig()
        kernels = torch.zeros(config.features, 1, 5, 5)
        kernels[0, 0, 2, 2] = 1
        self.features = nn.Parameter(kernels)
        self.derivative = nn.Parameter(torch.tensor((1.0, -8.0, 0.0, 8.0, -1.0)) / 12)
        self.robustness = nn.Parameter(torch.zeros(()))
        self.log_alpha_squared = nn.Parameter(2 * torch.log(torch.tensor(config.alpha)))
        kernel = mean_kernel(kernels)[0, 0]
        self.log_neighbours = nn.Parameter(torch.stack([kernel[1 + dy, 1 + dx] for dy, dx in NEIGHBOURS]).log())
        self.guides = nn.Parameter(torch.zeros(config.guides, 1, 3, 3))
        self.steps = nn.Parameter(torch.ones(config.iterations))

    def loosen(self, amount: float = 0.02, seed: int = 0) -> UnrolledHornSchunck:
        """Add normal noise of deviation `amount` to features and guides, and `amount` to rho. Returns the network itself."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in (self.features, self.guides):
                parameter += amount * torch.randn(parameter.shape, generator=generator)
            self.robustness += amount
        return self

    def forward(self, first: Tensor, second: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Flow from `first` to `second`.

        Args:
            size: (height, width) to give the flow at; default that of the frames.
        """
        weights = first.new_tensor(GREY).view(1, 3, 1, 1)
        grey1, grey2 = ((frame * weights).sum(dim=1, keepdim=True) * 255 for frame in (first, second))
        flow = coarse_to_fine(grey1, grey2, self.step, self.config.pyramid)
        return flow if size is None else rescale_flow(flow, size)

    def step(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        """K blocks around `flow`: what `coarse_to_fine` calls on grey levels `(B, 1, H, W)`."""
        tensor = self._data_term(first, second, flow)
        weights = self._neighbour_weights(first)
        alpha_squared, start = self.log_alpha_squared.exp(), flow
        for omega in self.steps:
            solved = data_solution(tensor, _weighted_mean(flow, weights), start, alpha_squared)
            flow = flow + omega * (solved - flow)
        return flow

    def _data_term(self, first: Tensor, second: Tensor, flow: Tensor) -> tuple[Tensor, ...]:
        warped, inside = sample(second, flow)
        one, two = (_convolve(frame, self.features) for frame in (first, warped))
        single = self.derivative.new_ones(1)
        dx, dy = (
            inside * (separable(one, *taps) + separable(two, *taps)) / 2
            for taps in ((self.derivative, single), (single, self.derivative))
        )
        dt = inside * (two - one)
        trust = 1 / (1 + self.robustness.square() * dt.square().sum(dim=1, keepdim=True))
        return tuple(trust * part for part in data_tensor(dx, dy, dt))

    def _neighbour_weights(self, first: Tensor) -> Tensor:
        """Share of each of `NEIGHBOURS` in the mean at each pixel, `(B, 8, H, W)`, summing to 1."""
        guide = _convolve(first / 255, self.guides)
        distances = [(shifted - guide).square().sum(dim=1) for shifted in _shifted(guide)]
        return torch.softmax(self.log_neighbours.view(1, -1, 1, 1) - torch.stack(distances, dim=1), dim=1)


def _weighted_mean(flow: Tensor, weights: Tensor) -> Tensor:
    mean = torch.zeros_like(flow)
    for index, shifted in enumerate(_shifted(flow)):
        mean = mean + weights[:, index : index + 1] * shifted
    return mean


def _shifted(x: Tensor) -> list[Tensor]:
    """`x` as seen by each of `NEIGHBOURS`; edges repeat."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return [padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in NEIGHBOURS]


def _convolve(frame: Tensor, kernels: Tensor) -> Tensor:
    side = kernels.shape[-1] // 2
    return F.conv2d(F.pad(frame, (side,) * 4, mode="replicate"), kernels)
