"""Which models the service offers."""

from __future__ import annotations

from dataclasses import dataclass

from .. import classical, networks
from ..classical import opencv
from ..errors import InputError, WeightsError
from ..weights import catalogue, default_model


@dataclass(frozen=True)
class Model:
    """One model on offer."""

    name: str
    #: "network" or "classical".
    kind: str
    summary: str
    paper: str
    #: Of a network's weights.
    licence: str | None
    default: bool


def models_on_offer(chosen: tuple[str, ...] = ()) -> dict[str, Model]:
    """By name, the default first: the chosen ones, or all weights that are there and all classical methods that are installed.

    Raises:
        InputError: for a name that there is no model of.
    """
    there = _all()
    if not chosen:
        return {name: there[name] for name in sorted(there, key=lambda name: not there[name].default)}
    found = {}
    for name in chosen:
        if name not in there:
            raise InputError(f"There is no model '{name}' to offer; there are {', '.join(there)}.")
        model = there[name]
        found[name] = Model(name, model.kind, model.summary, model.paper, model.licence, default=name == chosen[0])
    return found


def _all() -> dict[str, Model]:
    found = {}
    for entry in catalogue.entries():
        network, name = networks.get(entry.info.architecture), _name(entry)
        licence = entry.info.licence_weights or None
        found[name] = Model(name, "network", network.summary, network.paper, licence, name == default_model())
    has_opencv = opencv.is_installed()
    for method in classical.METHODS.values():
        if has_opencv or method.name not in opencv.METHODS:
            found[method.name] = Model(method.name, "classical", method.summary, method.paper, None, False)
    return found


def _name(entry: catalogue.Entry) -> str:
    """The architecture alone where that means these weights, else with the tag."""
    try:
        is_the_one = catalogue.find(entry.info.architecture) == entry.path
    except WeightsError:  # several to choose from
        is_the_one = False
    return entry.info.architecture if is_the_one else entry.info.name
