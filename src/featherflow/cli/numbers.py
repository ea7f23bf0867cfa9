"""Numbers of the command line are those that were typed: cyclopts would round others to whole ones without a word, and take "none"
for an option that was left out (`--refine none`)."""

from __future__ import annotations

import typing

from cyclopts import ArgumentCollection, Group


def _check(arguments: ArgumentCollection) -> None:
    for argument in arguments:
        kinds = typing.get_args(argument.hint) or (argument.hint,)
        if int not in kinds and float not in kinds:
            continue
        for token in argument.tokens:
            if str not in kinds and token.value.lower() in ("none", "null"):
                raise ValueError(f"{argument.name} is a number, got {token.value}.")
            if float not in kinds and "." in token.value and not float(token.value).is_integer():
                raise ValueError(f"{argument.name} is a whole number, got {token.value}.")


#: The group of the parameters of all verbs.
PARAMETERS = Group("Parameters", validator=_check)
