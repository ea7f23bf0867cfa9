"""Starting values: for training from scratch, and for what a network has beyond the weights that it begins with."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..networks.liteflownet import (
    ConvexUpsampling,
    DescriptorMatching,
    FlowRegularization,
    LiteFlowNet,
    PseudoLevel,
    SubPixelRefinement,
)
from ..networks.liteflownet_tied import Decoder
from ..ops import bilinear_upsampling_kernel

_OTHER_NEIGHBOURS = 2.0  # distance of each neighbour but the centre: weights exp(-4) against 1

_GAIN = math.sqrt(2.0 / (1.0 + 0.1**2))  # keeps the variance through a leaky ReLU of slope 0.1

_NORMALIZATIONS = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm)


@torch.no_grad()
def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """Starting weights, by what the network needs.

    LiteFlowNet family: variance-preserving for leaky ReLU 0.1; flow layers start near zero, local convolutions near the
    identity. A unit that starts by passing its flow on does no harm to the units before it while it is still untrained. Where
    there is no M, S starts as one that compares, see `compare`.

    Other networks without normalisation (FlowNet, SPyNet, PWC-Net): the same for their convolutions, flow layers near zero.
    Networks with normalisation keep PyTorch's own start, drawn from `generator`'s seed.
    """
    if any(isinstance(module, _NORMALIZATIONS) for module in network.modules()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            for module in network.modules():
                reset = getattr(module, "reset_parameters", None)  # what PyTorch calls it, in all layers that have weights
                if callable(reset):
                    reset()
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(module, nn.ConvTranspose2d)
            fan_in = module.weight[:, 0].numel() / 4 if transposed else module.weight[0].numel()
            small = 0.1 if not isinstance(network, LiteFlowNet) and module.out_channels == 2 and not transposed else 1.0
            module.weight.normal_(0.0, small * _GAIN / math.sqrt(fan_in), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    for module in network.modules():
        if isinstance(module, DescriptorMatching | SubPixelRefinement | PseudoLevel):
            module.flow.weight.mul_(0.1)
        if isinstance(module, SubPixelRefinement) and isinstance(network, LiteFlowNet) and not network.config.matching:
            compare(next(iter(module.convs)), generator)
        if isinstance(module, ConvexUpsampling):
            enlarge_bilinearly(module)
        if isinstance(module, FlowRegularization | PseudoLevel | Decoder):
            last = module.distance[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None  # see `distance_layers`
            last.weight.mul_(0.3)
            last.bias.fill_(_OTHER_NEIGHBOURS)
            last.bias[len(last.bias) // 2] = 0.0


def enlarge_bilinearly(module: ConvexUpsampling) -> None:
    """Make the learned enlargement bilinear, whatever it sees: the weights of the nine neighbours of each fine pixel."""
    module.logits.weight.zero_()
    fine = torch.arange(module.factor)
    offsets = (fine + 0.5) / module.factor - 0.5  # of a fine pixel from the middle of its coarse one
    along = (1.0 - (torch.arange(-1, 2)[:, None] - offsets).abs()).clamp_min(0.0)  # (3, factor)
    weights = along[:, None, :, None] * along[None, :, None, :]  # (row, column, fine row, fine column)
    assert module.logits.bias is not None  # as it is built
    module.logits.bias.copy_(weights.clamp_min(1e-4).log().flatten())


def compare(layer: nn.Conv2d, generator: torch.Generator) -> None:
    """Make the first layer of S one that compares the features of frame 1 with those of the nine nearest places of frame 2.

    A mixture of all features is taken from both and subtracted; a channel and its negative together tell the size of what is
    left, through the leaky ReLU. What does not come out even by 18 channels stays as it is. Ours: a network without M would
    have to find this out by itself before it can learn anything.
    """
    features = (layer.in_channels - 2) // 2
    spread = _GAIN / math.sqrt(2 * features)
    channel = 0
    for _ in range(layer.out_channels // 18):
        mixture = spread * torch.randn(features, generator=generator)
        for place in range(9):
            for sign in (1.0, -1.0):
                weight = layer.weight[channel]
                weight.zero_()
                weight[:features, 1, 1] = sign * mixture
                weight[features : 2 * features, place // 3, place % 3] = -sign * mixture
                channel += 1


@torch.no_grad()
def msra(network: nn.Module, generator: torch.Generator) -> None:
    """Normal with variance 2 / fan-in for every convolution, flow and distance layers included; biases 0.

    The two learned enlargements of the pseudo level start bilinear, each channel by itself.

    Source: the training template of LiteFlowNet's release ("msra" fillers); the enlargements are ours.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(0.0, math.sqrt(2.0 / module.weight[0].numel()), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.ConvTranspose2d):
            kernel = bilinear_upsampling_kernel(module.in_channels)
            module.weight.zero_()
            module.weight[range(module.in_channels), range(module.in_channels)] = kernel[:, 0]
            if module.bias is not None:
                module.bias.zero_()


_LEVEL = re.compile(r"(?<=nete\.level)\d")


@torch.no_grad()
def carry_over(network: nn.Module, weights: Mapping[str, Tensor], generator: torch.Generator) -> None:
    """Begin with the weights of a network that has fewer levels, units or channels.

    A layer that `weights` lacks takes the one of the same name at the level above where both have one shape, and keeps its value
    otherwise. Source: LiteFlowNet, section 4 (which layers is ours: all that fit). In the LiteFlowNet family a layer that is
    narrower there is widened, and one that is wider is narrowed.

    Raises:
        WeightsError: if a tensor of `weights` does not fit, or a parameter lacks that is of no level, of no unit of one
            and not of the enlargement.
    """
    state, parameters = network.state_dict(), dict(network.named_parameters())
    new = {}
    for name, value in weights.items():
        if name in state and value.shape == state[name].shape:
            new[name] = value
        elif name in state and isinstance(network, LiteFlowNet) and value.dim() == state[name].dim():
            shape = state[name].shape
            new[name] = widen(name, value, shape, generator) if value.shape < shape else narrow(name, value, shape)
        else:
            raise _misfit(name, value)
    for name, value in state.items():  # coarse levels first: what is copied to level 3 may be copied on to level 2
        if name in new:
            continue
        if name in parameters and not name.startswith(("nete.level", "pseudo.", "upsampling.")):
            raise WeightsError(f"The weights to begin with lack the tensor '{name}'.")
        above = _LEVEL.sub(lambda level: str(int(level[0]) + 1), name)
        fits = above != name and above in new and new[above].shape == value.shape
        new[name] = new[above] if fits else value
    network.load_state_dict(new)


def widen(name: str, weight: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Weight or bias of a layer whose channels are there several times over, so that the network answers as it did.

    Each channel is copied. What reads the copies shares its weight out among them, plus random differences that add up to zero:
    they change no answer, and the copies learn different things from the first step. Source: Chen et al., Net2Net, ICLR 2016
    (Net2WiderNet); the differences are ours.

    Args:
        name: of the tensor in a network of the LiteFlowNet family; says what the layer reads.
        weight: `(out, in, K, K)` or `(out,)`; shape: the same with multiples of its channels.

    Raises:
        WeightsError: for a shape that has no multiples of them.
    """
    narrow_parts, wide_parts = _multiples(name, weight.shape, shape, misfit=weight)
    wide = weight[_origins(narrow_parts[0], wide_parts[0])]
    if weight.dim() == 1:
        return wide
    origin = _origins(narrow_parts[1], wide_parts[1])
    copies = origin.bincount()[origin].view(1, -1, 1, 1)
    noise = torch.randn(shape, generator=generator)
    mean = torch.zeros(shape[0], *weight.shape[1:]).index_add_(1, origin, noise)[:, origin] / copies
    return (wide[:, origin] + weight.std(correction=0) * (noise - mean)) / copies


def narrow(name: str, weight: Tensor, shape: torch.Size) -> Tensor:
    """Weight or bias of a layer of half the width, or another whole part of it: `widen` the other way round.

    Channels that were copies of one are averaged, and the shares of what reads them added up. Right after `widen` that is the
    narrow network again; after training it is a beginning, as long as the copies still resemble each other.

    Args:
        name: of the tensor in a network of the LiteFlowNet family; says what the layer reads.
        weight: `(out, in, K, K)` or `(out,)`; shape: the same with a whole part of its channels.

    Raises:
        WeightsError: for a shape of which this is no multiple.
    """
    narrow_parts, wide_parts = _multiples(name, shape, weight.shape, misfit=weight)
    origin = _origins(narrow_parts[0], wide_parts[0])
    copies = origin.bincount().view(-1, *[1] * (weight.dim() - 1))
    mean = torch.zeros(shape[0], *weight.shape[1:]).index_add_(0, origin, weight) / copies
    if weight.dim() == 1:
        return mean
    return torch.zeros(shape).index_add_(1, _origins(narrow_parts[1], wide_parts[1]), mean)


_Parts = tuple[tuple[int, ...], ...]


def _multiples(name: str, small: torch.Size, large: torch.Size, misfit: Tensor) -> tuple[_Parts, _Parts]:
    """What lies side by side in the channels that a layer gives, and in those that it reads, of either width."""

    def parts(shape: torch.Size) -> _Parts:
        given, read = (shape[0],), shape[1:2]
        if name.endswith("subpixel.convs.0.weight"):
            read = ((shape[1] - 2) // 2, (shape[1] - 2) // 2, 2)  # features of both frames, u
        if name.endswith("regularization.convs.0.weight"):
            read = (3, shape[1] - 3)  # brightness error and u, features
        return given, tuple(read)

    fits = len(small) == len(large) != 3 and small[2:] == large[2:]
    found = (parts(small), parts(large)) if fits else ((), ())
    if not fits or any(n < 1 or w % n for each in zip(*found, strict=True) for n, w in zip(*each, strict=True)):
        raise _misfit(name, misfit)
    return found


def _origins(narrow: tuple[int, ...], wide: tuple[int, ...]) -> Tensor:
    """For each wide channel the narrow one that it is a copy of."""
    starts = [sum(narrow[:index]) for index in range(len(narrow))]
    return torch.cat([start + torch.arange(w) % n for start, n, w in zip(starts, narrow, wide, strict=True)])


def _misfit(name: str, weight: Tensor) -> WeightsError:
    return WeightsError(f"The weights to begin with have a tensor '{name}' of shape {tuple(weight.shape)}, which does not fit.")
