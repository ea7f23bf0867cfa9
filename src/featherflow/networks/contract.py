"""What every network says of itself, and how it is called. Whoever runs a network reads this, and finds out nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeGuard, cast

from torch import nn

from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Traits:
    """What a network takes and can do. Sizes are those of frames [px]."""

    #: Heights and widths are multiples of this, and at least `smallest_size`.
    size_multiple: int
    smallest_size: int
    #: How frames of other sizes are fitted, as the official release does it: "resize" stretches them and brings the flow back in
    #: one step; "pad" repeats their border, half of it on each side, and cuts the flow.
    size_rule: Literal["resize", "pad"] = "resize"
    #: Resized frames are rounded to 8 bits, because the release resizes stored images.
    rounds_to_8_bits: bool = False
    #: Pixels of the largest frames that PyTorch runs whole in bounded memory, with convolutions in 16 bits; in float32 a third of
    #: it. 0: memory grows with the frames.
    max_untiled_pixels: int = 0
    #: `forward` takes `iterations`, the number of updates of a flow.
    iterates: bool = False
    #: `flows` takes `initial_flow`, on the coarse grid, and gives iterates with `coarse` and `flow`.
    accepts_initial_flow: bool = False
    #: Each frame is looked at alone before two are compared: `encode(frame, mean, octaves)` with the buffers `mean1` and `mean2`
    #: of the two places of a pair, then `decode(encoded1, encoded2, size)`; together they are `forward`.
    shares_features: bool = False
    #: `forward` and `encode` take `octaves`, how many times the frames are first looked at in half their size.
    has_octaves: bool = False
    #: Octaves where nobody says otherwise.
    usual_octaves: int = 0
    #: Larger frames pass through more levels, or in more parts, so that one graph holds for some sizes only.
    graph_follows_size: bool = False


@dataclass(frozen=True)
class RunOptions:
    """How a network is run, where not as it does by itself. A value: it goes with the call, and no network is changed for it.

    A flow to start from is no option but a third input, given beside the two frames.

    Raises:
        InputError: for a number that no network can use.
    """

    #: Number of updates of a network that iterates.
    iterations: int | None = None
    #: See `Traits.has_octaves`.
    octaves: int | None = None

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise InputError(f"The number of iterations must be a whole number of at least 1, got {self.iterations}.")
        if self.octaves is not None and self.octaves < 0:
            raise InputError(f"octaves is a whole number, 0 or more, got {self.octaves}.")

    def keywords(self, network: FlowNetwork) -> dict[str, Any]:
        """Keywords of the network's `forward`.

        Raises:
            InputError: for an option that the network does not have.
        """
        name, traits = type(network).__name__, network.traits
        if self.iterations is not None and not traits.iterates:
            raise InputError(f"{name} does not iterate; leave the number of iterations out.")
        if self.octaves is not None and not traits.has_octaves:
            raise InputError(f"{name} takes no octaves; leave them out.")
        given = {"iterations": self.iterations, "octaves": self.octaves}
        return {option: value for option, value in given.items() if value is not None}

    def encoding(self, network: FlowNetwork) -> dict[str, Any]:
        """Those of `keywords` that a `FeatureNetwork` takes to look at one frame."""
        return {option: value for option, value in self.keywords(network).items() if option == "octaves"}

    def decoding(self, network: FlowNetwork) -> dict[str, Any]:
        """Those of `keywords` that a `FeatureNetwork` takes to compare two frames."""
        return {option: value for option, value in self.keywords(network).items() if option == "iterations"}


#: As the network does it by itself.
PLAIN = RunOptions()


class Provenance(Protocol):
    """The part of `featherflow.weights.WeightsInfo` that decides how a network is run, and on which terms."""

    @property
    def name(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def recipe(self) -> str: ...
    @property
    def enlarge_below(self) -> int: ...
    @property
    def licence_weights(self) -> str: ...
    @property
    def licence_code(self) -> str: ...


class FlowNetwork(nn.Module):
    """Base of all networks.

    `forward(frame1, frame2, size=None, ...)` is strict: frames `(B, 3, H, W)` RGB in [0, 1], floating point, of a size that
    `traits` allow, to flow `(B, 2, *size)` float32 [px]. `size` is that of the answer where the frames were resized to fit. Further
    keywords are those of `RunOptions` that `traits` name.
    """

    #: Of the class, or of the object where they depend on its numbers.
    traits: Traits
    #: The table of numbers that the network was built from, where it has one: a frozen dataclass.
    config: Any = None
    #: What is known about the weights, where they were loaded from a file.
    weights_info: Provenance | None = None

    if TYPE_CHECKING:

        def __call__(self, frame1: Tensor, frame2: Tensor, size: tuple[int, int] | None = None, **options: Any) -> Tensor: ...


class FeatureNetwork(FlowNetwork):
    """Base of the networks that look at each frame alone before they compare two, see `Traits.shares_features`."""

    #: Colours `(3,)` that are taken off the first and the second frame of a pair.
    mean1: Tensor
    mean2: Tensor

    if TYPE_CHECKING:

        def encode(self, frame: Tensor, mean: Tensor, **options: Any) -> Any: ...

        def decode(self, frame1: Any, frame2: Any, size: tuple[int, int] | None = None, **options: Any) -> Tensor: ...


def shares_features(network: FlowNetwork) -> TypeGuard[FeatureNetwork]:
    """Whether `network` is such, as its traits say."""
    return network.traits.shares_features


def as_network(model: object) -> FlowNetwork:
    """A network that was given as an object; of one that is wrapped to run on several GPUs, the one inside.

    Raises:
        InputError: for anything else.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return as_network(cast(object, model.module))
    if not isinstance(model, FlowNetwork):
        raise InputError(
            f"A model is a name, or a network derived from featherflow.networks.FlowNetwork; got {type(model).__name__}."
        )
    return model
