"""A writer of `.caffemodel` files for tests, in every form that readers must take."""

from __future__ import annotations

import io
import struct
import tarfile

import numpy as np

from featherflow.weights.names import MEAN_LAYERS, official_layers

LEGACY_TYPES = {"Convolution": 4, "Deconvolution": 39}
FILE_MEANS = {"mean1": (0.25, 0.5, 0.375), "mean2": (0.125, 0.75, 0.625)}


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def number_field(field: int, number: int) -> bytes:
    return varint(field << 3) + varint(number)


def bytes_field(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def blob(array: np.ndarray, legacy_shape: bool = False, packed: bool = True, double: bool = False) -> bytes:
    array = np.asarray(array)
    field, code, wire = (8, "<f8", 1) if double else (5, "<f4", 5)
    values = array.astype(code).ravel()
    if packed:
        data = bytes_field(field, values.tobytes())
    else:
        data = b"".join(varint(field << 3 | wire) + value.tobytes() for value in values)
    if legacy_shape:
        shape = (1,) * (4 - array.ndim) + array.shape
        return b"".join(number_field(i + 1, side) for i, side in enumerate(shape)) + data
    dims = b"".join(map(varint, array.shape))
    shape = bytes_field(1, dims) if packed else b"".join(number_field(1, side) for side in array.shape)
    return data + bytes_field(7, shape)  # data before shape, as the release writes it


def layer(name: str, kind: str, blobs, legacy: bool = False, **form) -> bytes:
    contents = b"".join(bytes_field(6 if legacy else 7, blob(array, **form)) for array in blobs)
    if legacy:
        head = bytes_field(2, b"bottom") + bytes_field(4, name.encode()) + number_field(5, LEGACY_TYPES.get(kind, 0))
        return bytes_field(2, head + contents)
    head = bytes_field(1, name.encode()) + bytes_field(2, kind.encode()) + bytes_field(3, b"bottom")
    unknown = varint(5 << 3 | 5) + struct.pack("<f", 1.0) + number_field(10, 1)
    return bytes_field(100, head + unknown + contents)


def caffemodel(layers, **form) -> bytes:
    """`layers`: (name, type, arrays) each."""
    return bytes_field(1, b"test net") + b"".join(layer(*entry, **form) for entry in layers)


def official_layers_of(network, means=FILE_MEANS) -> list[tuple[str, str, list[np.ndarray]]]:
    """A network's weights as the layers of an official training snapshot, with the extra layers that such files hold."""
    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    layers = [("data", "Input", [])]
    for slot, name in MEAN_LAYERS.items():
        if means:
            mean = np.float32(means[slot]).reshape(1, 3, 1, 1)
            layers.append((name, "DataAugmentation", [np.full((1, 1, 1, 1), 3000.0), np.zeros((1, 3, 2, 2)), mean]))
    for ours, official in official_layers(network.config).items():
        blobs = [state[f"{ours}.{kind}"] for kind in ("weight", "bias") if f"{ours}.{kind}" in state]
        kind = "Deconvolution" if "up" in ours.rpartition(".")[2] else "Convolution"
        layers += [(official, kind, blobs), (f"ReLU_{official}", "ReLU", [])]
    layers.append(("scaled_flow_R_L6_x", "Convolution", [np.ones((1, 9, 1, 1)), np.zeros(1)]))
    return layers


def tar_gz(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()
