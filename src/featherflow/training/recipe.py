"""What a recipe is: every number of a training run, typed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..data import Augmentation, RaftAugmentation
from ..errors import InputError
from .losses import Loss, MultilevelLoss

_CHOICES = {
    "optimizer": ("adamw", "muon", "adam"),
    "initialization": ("identity", "msra"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
}


@dataclass(frozen=True)
class Stage:
    """A part of a run: how long, how fast, and which network. What it does not say is the recipe's."""

    name: str
    #: Steps of the whole batch, as papers count.
    iterations: int
    learning_rate: float
    #: Fields of the network's config to replace while it lasts.
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """One network from its start to its last sample; by default end to end on procedural pairs.

    Amounts are in samples (flows to learn from), so that batches can change. A recipe with stages is a list of recipes without,
    see `schedule`.
    """

    name: str
    network: str
    #: Fields of the network's config to replace, e.g. {"normalized_matching": True}; kept with the weights.
    options: dict[str, object] = field(default_factory=dict)

    #: Parts that follow each other, each with a fresh optimiser; they stand in place of `samples` and `learning_rate`.
    stages: tuple[Stage, ...] = ()
    #: Frames of fewer pixels than this are to be seen at twice their size; kept with the weights.
    enlarge_below: int = 0
    #: Length of the whole schedule; warm-up and cool-down are shares of it.
    samples: int = 500_000
    #: Divides every length: a run in small.
    shrink: float = 1.0
    batch: int = 8
    #: Parts of a batch that are made and differentiated by themselves, and whose gradients are then added: side by side on the
    #: cores of a CPU, shared out among processes, and else one after the other, which needs the memory of one part only.
    chunks: int = 2
    height: int = 192  # px, multiples of 32
    width: int = 256
    seed: int = 0
    #: Rendered pairs serve in both directions, each of which counts as a sample: half the rendering, and in the LiteFlowNet
    #: family half the features.
    both_ways: bool = False
    #: Benchmarks that the recipe was published for; those in one bracket make one set, and the sets share each batch evenly.
    data: tuple[tuple[str, ...], ...] = ()
    #: What happens to pairs read from benchmarks; rendered ones are as they are.
    augmentation: Augmentation = field(default_factory=RaftAugmentation)
    #: Fields of `featherflow.data.SceneConfig` to replace; in text form `scene.large=32` or `scene.small=0.4,1.2`.
    scene: dict[str, object] = field(default_factory=dict)

    #: Recipe whose weights this one begins with; "" begins from nothing.
    begins_with: str = ""
    #: Of what the weights to begin with lack: "identity" (units pass their flow on), or "msra" (as published).
    initialization: str = "identity"
    #: Parameters that keep their start, by patterns of their names.
    frozen: tuple[str, ...] = ()
    #: LiteFlowNet family: one mean colour for both frames, so that features can serve as either.
    shared_mean: bool = True

    #: "adamw", "muon" (orthogonal updates for the hidden convolutions, AdamW for the rest), or "adam" with decay in the gradient.
    optimizer: str = "muon"
    muon_factor: float = 1.0
    learning_rate: float = 6e-4
    warmup: float = 0.005
    #: Share of the schedule at its end over which the learning rate falls to `final_rate` of its peak.
    cooldown: float = 0.4
    final_rate: float = 0.02
    #: Iterations of a stage at which the learning rate is halved.
    halve_at: tuple[int, ...] = ()
    #: Factor of every learning rate.
    rate_factor: float = 1.0
    weight_decay: float = 1e-4
    #: Longest gradient; 0 does not clip.
    clip_norm: float = 1.0
    #: "auto" (bfloat16 where the device multiplies it natively), "float32", "bfloat16" or "float16".
    precision: str = "auto"
    ema: float = 0.999

    #: For a network that sweeps each level with the same weights: how often, step by step in turn. Empty: as the network has it.
    sweeps: tuple[int, ...] = ()

    #: What is minimised; in text form `loss.exponent=1`.
    loss: Loss = field(default_factory=MultilevelLoss)
    #: Occluded pixels count nothing at first, then more and more between these shares of the schedule.
    occluded_from: float = 0.1
    occluded_until: float = 0.4

    def __post_init__(self):
        for choice, known in _CHOICES.items():
            if (value := getattr(self, choice)) not in known:
                raise InputError(f"There is no {choice} '{value}'; a recipe's is one of {', '.join(known)}.")
        if min(self.batch, self.chunks) < 1 or self.shrink <= 0:
            raise InputError("Fields 'batch', 'chunks' and 'shrink' of a recipe must be above 0.")

    def schedule(self) -> tuple[Recipe, ...]:
        """The stages of the run, each a recipe of its own without stages; amounts as they are after `shrink`."""
        if not self.stages:
            return (replace(self, samples=max(self.batch, round(self.samples / self.shrink))),)
        return tuple(
            replace(
                self,
                stages=(),
                samples=max(1, round(stage.iterations / self.shrink)) * self.batch,
                learning_rate=stage.learning_rate,
                options={**self.options, **stage.options},
            )
            for stage in self.stages
        )

    def summary(self) -> dict[str, object]:
        """A line for a list of recipes."""
        return {
            "recipe": self.name,
            "network": self.network,
            "data": " + ".join(" and ".join(kinds) for kinds in self.data) or "procedural",
            "stages": len(self.schedule()),
            "samples": self.length,
            "begins with": self.begins_with,
        }

    @property
    def length(self) -> int:
        """Samples of the whole run."""
        return sum(stage.samples for stage in self.schedule())

    def iteration(self, samples_seen: int) -> float:
        """Iterations of the published schedule."""
        return samples_seen / self.batch * self.shrink

    def progress(self, samples_seen: int) -> float:
        """Share of the schedule done, 0..1."""
        return min(samples_seen / self.samples, 1.0)

    def rate(self, samples_seen: int) -> float:
        """Learning rate: linear warm-up, constant or halved at times, linear cool-down."""
        done = self.progress(samples_seen)
        rising = min(1.0, done / self.warmup) if self.warmup else 1.0
        falling = min(1.0, (1.0 - done) / self.cooldown) if self.cooldown else 1.0
        halvings = sum(self.iteration(samples_seen) >= iteration for iteration in self.halve_at)
        peak = self.learning_rate * self.rate_factor * 0.5**halvings
        return peak * min(max(rising, 1e-3), self.final_rate + (1 - self.final_rate) * falling)

    def occluded_weight(self, samples_seen: int) -> float:
        """Weight of occluded pixels in the loss, 0..1."""
        done = self.progress(samples_seen)
        if done >= self.occluded_until:
            return 1.0
        return max((done - self.occluded_from) / (self.occluded_until - self.occluded_from), 0.0)
