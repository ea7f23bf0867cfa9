"""What can go wrong, as types. Each message is one sentence for a person: what was wrong, what was expected, what to do.

Library code raises these; the command line prints the sentence and exits with `exit_code`. Messages quote names and numbers from
files, so every message is made safe to print: see `printable`.
"""

import re
import sys

_MOST_DIGITS = 24
_LONGEST = 2000  # characters of a message
_DIGITS = re.compile(rf"\d{{{_MOST_DIGITS + 1},}}")
#: Letters that `str.isprintable` refuses and that do no harm: spaces of other widths, as in the names of screenshots.
_SPACES = frozenset("\u00a0\u2007\u2009\u202f\u3000")


def printable(text: str, longest: int = _LONGEST) -> str:
    """`text` as one line that is safe on any terminal and not longer than `longest` characters.

    Control characters, marks that turn the direction of writing and lone surrogates become escapes (`\\x1b`); numbers of more than
    24 digits and texts that are too long lose their middle.
    """
    text = _DIGITS.sub(lambda match: f"{match[0][:8]}...{match[0][-4:]}", text)
    if len(text) > longest:
        text = f"{text[: longest - longest // 4 - 5]} ... {text[-(longest // 4) :]}"
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in _SPACES else _escaped(letter) for letter in text)


def counted(count: int, noun: str) -> str:
    """A number of things in words that fit it: "1 frame", "2 frames"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


class FeatherflowError(Exception):
    """Base of every error that featherflow raises on purpose."""

    exit_code = 1

    def __init__(self, *args: object):
        super().__init__(*(printable(arg) if isinstance(arg, str) else arg for arg in args))


class InputError(FeatherflowError, ValueError):
    """An argument, image or array that cannot be used: wrong size, type, range or values."""

    exit_code = 2


class LimitError(InputError):
    """An input that is larger than a limit that was set."""


class FileError(FeatherflowError, OSError):
    """A file that is missing, unreadable, unwritable, truncated or not of the format its name claims."""

    exit_code = 3


class WeightsError(FeatherflowError):
    """A weight file that does not fit the network, or weights that are not there."""

    exit_code = 4


class MissingExtraError(FeatherflowError, ImportError):
    """An optional part that is not installed; the message holds the `pip install` line that cures it."""

    exit_code = 5


class TrainingError(FeatherflowError):
    """Training that cannot start, resume or go on."""

    exit_code = 6


class EngineError(FeatherflowError):
    """An engine that cannot run a network, or does not give its flow."""

    exit_code = 7


#: What allocators say when there is no memory left: PyTorch's on a CPU (Linux, Windows), C++, and ONNX Runtime's.
_ALLOCATORS_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "Failed to allocate memory for requested buffer",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the CPU or a GPU; not one that only speaks of memory."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")  # an error of PyTorch's can only come from one that is imported
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATORS_WORDS)
