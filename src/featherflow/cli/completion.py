"""`featherflow --install-completion`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

Shell = Literal["bash", "fish", "powershell", "zsh"]


def register(app: App) -> None:
    """Give `app` the command `--install-completion`, which knows what `app` can do at that time."""

    @app.command(name="--install-completion", group=app["--version"].group)
    def install_completion(*, shell: Shell | None = None, output: Annotated[Path | None, Parameter(alias="-o")] = None) -> None:
        """Let the shell complete commands and options when Tab is pressed.

        Example: featherflow --install-completion --shell bash

        Parameters
        ----------
        shell
            The shell; by default the one that this runs in.
        output
            Where to write the script; by default where the shell looks for such, with a line in its startup file.
        """
        from cyclopts.completion.detect import ShellDetectionError

        from ..errors import FileError, InputError

        try:
            path = app.install_completion(shell=shell, output=output, add_to_startup=output is None)
        except ShellDetectionError as error:
            raise InputError("Which shell this is cannot be told; name it, e.g. --shell bash.") from error
        except OSError as error:
            raise FileError(f"The script for the shell cannot be written: {error.filename}: {error.strerror}.") from error
        print(f"{path}: takes effect in the next shell.")
