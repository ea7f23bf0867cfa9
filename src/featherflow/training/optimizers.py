"""Optimisers: AdamW, Muon for the hidden convolutions, and the Adam of the papers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .recipes import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser. Weights decay, biases do not.

    With Muon, the layers that answer with a flow or a distance, the first convolution and all biases keep AdamW: they
    are no maps between hidden spaces, which is what the orthogonal update is for. "adam" is Adam with its usual numbers,
    whose decay is added to the gradient. Frozen parameters are left out.
    """
    answering = {id(m.weight) for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and _is_answer(name)}
    first = next(p for p in network.parameters() if p.ndim == 4)
    hidden, other, biases = [], [], []
    for parameter in trained(network):
        if parameter.ndim < 2:
            biases.append(parameter)
        elif recipe.optimizer == "muon" and parameter is not first and id(parameter) not in answering:
            hidden.append(parameter)
        else:
            other.append(parameter)
    groups = [
        {"params": other, "weight_decay": recipe.weight_decay, "rate_factor": 1.0, "orthogonal": False},
        {"params": biases, "weight_decay": 0.0, "rate_factor": 1.0, "orthogonal": False},
    ]
    if hidden:
        groups.append(
            {"params": hidden, "weight_decay": recipe.weight_decay, "rate_factor": recipe.muon_factor, "orthogonal": True}
        )
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.learning_rate)
    return MuonAdamW(groups, lr=recipe.learning_rate)


def trained(network: nn.Module) -> list[nn.Parameter]:
    """Parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _is_answer(module_name: str) -> bool:
    return module_name.endswith(("flow", "mask.1", "logits")) or ".distance" in module_name


class MuonAdamW(torch.optim.Optimizer):
    """AdamW for most parameters, Muon for groups with `orthogonal`: momentum whose update is made orthogonal.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); decoupled decay as in AdamW.
    """

    def __init__(self, groups, lr: float, betas: tuple[float, float] = (0.9, 0.99), momentum: float = 0.95, eps: float = 1e-8):
        super().__init__(groups, {"lr": lr, "betas": betas, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["momentum"] = torch.zeros_like(parameter)
                    if not group["orthogonal"]:
                        state["square"] = torch.zeros_like(parameter)
                state["step"] += 1
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            for parameter, update in (self._muon if group["orthogonal"] else self._adam)(parameters, group):
                parameter.add_(update, alpha=-group["lr"])

    def _adam(self, parameters: list[nn.Parameter], group: dict) -> Iterator[tuple[nn.Parameter, Tensor]]:
        beta1, beta2 = group["betas"]
        for parameter in parameters:
            state = self.state[parameter]
            gradient = gradient_of(parameter)
            state["momentum"].lerp_(gradient, 1.0 - beta1)
            state["square"].lerp_(gradient.square(), 1.0 - beta2)
            mean = state["momentum"] / (1.0 - beta1 ** state["step"])
            deviation = (state["square"] / (1.0 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
            yield parameter, mean.div_(deviation)

    def _muon(self, parameters: list[nn.Parameter], group: dict) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Updates of all layers, those of one shape in one product of matrices."""
        alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            self.state[parameter]["momentum"].lerp_(gradient_of(parameter), 1.0 - group["momentum"])
            alike[parameter.flatten(1).shape].append(parameter)
        for shape, layers in alike.items():
            updates = [gradient_of(p).lerp(self.state[p]["momentum"], group["momentum"]) for p in layers]
            # A factor that gives each update the root mean square of Adam's, about 0.2 per entry at equal rates.
            matrices = orthogonalize(torch.stack([update.flatten(1) for update in updates])).mul_(0.2 * math.sqrt(max(shape)))
            for parameter, update, matrix in zip(layers, updates, matrices, strict=True):
                yield parameter, matrix.view(update.shape)


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """The gradient of a parameter that has one."""
    assert parameter.grad is not None  # `step` leaves the others out
    return parameter.grad


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearest orthogonal matrices, roughly: all singular values brought to within about 0.7 and 1.2.

    Newton-Schulz iteration with the quintic of Jordan et al., X <- (a I + b G + c G^2) X with G = X X^T. G itself then becomes
    (a I + b G + c G^2)^2 G, so that all steps but the last product go on in the smaller square, for two fifths of the operations.

    Args:
        matrices: `(..., M, N)` float32.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    gram = x @ x.mT
    identity, product = torch.eye(gram.shape[-1], device=x.device), None
    for step in range(steps):
        factor = a * identity + b * gram + c * (gram @ gram)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = gram @ factor @ factor
    x = product @ x
    return x if wide else x.mT
