"""Recipes: every number of a training run, typed, with a name."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field, replace

from ..errors import InputError
from .losses import Loss, MultilevelLoss, PyramidLoss, SequenceLoss


@dataclass(frozen=True)
class Recipe:
    """End-to-end training on procedural pairs. Amounts are in samples (pairs), so that batches can change."""

    name: str
    network: str
    #: Fields of the network's config to replace, e.g. {"normalized_matching": True}; kept with the weights.
    options: dict[str, object] = field(default_factory=dict)

    #: Length of the whole schedule; warm-up and cool-down are shares of it.
    samples: int = 500_000
    batch: int = 8
    #: Parts of a batch that are rendered and differentiated side by side, one per CPU core if there are as many.
    chunks: int = 2
    height: int = 192  # px, multiples of 32
    width: int = 256
    seed: int = 0
    #: Fields of `featherflow.data.SceneConfig` to replace; in text form `scene.large=32` or `scene.small=0.4,1.2`.
    scene: dict[str, object] = field(default_factory=dict)

    #: "adamw" or "muon" (orthogonal updates for the hidden convolutions, AdamW for the rest).
    optimizer: str = "muon"
    muon_factor: float = 1.0
    learning_rate: float = 6e-4
    warmup: float = 0.005
    #: Share of the schedule at its end over which the learning rate falls to `final_rate` of its peak.
    cooldown: float = 0.4
    final_rate: float = 0.02
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.999

    #: What is minimised; in text form `loss.exponent=1`.
    loss: Loss = field(default_factory=MultilevelLoss)
    #: Occluded pixels count nothing at first, then more and more between these shares of the schedule.
    occluded_from: float = 0.1
    occluded_until: float = 0.4

    def progress(self, samples_seen: int) -> float:
        """Share of the schedule done, 0..1."""
        return min(samples_seen / self.samples, 1.0)

    def rate(self, samples_seen: int) -> float:
        """Learning rate: linear warm-up, constant, linear cool-down."""
        done = self.progress(samples_seen)
        rising = min(1.0, done / self.warmup) if self.warmup else 1.0
        falling = min(1.0, (1.0 - done) / self.cooldown) if self.cooldown else 1.0
        return self.learning_rate * min(max(rising, 1e-3), self.final_rate + (1 - self.final_rate) * falling)

    def occluded_weight(self, samples_seen: int) -> float:
        """Weight of occluded pixels in the loss, 0..1."""
        span = max(self.occluded_until - self.occluded_from, 1e-9)
        return min(max((self.progress(samples_seen) - self.occluded_from) / span, 0.0), 1.0)


_NORMALIZED = {"normalized_matching": True}


def _lineage(network: str, loss: Loss, learning_rate: float, **numbers: object) -> Recipe:
    """A recipe for a network beside the LiteFlowNet family: AdamW, which all of them were trained with in some form."""
    return Recipe(f"modern/{network}", network, loss=loss, optimizer="adamw", learning_rate=learning_rate, **numbers)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("modern/liteflownet2", "liteflownet2", _NORMALIZED),
        Recipe("modern/liteflownet2-slim", "liteflownet2-slim", _NORMALIZED),
        Recipe("modern/liteflownet", "liteflownet", _NORMALIZED),
        Recipe("modern/liteflownetx", "liteflownetx"),
        _lineage("flownets", PyramidLoss(), 1e-4),
        _lineage("flownetc", PyramidLoss(), 1e-4),
        _lineage("flownet2", PyramidLoss(unit=1.0), 1e-4),
        _lineage("spynet", PyramidLoss(unit=0.0), 1e-4),
        _lineage("pwcnet", PyramidLoss(), 1e-4),
        # Batch normalisation looks at a whole batch, so it is not cut into chunks.
        _lineage("raft", SequenceLoss(), 4e-4, chunks=1),
        _lineage("raft-small", SequenceLoss(), 4e-4),
        _lineage("gmflow", SequenceLoss(gamma=0.9, iterations=0), 2e-4),
        _lineage("gmflow-refine", SequenceLoss(gamma=0.9, iterations=0), 2e-4),
        _lineage("flowformer", SequenceLoss(), 2.5e-4),
        _lineage("raft-stereo", SequenceLoss(gamma=0.9, iterations=16, horizontal=True), 2e-4, chunks=1),
    )
}


def get_recipe(name: str, changes: dict[str, str] | None = None) -> Recipe:
    """A recipe by name, with fields replaced by values given as text.

    Raises:
        InputError: for an unknown recipe or field, or a value that is not of the field's type.
    """
    if name not in RECIPES:
        raise InputError(f"There is no recipe named '{name}'; known are {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    types = _settable(recipe)
    for key, text in (changes or {}).items():
        if key not in types:
            raise InputError(f"Recipe '{name}' has no field '{key}'; its fields are {', '.join(sorted(types))}.")
        try:
            value = _parse(types[key], text)
        except ValueError:
            kind = getattr(types[key], "__name__", str(types[key]))
            raise InputError(f"Field '{key}' of a recipe takes a value of type {kind}, got '{text}'.") from None
        room, _, entry = key.rpartition(".")
        if room == "scene":
            recipe = replace(recipe, scene={**recipe.scene, entry: value})
        elif room == "loss":
            recipe = replace(recipe, loss=replace(recipe.loss, **{entry: value}))
        else:
            recipe = replace(recipe, **{key: value})
    return recipe


def _settable(recipe: Recipe) -> dict[str, object]:
    """Types of the fields that may be given as text; those of scene and loss with that word before their names."""
    from ..data import SceneConfig

    types = typing.get_type_hints(Recipe)
    own = {name: types[name] for name in types if name not in ("name", "network", "options", "scene", "loss")}
    scene = {f"scene.{name}": kind for name, kind in typing.get_type_hints(SceneConfig).items()}
    loss = {f"loss.{name}": kind for name, kind in typing.get_type_hints(type(recipe.loss)).items()}
    return {name: kind for name, kind in (own | scene | loss).items() if name not in _NOT_IN_TEXT}


#: Size and kind of a scene follow from other fields; effects are a table of their own.
_NOT_IN_TEXT = ("scene.height", "scene.width", "scene.effects")


def _parse(kind: object, text: str) -> object:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind in (int, float):
        return kind(text.replace("_", ""))
    if kind is str:
        return text
    parts = typing.get_args(kind)
    values = text.split(",")
    if parts[-1] is not Ellipsis and len(values) != len(parts):
        raise ValueError(text)
    return tuple(parts[0](part) for part in values)
