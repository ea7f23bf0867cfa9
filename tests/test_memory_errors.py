"""Which errors say that memory ran out."""

import pytest
import torch

from featherflow.errors import is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
        ),
    ],
)
def test_memory_ran_out(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("Expected a tensor in the memory format channels_last"),
        RuntimeError("out of memory is what this text speaks of"),
        ValueError("std::bad_alloc"),
        OSError("Cannot allocate memory"),
    ],
)
def test_what_only_speaks_of_memory(error):
    assert not is_out_of_memory(error)


def test_pytorch_itself_says_it_that_way():
    """No machine has this much; the words are those of the PyTorch that is installed."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
