"""The reader of Lua Torch's files: every value it takes, shared references, and lies about lengths."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch7_writer import Object, Tensor, spynet_level, tensor, torch7

from featherflow import networks
from featherflow.errors import FeatherflowError, FileError, WeightsError
from featherflow.weights import import_weights, import_weights_to, load
from featherflow.weights.torch7 import convolutions, is_torch7, read_torch7


def read(value):
    return read_torch7(torch7(value), "model.t7")


def test_plain_values():
    value = {"a": 1, 2: 0.5, "c": "text", "d": True, "e": None, "f": {1: False}}
    assert read(value) == value


def test_bytes_written_by_hand():
    """The format spelled out, independent of the writer: an nn.Identity with one number in its table."""
    data = (
        struct.pack("<iii", 4, 1, 3) + b"V 1" + struct.pack("<i", 11) + b"nn.Identity"
        + struct.pack("<iii", 3, 2, 1) + struct.pack("<ii", 2, 5) + b"scale" + struct.pack("<id", 1, 2.5)
    )  # fmt: skip
    assert is_torch7(data)
    value = read_torch7(data, "model.t7")
    assert value.kind == "nn.Identity" and value.fields == {"scale": 2.5}


def test_class_without_version():
    data = struct.pack("<iii", 4, 1, 8) + b"nn.Thing" + struct.pack("<iii", 3, 2, 0)
    assert read_torch7(data, "model.t7").kind == "nn.Thing"


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1"])
def test_tensors(dtype):
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)
    assert np.array_equal(read(tensor(array)), array) and read(tensor(array)).dtype == array.dtype


def test_cuda_tensor_holds_float32():
    array = np.linspace(0, 1, 5, dtype=np.float32)
    assert np.array_equal(read(tensor(array, cuda=True)), array)


def test_strides_offset_and_shared_storage():
    storage = np.arange(12, dtype=np.float32)
    shared = Tensor(storage, (3, 4), (1, 3))
    first, second, again = read({1: shared, 2: Tensor(storage, (2,), (1,), offset=11), 3: shared}).values()
    assert np.array_equal(first, storage.reshape(4, 3).T) and second.tolist() == [10, 11]
    assert again is first


def test_a_table_may_hold_itself():
    table = {"name": "loop"}
    table["self"] = table
    value = read(table)
    assert value["self"] is value


def test_functions_are_refused():
    for kind in (6, 7, 8):
        with pytest.raises(WeightsError, match="functions"):
            read_torch7(struct.pack("<iiiiii", 3, 1, 1, kind, 0, 0), "model.t7")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        struct.pack("<i", 99),
        struct.pack("<iii", 3, 1, 2**31 - 1),
        struct.pack("<iii", 3, 1, -1),
        struct.pack("<ii", 2, -5),
        struct.pack("<ii", 2, 10**9) + b"x",
        torch7(Tensor(np.zeros(4, np.float32), (1000, 1000), (0, 0))),
        torch7(Tensor(np.zeros(4, np.float32), (2, 2), (2, 2))),
        torch7(Tensor(np.zeros(4, np.float32), (2,), (-1,), offset=2)),
        torch7(Tensor(np.zeros(4, np.float32), (2,), (1,), offset=0)),
        struct.pack("<iii", 3, 1, 1) * 10_000,
    ],
    ids=["empty", "type", "table", "negative", "length", "string", "expanded", "reach", "stride", "offset", "deep"],
)
def test_lies_are_refused(bad):
    with pytest.raises(FileError, match=r"model\.t7"):
        read_torch7(bad, "model.t7")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_anywhere_is_an_error_or_a_value(data):
    good = torch7(spynet_level([(np.ones((2, 3, 1, 1), np.float32), np.ones(2, np.float32))], cuda=True, matrix=False))
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] = data.draw(st.integers(0, 255))
    for damaged in (bytes(bad), good[:position]):
        try:
            convolutions(read_torch7(damaged, "model.t7"), "model.t7")
        except FeatherflowError:
            pass


# ------------------------------------------------------------------------------------------------ SPyNet


def write_levels(folder, network, cuda=True, matrix=False, suffix="F"):
    for level, part in enumerate(network.moduleBasic, start=1):
        layers = [layer for layer in part.moduleBasic if hasattr(layer, "weight")]
        pairs = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]
        (folder / f"modelL{level}_{suffix}.t7").write_bytes(torch7(spynet_level(pairs, cuda, matrix)))


@pytest.mark.parametrize("cuda, matrix", [(True, False), (False, True)])
def test_spynet_from_its_own_files(cuda, matrix, tmp_path, home):
    torch.manual_seed(0)
    network = networks.build("spynet")
    write_levels(tmp_path, network, cuda, matrix)
    path, imported = import_weights_to(tmp_path / "modelL3_F.t7", "spynet:sintel-final")
    assert path.is_file() and imported.info.name == "spynet:sintel-final" and "non-commercial" in imported.info.licence_weights
    loaded = load("spynet:sintel-final").state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("version", [1, 2, 3])
def test_of_parallel_copies_the_first_is_taken(version):
    """Networks trained on several GPUs, which the release also loads; the object that runs them points back at its table."""
    pairs = [(np.full((2, 3, 1, 1), number, np.float32), np.ones(2, np.float32)) for number in (1, 2)]
    copies = {number: spynet_level([pair], cuda=True, matrix=False) for number, pair in enumerate(pairs, start=1)}
    parallel = Object("nn.DataParallelTable", {"modules": copies, "dimension": 1}, version)
    parallel.fields["impl"] = Object("nn.DataParallelTable.Basic", {"dpt": parallel})
    value = read({"before": parallel, "after": 7})
    assert value["after"] == 7
    ((weight, _),) = convolutions(value["before"], "model.t7")
    assert np.array_equal(weight, pairs[0][0])


def test_sets_of_five_levels_use_the_last_one_twice(tmp_path):
    torch.manual_seed(0)
    write_levels(tmp_path, networks.build("spynet"), suffix="4")
    (tmp_path / "modelL6_4.t7").unlink()
    for given_level in (1, 5):
        state = import_weights(tmp_path / f"modelL{given_level}_4.t7", "spynet").state_dict
        twice, fourth = (state[f"moduleBasic.{level}.moduleBasic.0.weight"] for level in (5, 3))
        assert torch.equal(twice, state["moduleBasic.4.moduleBasic.0.weight"]) and not torch.equal(twice, fourth)


def test_spynet_with_a_level_missing_or_of_something_else(tmp_path):
    write_levels(tmp_path, networks.build("spynet"))
    (tmp_path / "other.t7").write_bytes((tmp_path / "modelL1_F.t7").read_bytes())
    with pytest.raises(FileError, match="level"):
        import_weights(tmp_path / "other.t7", "spynet")
    (tmp_path / "modelL2_F.t7").write_bytes(torch7(Object("nn.Sequential", {"modules": {1: Object("nn.Tanh")}})))
    with pytest.raises(WeightsError, match=r"nn\.Tanh"):
        import_weights(tmp_path / "modelL1_F.t7", "spynet")
    (tmp_path / "modelL2_F.t7").unlink()
    with pytest.raises(FileError, match="modelL2_F"):
        import_weights(tmp_path / "modelL1_F.t7", "spynet")
