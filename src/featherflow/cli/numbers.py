"""Whole numbers of the command line are those that were typed: cyclopts would round others without a word."""

from __future__ import annotations

import typing

from cyclopts import ArgumentCollection, Group


def _check(arguments: ArgumentCollection) -> None:
    for argument in arguments:
        kinds = typing.get_args(argument.hint) or (argument.hint,)
        if int not in kinds or float in kinds:
            continue
        for token in argument.tokens:
            if "." in token.value and not float(token.value).is_integer():
                raise ValueError(f"{argument.name} is a whole number, got {token.value}.")


#: The group of the parameters of all verbs.
PARAMETERS = Group("Parameters", validator=_check)
