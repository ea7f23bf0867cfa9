"""Recipes by name, and changes of their numbers in text form."""

from __future__ import annotations

import typing
from dataclasses import replace
from typing import Any

from ..errors import InputError
from .losses import Loss, PyramidLoss, SequenceLoss
from .paper import PAPER
from .recipe import Recipe, Stage

__all__ = ["RECIPES", "Recipe", "Stage", "get_recipe"]

_OPTIONS = {"normalized_matching": True, "octaves": 1}
_FARTHER = {**_OPTIONS, "octaves": 2}


def _lineage(network: str, loss: Loss, learning_rate: float, **numbers: Any) -> Recipe:
    """A recipe for a network beside the LiteFlowNet family: AdamW, which all of them were trained with in some form."""
    return Recipe(f"modern/{network}", network, loss=loss, optimizer="adamw", learning_rate=learning_rate, **numbers)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *PAPER,
        Recipe("modern/liteflownet2", "liteflownet2", _OPTIONS, both_ways=True),
        # What it has beyond liteflownet2, and nothing else.
        Recipe(
            "modern/liteflownet2-kitti",
            "liteflownet2-kitti",
            _OPTIONS,
            both_ways=True,
            begins_with="modern/liteflownet2",
            frozen=("netc.*", "nete.*"),
        ),
        Recipe("modern/liteflownet2-slim", "liteflownet2-slim", _FARTHER, both_ways=True),
        Recipe("modern/liteflownet-tied", "liteflownet-tied", both_ways=True),
        Recipe("modern/liteflownet", "liteflownet", _FARTHER, both_ways=True),
        Recipe("modern/liteflownetx", "liteflownetx", _FARTHER, both_ways=True),
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
        if room in _DICTIONARIES:
            recipe = replace(recipe, **{room: {**getattr(recipe, room), entry: value}})
        elif room in _PARTS:
            recipe = replace(recipe, **{room: replace(getattr(recipe, room), **{entry: value})})
        else:
            recipe = replace(recipe, **{key: value})
    return recipe


#: Parts of a recipe that are typed tables themselves, and those that replace numbers of another; in text form their fields have the
#: part's name before them.
_PARTS = ("loss", "augmentation")
_DICTIONARIES = ("scene", "options")

#: Fields that text does not set: who and what the recipe is, what is a table of its own, and what follows from others.
_NOT_IN_TEXT = (
    "name",
    "network",
    "stages",
    "data",
    "begins_with",
    *_PARTS,
    *_DICTIONARIES,
    "scene.height",
    "scene.width",
    "scene.effects",
)


def _settable(recipe: Recipe) -> dict[str, object]:
    """Types of the fields that may be given as text; those of scenes, loss, augmentation and network with that word before
    their names."""
    from .. import networks
    from ..data import SceneConfig

    parts = {part: type(getattr(recipe, part)) for part in _PARTS}
    inner = {"scene": SceneConfig, **parts}
    config = networks.build(recipe.network).config
    if config is not None:
        inner["options"] = type(config)
    types = typing.get_type_hints(Recipe, localns={"Loss": Loss})
    for part, fields in inner.items():
        types |= {f"{part}.{name}": kind for name, kind in typing.get_type_hints(fields).items()}
    stages_have = ("samples", "learning_rate") if recipe.stages else ()
    return {name: kind for name, kind in types.items() if name not in (*_NOT_IN_TEXT, *stages_have)}


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
