"""What is done to every item, as plain data that travels to workers on other machines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import InputError
from ..inference.settings import EstimationSettings
from .verbs import VERBS

_VERSION = 1


@dataclass(frozen=True)
class Item:
    """One piece of work.

    Attributes:
        sources: paths or URIs: two frames for the flow of a pair, else one clip, or all frames of one in order.
        name: of what is made of it, relative to the target, without its ending; no other item has it.
        fault: why nothing can be made of it, where that was seen before it was tried.
        span: of a clip from which a part is taken, start and end [s], the latter None where it goes on to the last frame; the flow
            from its last frame to the one after it is part of it.
    """

    sources: tuple[str, ...]
    name: str
    fault: str | None = None
    span: tuple[int, int | None] | None = None

    def is_pair(self, verb: str) -> bool:
        """Whether it is a pair of frames, not a clip (which has two frames at least)."""
        return verb == "flow" and len(self.sources) == 2

    def as_list(self) -> list[object]:
        """The item in lists, strings and numbers, as JSON has them."""
        return [list(self.sources), self.name, self.fault, self.span and list(self.span)]

    @classmethod
    def of_list(cls, item: list) -> Item:
        """The item that `as_list` gave."""
        sources, name, fault, span = item
        return cls(tuple(sources), name, fault, span and tuple(span))

    @property
    def part(self) -> dict[str, object]:
        """The keywords of a clip's verb that take its span."""
        return {} if self.span is None else {"start": self.span[0], "end": self.span[1], "through": True}


@dataclass(frozen=True, kw_only=True)
class ScaleJob:
    """What is made of each item, and where it goes.

    Attributes:
        target: folder, as a path or a URI that fsspec knows.
        verb: a name of `featherflow.scale.VERBS`.
        settings: how flow is estimated.
        options: keywords of the verb's function, see `featherflow.scale.verbs`.

    Raises:
        InputError: for an unknown verb.
    """

    target: str
    verb: str = "flow"
    settings: EstimationSettings = field(default_factory=EstimationSettings)
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise InputError(f"The verb must be one of {', '.join(VERBS)}, got '{self.verb}'.")

    def as_dict(self) -> dict[str, object]:
        """The job in dictionaries, lists, strings and numbers, as JSON has them."""
        settings = dataclasses.asdict(self.settings)
        settings["tile"] = "none" if settings["tile"] is None else settings["tile"]
        return {"target": self.target, "verb": self.verb, "settings": settings, "options": dict(self.options)}

    @classmethod
    def of_dict(cls, job: Mapping) -> ScaleJob:
        """The job that `as_dict` gave."""
        return cls(**{**job, "settings": EstimationSettings(**job["settings"])})

    def digest(self, item: Item, weights: str | None) -> str:
        """What tells whether a result is the one that is asked for.

        It holds all that changes what is made: sources, verb, options, settings and the weights' own digest; not the device, so
        that an archive may be begun on one kind of machine and ended on another.
        """
        settings = {name: value for name, value in dataclasses.asdict(self.settings).items() if name not in ("device", "weights")}
        parts = [_VERSION, self.verb, dict(self.options), settings, weights, item.sources, item.name, item.span]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
