"""A writer of Lua Torch's binary format for tests: what `torch.save` of Lua would write for the same values."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

STORAGES = {"f4": "Float", "f8": "Double", "i8": "Long", "u1": "Byte"}


@dataclass
class Object:
    """An object of a Lua class."""

    kind: str
    fields: dict = field(default_factory=dict)
    version: int = 1


@dataclass
class Tensor:
    """A tensor as Lua keeps it: a window on a storage (float32 numbers), which may be shared."""

    storage: np.ndarray
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 1
    cuda: bool = False


def tensor(array: np.ndarray, cuda: bool = False) -> Tensor:
    """A whole array as a tensor with a storage of its own."""
    array = np.ascontiguousarray(array)
    return Tensor(array.ravel(), array.shape, tuple(stride // array.itemsize for stride in array.strides), cuda=cuda)


class Writer:
    """Indices go to tables, objects and storages in the order in which they are met; one met again is its index alone."""

    def __init__(self):
        self.out = bytearray()
        self.indices: dict[int, int] = {}
        self.kept: list[object] = []

    def int32(self, number: int) -> None:
        self.out += struct.pack("<i", number)

    def text(self, text: str) -> None:
        self.int32(len(text.encode()))
        self.out += text.encode()

    def met(self, value: object) -> bool:
        """Write the index of a value; whether it was written before."""
        known = id(value) in self.indices
        self.kept.append(value)
        self.int32(self.indices.setdefault(id(value), len(self.indices) + 1))
        return known

    def value(self, value: object) -> bytes:
        if value is None:
            self.int32(0)
        elif isinstance(value, bool):
            self.int32(5)
            self.int32(int(value))
        elif isinstance(value, int | float):
            self.int32(1)
            self.out += struct.pack("<d", value)
        elif isinstance(value, str):
            self.int32(2)
            self.text(value)
        elif isinstance(value, dict):
            self.int32(3)
            if not self.met(value):
                self.table(value)
        else:
            self.int32(4)
            if not self.met(value):
                self.object(value)
        return bytes(self.out)

    def table(self, value: dict) -> None:
        self.int32(len(value))
        for key, entry in value.items():
            self.value(key)
            self.value(entry)

    def object(self, value: Object | Tensor | np.ndarray) -> None:
        self.text(f"V {value.version}" if isinstance(value, Object) else "V 1")
        if isinstance(value, Object):
            self.text(value.kind)
            if value.kind == "nn.DataParallelTable" and value.version > 1:
                self.value({1: 1})  # the GPU that each copy sat on
            self.value(value.fields)
        elif isinstance(value, Tensor):
            self.text("torch.CudaTensor" if value.cuda else f"torch.{STORAGES[value.storage.dtype.str[1:]]}Tensor")
            self.int32(len(value.sizes))
            self.out += struct.pack(f"<{2 * len(value.sizes) + 1}q", *value.sizes, *value.strides, value.offset)
            self.cuda = value.cuda
            self.value(value.storage)
        else:
            self.text("torch.CudaStorage" if self.cuda else f"torch.{STORAGES[value.dtype.str[1:]]}Storage")
            self.out += struct.pack("<q", value.size) + value.tobytes()


def torch7(value: object) -> bytes:
    """The bytes of a file."""
    return Writer().value(value)


def spynet_level(pairs: list[tuple[np.ndarray, np.ndarray]], cuda: bool, matrix: bool) -> Object:
    """One level as its file holds it: convolutions and ReLUs in a chain within a chain; all weights in one storage, as Torch
    leaves them after `getParameters`.

    Args:
        pairs: weight and bias of each convolution.
        matrix: 2-D weights, as nn.SpatialConvolutionMM keeps them.
    """
    flat = np.concatenate([part.ravel() for pair in pairs for part in pair]).astype(np.float32)
    layers, offset = {}, 1
    for weight, bias in pairs:
        out, channels, height, width = weight.shape
        sizes = (out, channels * height * width) if matrix else weight.shape
        strides = (sizes[1], 1) if matrix else (channels * height * width, height * width, width, 1)
        fields = {
            "nInputPlane": channels, "nOutputPlane": out, "kH": height, "kW": width, "dW": 1, "dH": 1, "padW": 3, "padH": 3,
            "train": False, "_type": "torch.CudaTensor" if cuda else "torch.FloatTensor",
            "weight": Tensor(flat, sizes, strides, offset, cuda),
            "bias": Tensor(flat, (out,), (1,), offset + weight.size, cuda),
            "gradWeight": Tensor(flat[:0].copy(), (), (), 1, cuda),
        }  # fmt: skip
        kind = "nn.SpatialConvolutionMM" if matrix else "cudnn.SpatialConvolution"
        layers[len(layers) + 1] = Object(kind, fields)
        layers[len(layers) + 1] = Object("nn.ReLU" if matrix else "cudnn.ReLU", {"inplace": True})
        offset += weight.size + bias.size
    del layers[len(layers)]  # no ReLU behind the last one
    inner = Object("nn.Sequential", {"modules": layers, "train": False})
    return Object("nn.Sequential", {"modules": {1: inner}, "output": tensor(np.zeros(3, np.float32), cuda)})
