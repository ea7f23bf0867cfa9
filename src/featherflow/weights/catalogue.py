"""Which weights are there: those in the package, and those in the user's folder.

Both folders hold files `<architecture>-<tag>.safetensors`. The user's folder is `weights` in the folder that the environment
variable FEATHERFLOW_HOME names, or in the system's usual place for a program's data.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import NamedTuple

from .. import networks
from ..errors import FeatherflowError, FileError, InputError, WeightsError
from .info import SUFFIX, WeightsInfo, file_name, parse_name
from .store import read_info

BUNDLED = Path(__file__).parent / "bundled"

#: Tag that stands behind a bare architecture. Without an entry, or without that file, the only one there is.
DEFAULT_TAGS: dict[str, str] = dict.fromkeys(
    ("liteflownet-tied", "liteflownet", "liteflownet2", "liteflownet2-kitti", "liteflownet2-slim", "liteflownetx"), "procedural"
)

#: How the name of a repository of the Hugging Face Hub begins.
ON_THE_HUB = "hf://"


def says_where(name: str) -> bool:
    """Whether a name is the place of a weight file, on the Hub or a path, which itself says what network it is for."""
    return name.startswith(ON_THE_HUB) or name.endswith(SUFFIX)


class Entry(NamedTuple):
    """A weight file that is there."""

    info: WeightsInfo
    path: Path
    #: "bundled" or "user".
    place: str


def user_folder() -> Path:
    """Where imported and fetched weights are kept. It may not exist yet."""
    if home := os.environ.get("FEATHERFLOW_HOME"):
        return Path(home).expanduser() / "weights"
    import platformdirs  # training on a rented machine does without

    return platformdirs.user_data_path("featherflow", appauthor=False) / "weights"


def checked_name(name: str) -> tuple[str, str]:
    """Architecture and tag (perhaps empty) of a name, of a network that exists.

    Raises:
        InputError: for an unknown network, or a tag that would be mistaken for part of another network's name.
    """
    architecture, tag = parse_name(name)
    networks.get(architecture)
    joined = f"{architecture}-{tag}-"
    for other in networks.names():
        if tag and other != architecture and other.startswith(f"{architecture}-") and joined.startswith(f"{other}-"):
            raise InputError(f"The tag '{tag}' would be mistaken for the network '{other}'; choose another tag.")
    return architecture, tag


def entries() -> list[Entry]:
    """All weights that are there, bundled ones first; a file that cannot be read is left out with a warning."""
    found: dict[str, Entry] = {}
    for place, folder in (("bundled", BUNDLED), ("user", user_folder())):
        for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
            try:
                info = read_info(path)
            except FeatherflowError as error:
                warnings.warn(f"Left out: {error}", stacklevel=2)
                continue
            if path.name == file_name(info.architecture, info.tag):
                found.setdefault(info.name, Entry(info, path, place))
            else:
                expected = file_name(info.architecture, info.tag)
                warnings.warn(f"Left out: {path} holds {info.name} and would have to be called {expected}.", stacklevel=2)
    return list(found.values())


def find(name: str) -> Path:
    """File of `architecture`, `architecture:tag`, `hf://user/repo`, or of a path that ends in .safetensors (it may not exist).

    Raises:
        InputError: for an unknown network.
        WeightsError: for weights that are not there, or several to choose from, saying what there is.
    """
    if name.startswith(ON_THE_HUB):
        from .hub import download

        return download(name)
    if says_where(name):
        return Path(name)
    architecture, tag = checked_name(name)
    if not tag:
        tag = DEFAULT_TAGS.get(architecture, "")
        if not tag or _path(architecture, tag) is None:
            tag = _only_tag(architecture)
    path = _path(architecture, tag)
    if path is None:
        raise WeightsError(f"There are no weights '{architecture}:{tag}'; {_what_there_is(architecture)}")
    return path


def _path(architecture: str, tag: str) -> Path | None:
    for folder in (BUNDLED, user_folder()):
        path = folder / file_name(architecture, tag)
        if path.is_file():
            return path
    return None


def _only_tag(architecture: str) -> str:
    tags = [entry.info.tag for entry in entries() if entry.info.architecture == architecture]
    if len(tags) == 1:
        return tags[0]
    if tags:
        choice = " or ".join(f"'{architecture}:{tag}'" for tag in tags)
        raise WeightsError(f"There are several weights of {architecture}; name one: {choice}.")
    raise WeightsError(f"There are no weights of {architecture}; {_what_there_is(architecture)}")


def _what_there_is(architecture: str) -> str:
    there = ", ".join(f"'{entry.info.name}'" for entry in entries())
    from .archive import ARCHIVES  # which looks into this module

    published = [archive.name for archive in ARCHIVES.values() if archive.target.partition(":")[0] == architecture]
    ways = [
        f"`featherflow weights import FILE --as {architecture}`",
        *(f"`featherflow weights fetch {name}`" for name in published[:1]),
    ]
    return f"there are {there or 'none of any network'}; {' or '.join(ways)} gets some."


def destination(architecture: str, tag: str, create: bool = False) -> Path:
    """Where weights of the user are to be written, so that `find` finds them.

    Args:
        create: make the folder if it is not there.

    Raises:
        InputError: for a name that bundled weights have, or no proper name.
        FileError: for a folder that cannot be made.
    """
    checked_name(f"{architecture}:{tag}")
    if (BUNDLED / file_name(architecture, tag)).is_file():
        raise InputError(f"'{architecture}:{tag}' comes with featherflow and would hide your file; choose another tag.")
    folder = user_folder()
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"The folder {folder} cannot be made: {error.strerror or error}.") from error
    return folder / file_name(architecture, tag)
