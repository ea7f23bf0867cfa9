"""`featherflow models`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def models(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List networks with their weights, and the classical methods.

    Example: featherflow models --json

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    import torch

    from .. import classical, networks
    from ..weights import available, default_model
    from .output import print_json, print_table

    weights: dict[str, list[str]] = {}
    for info in available():
        weights.setdefault(info.architecture, []).append(info.tag)
    listed = []
    for name in networks.names():
        with torch.device("meta"):  # counting needs no memory for the weights
            count = sum(parameter.numel() for parameter in networks.build(name).parameters())
        entry = networks.get(name)
        listed.append(
            {
                "name": name,
                "kind": "network",
                "parameters": count,
                "weights": weights.get(name, []),
                "summary": entry.summary,
                "paper": entry.paper,
                "default": name == default_model(),
            }
        )
    listed += [
        {"name": method.name, "kind": "classical", "summary": method.summary, "paper": method.paper}
        for method in classical.METHODS.values()
    ]
    if json:
        print_json(listed)
        return
    rows = []
    for entry in listed:
        size = f"{entry['parameters'] / 1e6:.2f} M" if "parameters" in entry else "classical"
        summary = f"the default: {entry['summary']}" if entry.get("default") else entry["summary"]
        rows.append([entry["name"], size, ", ".join(entry.get("weights", [])), summary])
    print_table(["name", "parameters", "weights", ""], rows)
