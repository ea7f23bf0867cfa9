"""What can be made of an item: for each verb the function that its command calls, and the files that come of it."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from pathlib import Path

from ..errors import InputError
from ..inference import Estimator
from ..inference.settings import EstimationSettings
from ..jobs import run
from ..outputs import flow_suffix, make_folder
from ..plans import plan_files

#: Keywords that are not for an item to choose: what is read and written, by what, and forms of raw frames.
_RESERVED = (
    *("source", "frames", "pairs", "pairing", "output", "picture", "video", "flow_dir", "summary", "overwrite"),
    *("estimator", "settings", "progress", "size", "pixel_format", "through"),
)

#: Kinds of values as annotations name them, and as sentences do.
_KINDS: Mapping[str, tuple[type, str]] = {
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": (Real, "a number"),
    "str": (str, "a name"),
    "None": (type(None), "null"),
}


@dataclass(frozen=True)
class Verb:
    """A verb for items.

    Attributes:
        make: called with (source, where its files go without their ending, estimator, options); gives the number of flows.
        options: the function whose keywords the options are.
        suffix: of the file that it makes; "" where it makes several.
    """

    make: Callable[[Path, Path, Estimator, Mapping], int]
    options: Callable[[], Callable]
    suffix: str = ""


def pair_files(frames: Sequence[Path], base: Path, estimator: Estimator, options: Mapping) -> int:
    """The flow of one pair, as `featherflow estimate` writes it."""
    run(_pair_plan([str(frame) for frame in frames], base, estimator.settings, options), estimator)
    return 1


def _pair_plan(frames: Sequence[str], base: Path, settings: EstimationSettings, options: Mapping):
    options = dict(options)
    suffix = flow_suffix(str(options.pop("format", "flo")))
    picture = base.with_name(f"{base.name}.picture.png") if options.pop("picture", False) else None
    if picture is not None and options.get("scale") is None:
        raise InputError(
            "Pictures of many pairs need one scale of colours, e.g. --set scale=20: no pair knows the motions of others."
        )
    return plan_files(frames, base.with_name(base.name + suffix), picture, settings=settings, **options)


def _flow(source: Path, base: Path, estimator: Estimator, options: Mapping) -> int:
    from ..video import flow_video

    if options.get("through") and not _moves(source, options):
        return 0
    return flow_video(source, flow_dir=base, estimator=estimator, **options).frames


def _moves(source: Path, options: Mapping) -> bool:
    """Whether a span holds two pictures; one may stay for longer."""
    from ..video import open_clip

    selection = {name: options[name] for name in ("start", "end", "through")}
    return len(list(islice(open_clip(source, **selection), 2))) == 2


def _video(source: Path, base: Path, estimator: Estimator, options: Mapping) -> int:
    from ..video import flow_video

    return flow_video(source, f"{base}.mp4", estimator=estimator, **options).frames


def _interpolate(source: Path, base: Path, estimator: Estimator, options: Mapping) -> int:
    from ..transport import interpolate_video

    return interpolate_video(source, f"{base}.mp4", estimator=estimator, **options).frames


def _magnify(source: Path, base: Path, estimator: Estimator, options: Mapping) -> int:
    from ..transport import magnify_video

    return magnify_video(source, f"{base}.mp4", estimator=estimator, **options).frames


def _tracks(source: Path, base: Path, estimator: Estimator, options: Mapping) -> int:
    from ..transport import track_video

    return track_video(source, f"{base}.csv", estimator=estimator, **options).frames


def _of_video(name: str) -> Callable[[], Callable]:
    def find() -> Callable:
        from .. import video

        return getattr(video, name)

    return find


def _of_transport(name: str) -> Callable[[], Callable]:
    def find() -> Callable:
        from .. import transport

        return getattr(transport, name)

    return find


VERBS = {
    "flow": Verb(_flow, _of_video("flow_video")),
    "video": Verb(_video, _of_video("flow_video"), ".mp4"),
    "interpolate": Verb(_interpolate, _of_transport("interpolate_video"), ".mp4"),
    "magnify": Verb(_magnify, _of_transport("magnify_video"), ".mp4"),
    "tracks": Verb(_tracks, _of_transport("track_video"), ".csv"),
}


def endings(verb: str, options: Mapping, settings: EstimationSettings, pairs: bool) -> list[str]:
    """What follows an item's name in those of the files that are made of it; of a folder of flows the first alone.

    Args:
        pairs: whether it is a pair of frames.
    """
    if pairs:
        with tempfile.TemporaryDirectory() as folder:
            base = make_folder(folder) / "flow"
            (task,) = _pair_plan(["first.png", "second.png"], base, settings, options).tasks
            return [path.name.removeprefix(base.name) for _, path in task.outputs]
    if verb == "flow":
        return [f"/000000{flow_suffix(str(options.get('format', 'flo')))}"]
    return [VERBS[verb].suffix]


def check_options(verb: str, options: Mapping, settings: EstimationSettings, pairs: bool) -> None:
    """Refuse what no item could be done with, before the first.

    Args:
        pairs: whether there are pairs of frames, whose options are those of `featherflow.plans.plan_files`.

    Raises:
        InputError: for an option that the verb does not have, a value of another kind than it takes, or a format of flow files that
            does not exist; of pairs also for other values that cannot be.
    """
    function = plan_files if pairs else VERBS[verb].options()
    known = {name: str(one.annotation) for name, one in inspect.signature(function).parameters.items() if name not in _RESERVED}
    known |= {"picture": "bool"} if pairs else {}
    for name, value in options.items():
        if name not in known:
            raise InputError(
                f"'{name}' is no option of {verb} of {'pairs' if pairs else 'clips'}; there are {', '.join(sorted(known))}."
            )
        if not _is_of(value, kinds := known[name].split(" | ")):
            wanted = " or ".join(_KINDS[kind][1] for kind in kinds if kind != "None")
            raise InputError(f"The option {name} of {verb} is {wanted}, got '{value}'.")
    endings(verb, options, settings, pairs)


def _is_of(value: object, kinds: Sequence[str]) -> bool:
    """Whether a value is of one of these kinds; True where one of them is no plain one."""
    if not all(kind in _KINDS for kind in kinds):
        return True
    if isinstance(value, bool):  # which Python counts among the numbers
        return "bool" in kinds
    return isinstance(value, tuple(_KINDS[kind][0] for kind in kinds))
