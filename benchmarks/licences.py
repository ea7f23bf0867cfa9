"""The page docs/licences.md: under which licence each dependency stands, and which part of featherflow needs it.

Reads the metadata of what is installed, so run it where all extras are: `pip install -c constraints.txt -e ".[dev]"`.

    python benchmarks/licences.py docs/licences.md
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from featherflow.files import atomic_write

#: What a group of extras is for; "" is the core.
PURPOSES = {"": "core", "dev": "development"}
#: Licences of packages whose metadata state none, read in the file that comes with them.
READ = {"openexr": "BSD-3-Clause (by its LICENSE.md)"}
#: Licences that would bind those who pass featherflow on.
UNWANTED = re.compile(r"\b(A?GPL|non-?commercial|proprietary)\b(?! with)", re.IGNORECASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, nargs="?", default=Path("docs/licences.md"))
    page = parser.parse_args().page
    needed = dependencies()
    with atomic_write(page) as file:
        file.write(text(needed).encode())
    unwanted = [name for name in needed if UNWANTED.search(licence(distribution(name)))]
    if unwanted:
        sys.exit(f"Look at the licence of {', '.join(unwanted)}.")


def dependencies() -> dict[str, list[str]]:
    """Every package that featherflow needs, directly or not, and the parts ("core", names of extras) that need it."""
    package = distribution("featherflow")
    needed: dict[str, list[str]] = {}
    for extra in ("", *sorted(package.metadata.get_all("Provides-Extra") or ())):
        for name in sorted(closure(package, extra)):
            parts = needed.setdefault(name, [])
            if parts[:1] != ["core"]:
                parts.append(PURPOSES.get(extra, extra))
    return {
        name: [part for part in parts if part != "development"] or parts
        for name, parts in sorted(needed.items())
        if name != "featherflow"
    }


def closure(package: Distribution, extra: str) -> set[str]:
    """Names of what a package with an extra needs here, and all that these need in turn, as far as it is installed."""
    found: set[str] = set()
    waiting = [(package, {extra})]
    while waiting:
        current, extras = waiting.pop()
        for line in current.requires or ():
            requirement = Requirement(line)
            if requirement.marker and not any(requirement.marker.evaluate({"extra": name}) for name in extras or {""}):
                continue
            name = normalized(requirement.name)
            wanted = name if not requirement.extras else f"{name}[{','.join(sorted(requirement.extras))}]"
            if wanted in found:
                continue
            try:
                other = distribution(name)
            except PackageNotFoundError:
                continue
            found.add(wanted)
            waiting.append((other, {"", *requirement.extras}))
    return {name.partition("[")[0] for name in found}


def licence(package: Distribution) -> str:
    """In the package's own words: an SPDX expression, else classifiers, else the first line of a free text."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    named = [name for name in classifiers if name != "OSI Approved"]
    if named:
        return ", ".join(named)
    first = (metadata.get("License") or READ.get(normalized(metadata["Name"]), "not stated")).strip().splitlines()[0]
    return first if len(first) <= 60 else f"{first[:57]}..."


def text(needed: dict[str, list[str]]) -> str:
    version = "{}.{}".format(*sys.version_info)
    lines = [
        "# Licences of dependencies",
        "",
        "What featherflow needs, and what these need in turn, with the licence that each package states in its metadata. Written",
        f"by `python benchmarks/licences.py` on Linux with Python {version}; other systems may need a few more or fewer.",
        "A wheel can hold more than its own licence says: that of `av` brings FFmpeg ([Clips](video.md#the-flow-of-a-clip), under",
        '"Compression"). The licences of weights are another matter: [Concepts](concepts.md#licences-of-weights).',
        "",
        "| package | version | licence | needed by |",
        "| --- | --- | --- | --- |",
    ]
    for name, parts in needed.items():
        package = distribution(name)
        lines.append(f"| {package.metadata['Name']} | {package.version} | {licence(package)} | {', '.join(parts)} |")
    return "\n".join(lines) + "\n"


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
