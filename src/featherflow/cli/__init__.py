"""The `featherflow` command: one small file per verb, no logic of its own.

A verb imports what it needs when it runs, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError, ValidationError

from .. import __version__
from ..errors import FeatherflowError, InputError, is_out_of_memory, printable
from ..inference.runners.heap import keep_freed_memory
from ..inference.runners.threads import let_others_compute, respect_container
from . import (
    bench,
    check,
    completion,
    data,
    demo,
    estimate,
    evaluate,
    export,
    interpolate,
    magnify,
    models,
    piv,
    scale,
    serve,
    stabilise,
    tables,
    tracks,
    train,
    video,
    weights,
)
from .numbers import PARAMETERS
from .output import hold_every_name, keep_descriptors, say, show_log

app = App(
    name="featherflow",
    help="Dense optical flow: how every pixel moves from one frame to the next.\n\n"
    "Example: featherflow estimate frame1.png frame2.png -o flow.flo --picture flow.png",
    help_format="plaintext",  # in which an asterisk is an asterisk
    default_parameter=Parameter(negative_iterable=()),
    group_arguments=PARAMETERS,
    group_parameters=PARAMETERS,
    version=__version__,
    suppress_keyboard_interrupt=False,
)
for verb in (
    demo.demo,
    estimate.estimate,
    video.video,
    interpolate.interpolate,
    stabilise.stabilise,
    magnify.magnify,
    tracks.tracks,
    check.check,
    piv.piv,
    evaluate.evaluate,
    bench.bench,
    export.export,
    tables.tables,
    models.models,
    train.train,
    serve.serve,
):
    app.command(verb)
app.command(serve.page, name="app")
app.command(weights.app)
app.command(data.app)
app.command(scale.app)
completion.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code: 0 when all went well, else one sentence on standard error."""
    keep_descriptors()
    hold_every_name()
    show_log(logging.WARNING)
    warnings.filterwarnings("ignore", module="PIL")  # what it thinks of damaged images, which are refused in our own words
    let_others_compute()
    respect_container()
    keep_freed_memory()
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except FeatherflowError as error:
        _leave(str(error), error.exit_code)
    except CycloptsError as error:  # its own frame would show what was typed as it is
        _leave(_told(error), InputError.exit_code)
    except KeyboardInterrupt as stop:
        _leave(str(stop) or "interrupted; nothing half-written is left.", 130)
    except BrokenPipeError:  # the reader of our output went away
        sys.stdout = open(os.devnull, "w")
        sys.exit(141)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = f" ({printable(str(error).splitlines()[0], 200)})" if str(error) else ""
        _leave(f"there is not enough memory for frames of this size; try smaller ones{reason}.", 1)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _leave(f"the disk is full: {error.filename or 'a file'} could not be written.", 3)
        name = printable(str(error.filename or "a file"), 200)
        _leave(f"{name} cannot be used: {(error.strerror or str(error)).lower()}.", 3)


def _told(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"Too many words: nothing is done with {' '.join(error.unused_tokens or ())}."
    if isinstance(error, ValidationError) and error.group is not None:
        return error.exception_message
    return " ".join(str(error).split())


def _leave(message: str, code: int) -> None:
    say(f"featherflow: {message}", to_error=True)
    sys.exit(code)
