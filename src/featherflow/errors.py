"""What can go wrong, as types. Each message is one sentence for a person: what was wrong, what was expected, what to do.

Library code raises these; the command line prints the sentence and exits with `exit_code`.
"""

import sys


class FeatherflowError(Exception):
    """Base of every error that featherflow raises on purpose."""

    exit_code = 1


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
