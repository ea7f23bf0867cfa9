"""What is known about a set of weights, and how it travels in a file's metadata."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, WeightsError, printable

#: How the name of a weight file ends.
SUFFIX = ".safetensors"

_TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_JSON_FIELDS = ("options", "scores")
_INTEGER_FIELDS = ("samples_seen", "enlarge_below")
_FORMAT = "featherflow 1"
_LONGEST_TEXT = 4000  # characters of a field
_MOST_VALUES = 2000  # of a field in JSON
_MOST_NUMBER = 1 << 40


@dataclass(frozen=True)
class WeightsInfo:
    """Origin, terms and figures of a set of weights. Everything but the architecture may be left out."""

    #: Name of the network, e.g. "liteflownet2".
    architecture: str
    #: Name of these weights among those of the architecture, e.g. "procedural".
    tag: str = ""
    #: Numbers of the network's table that differ from the architecture's, e.g. {"normalized_matching": True}.
    options: dict[str, object] = field(default_factory=dict)
    #: Training recipe, by name.
    recipe: str = ""
    #: Data it was trained on.
    data: str = ""
    #: Image pairs seen in training; 0 = not known.
    samples_seen: int = 0
    #: Frames of fewer pixels than this are seen at twice their size: the finest flow stands on a quarter of the grid.
    enlarge_below: int = 0
    #: Figures by name, each name saying its data, metric and aggregator.
    scores: dict[str, object] = field(default_factory=dict)
    licence_code: str = ""
    licence_weights: str = ""
    #: Where the numbers come from: a file's name and hash, or a training run.
    source: str = ""
    #: Commit of featherflow that trained or converted it.
    commit: str = ""
    #: Why the network does not compute exactly what the weights' own release computes; empty where it does.
    approximate: str = ""
    #: Name of the weights, in a file beside this one, that have the tensors which this file leaves out; empty where it is whole.
    rest_in: str = ""
    #: SHA-256 of that file, as hexadecimal digits.
    rest_sha256: str = ""

    @property
    def name(self) -> str:
        """`architecture:tag`, what `featherflow.load` takes."""
        return f"{self.architecture}:{self.tag}" if self.tag else self.architecture

    def as_dict(self) -> dict[str, object]:
        """Fields as plain values, for JSON."""
        return dataclasses.asdict(self)

    def to_metadata(self) -> dict[str, str]:
        """Fields as the strings that a safetensors file can hold; empty ones are left out.

        Raises:
            WeightsError: for options or scores that JSON cannot express.
        """
        metadata = {"format": _FORMAT}
        for key, value in self.as_dict().items():
            try:
                text = json.dumps(value, sort_keys=True, allow_nan=False) if key in _JSON_FIELDS else str(value)
            except (TypeError, ValueError) as error:
                raise WeightsError(f"The {key} of weights must be plain numbers, texts and lists, got {value!r}.") from error
            if value:
                metadata[key] = text
        return metadata

    @classmethod
    def from_metadata(cls, metadata: dict[str, str] | None, source: str) -> WeightsInfo:
        """Inverse of `to_metadata`; keys it does not know are left alone.

        Args:
            source: what to call the file in messages.

        Raises:
            WeightsError: for metadata without an architecture, or with a field of the wrong kind.
        """
        metadata = metadata or {}
        if not metadata.get("architecture"):
            raise WeightsError(
                f"{source} does not say which network it is for; `featherflow weights import` takes files from elsewhere."
            )
        values: dict[str, Any] = {}
        for spec in dataclasses.fields(cls):
            text = metadata.get(spec.name)
            if text is None:
                continue
            try:
                if spec.name in _JSON_FIELDS:
                    values[spec.name] = json.loads(text)
                    if not isinstance(values[spec.name], dict):
                        raise ValueError("not an object")
                    _check_size(values[spec.name])
                elif spec.name in _INTEGER_FIELDS:
                    values[spec.name] = int(text)
                else:
                    values[spec.name] = printable(text, _LONGEST_TEXT)
            except (ValueError, RecursionError) as error:
                raise WeightsError(f"The metadata of {source} are damaged: '{spec.name}' cannot be read.") from error
        return cls(**values)


def _check_size(value: object) -> int:
    """How many values JSON holds. A network is made of its options, so none of them may ask for a network without end.

    Raises:
        ValueError: for more than any weights of ours have, or for numbers beyond those of any network.
    """
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        count = 1 + sum(map(_check_size, inner))
        if count > _MOST_VALUES:
            raise ValueError("more values than there can be")
        return count
    if isinstance(value, int) and abs(value) > _MOST_NUMBER:
        raise ValueError("a number beyond any that there can be")
    return 1


def parse_name(name: str) -> tuple[str, str]:
    """`"architecture:tag"` as two strings, the tag empty where there is none. Knows no networks: both may be unknown ones.

    Raises:
        InputError: for a tag that is no plain name.
    """
    architecture, colon, tag = name.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InputError(
            f"A tag is made of small letters, digits, dots, dashes and underscores (as in 'liteflownet2:procedural'), got '{name}'."
        )
    return architecture, tag


def file_name(architecture: str, tag: str) -> str:
    """`<architecture>-<tag>.safetensors`, how a file is called in the package and in the user's folder."""
    return f"{architecture}-{tag}{SUFFIX}"
