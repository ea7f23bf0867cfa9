"""Our own files, and finding them by name."""

import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import random_network
from safetensors.torch import load_file, save_file

from featherflow import weights
from featherflow.errors import FileError, InputError, WeightsError
from featherflow.weights import WeightsInfo, catalogue
from featherflow.weights.importer import import_weights_to
from featherflow.weights.store import read_info, read_weights, save_weights

INFO = WeightsInfo(
    architecture="liteflownetx",
    tag="test",
    recipe="none",
    data="noise",
    samples_seen=12,
    scores={"noise EPE per_image": 3.5, "list": [1, 2]},
    licence_code="Apache-2.0",
    licence_weights="Apache-2.0",
    source="a test",
    commit="abc",
    approximate="it is random",
)


def save(path, network, dtype=torch.float32, **changes):
    save_weights(path, network.state_dict(), WeightsInfo(**{**INFO.as_dict(), **changes}), dtype)
    return path


def test_round_trip(tmp_path, small_network):
    path = save(tmp_path / "a.safetensors", small_network)
    state, info = read_weights(path)
    assert info == INFO and list(state) == list(small_network.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in small_network.state_dict().items())
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_half_precision(tmp_path, small_network):
    """Half the size; means keep all their digits, since every pixel sees them."""
    path = save(tmp_path / "a.safetensors", small_network, torch.float16, samples_seen=0)
    stored, (state, _) = load_file(path), read_weights(path)
    assert stored["netc.levels.0.0.weight"].dtype == torch.float16 and stored["mean1"].dtype == torch.float32
    for name, tensor in small_network.state_dict().items():
        assert state[name].dtype == torch.float32 and torch.allclose(state[name], tensor, rtol=1e-3, atol=1e-6)
    assert path.stat().st_size < 2.2 * 902_855


def test_empty_fields_are_not_stored():
    assert set(WeightsInfo("liteflownetx").to_metadata()) == {"format", "architecture"}
    assert WeightsInfo.from_metadata({"architecture": "a", "something": "new"}, "x") == WeightsInfo("a")


def test_options_change_the_network(tmp_path):
    network = random_network("liteflownetx", normalized_matching=True, subpixel=(8, 8))
    path = save(tmp_path / "a.safetensors", network, options={"normalized_matching": True, "subpixel": [8, 8]})
    loaded = weights.load("liteflownetx", weights=path)
    assert loaded.config == network.config and not loaded.training
    assert loaded.weights_info.options["normalized_matching"] is True


def test_what_the_metadata_cannot_mean_is_not_written(tmp_path, small_network):
    with pytest.raises(WeightsError, match=r"nete\.level6\.subpixel\.convs\.0\.weight"):
        save(tmp_path / "a.safetensors", small_network, options={"subpixel": [8, 8]})
    with pytest.raises(WeightsError, match="plain numbers"):
        save(tmp_path / "a.safetensors", small_network, scores={"epe": np.float32(1)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name, value, dtype, said",
    [
        ("netc.levels.2.0.bias", float("nan"), torch.float32, "'netc.levels.2.0.bias' of the state dict .* not finite"),
        ("netc.levels.2.0.bias", float("-inf"), torch.float16, "not finite"),
        ("netc.levels.2.0.bias", 1e5, torch.float16, "too large for float16"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_stored(name, value, dtype, said, tmp_path, small_network):
    state = {key: tensor.clone() for key, tensor in small_network.state_dict().items()}
    state[name][1] = value
    with pytest.raises(WeightsError, match=said):
        save_weights(tmp_path / "a.safetensors", state, INFO, dtype)
    assert os.listdir(tmp_path) == []


def rewritten(path, change, metadata=None):
    state = load_file(path)
    change(state)
    save_file(state, path, metadata or INFO.to_metadata())
    return path


BAD_STATES = {
    "nan": (lambda s: s["netc.levels.1.0.weight"].view(-1)[3:4].fill_(float("nan")), "'netc.levels.1.0.weight' .* not finite"),
    "missing": (lambda s: s.pop("netc.levels.3.1.bias"), "'netc.levels.3.1.bias' of liteflownetx is not in"),
    "shape": (lambda s: s.update(mean2=torch.zeros(4)), r"'mean2' .* has shape \(4,\); liteflownetx needs \(3,\)"),
    "extra": (lambda s: s.update(zzz=torch.zeros(4)), "'zzz' of .* is none of liteflownetx"),
    "integers": (lambda s: s.update(mean2=torch.zeros(3, dtype=torch.int64)), "'mean2' .* is stored as I64"),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_files_that_do_not_fit(case, tmp_path, small_network):
    change, said = BAD_STATES[case]
    path = rewritten(save(tmp_path / "a.safetensors", small_network), change)
    with pytest.raises(WeightsError, match=said):
        read_weights(path)


@pytest.mark.parametrize(
    "metadata, said",
    [
        ({"a": "b"}, "does not say which network"),
        ({"architecture": "flownet9"}, "There is no network named 'flownet9'"),
        ({"architecture": "liteflownetx", "scores": "{"}, "'scores' cannot be read"),
        ({"architecture": "liteflownetx", "options": "[1]"}, "'options' cannot be read"),
        ({"architecture": "liteflownetx", "samples_seen": "many"}, "'samples_seen' cannot be read"),
        ({"architecture": "liteflownetx", "options": '{"warp": true}'}, "no option 'warp'"),
        ({"architecture": "liteflownetx", "options": '{"features": [[8]]}'}, "options .* make no liteflownetx"),
        ({"architecture": "liteflownetx", "options": '{"subpixel": [1000000000]}'}, "convs.0.weight"),
        ({"architecture": "liteflownetx", "options": '{"subpixel": [100000000000000000000]}'}, "'options' cannot be read"),
        ({"architecture": "liteflownetx", "options": f'{{"subpixel": {[8] * 3000}}}'}, "'options' cannot be read"),
    ],
)
def test_metadata_that_lie(metadata, said, tmp_path, small_network):
    """Also where they ask for a network larger than memory."""
    path = rewritten(save(tmp_path / "a.safetensors", small_network), lambda state: None, metadata)
    with pytest.raises(WeightsError, match=said):
        weights.load("liteflownetx", weights=path)


@pytest.fixture(scope="module")
def saved_bytes(tmp_path_factory, small_network) -> bytes:
    return save(tmp_path_factory.mktemp("saved") / "a.safetensors", small_network, torch.float16).read_bytes()


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 0.9999))
def test_truncated_files(share, saved_bytes, tmp_path_factory):
    path = tmp_path_factory.mktemp("truncated") / "a.safetensors"
    path.write_bytes(saved_bytes[: int(share * len(saved_bytes))])
    with pytest.raises(FileError, match=r"a\.safetensors is not a safetensors file, or is truncated") as error:
        read_weights(path)
    assert "\n" not in str(error.value)


def test_foreign_missing_and_folder(tmp_path):
    (tmp_path / "text").write_text("hello " * 99)
    for name, said in (("text", "not a safetensors file"), ("no", "There is no file"), (".", "is a folder")):
        with pytest.raises(FileError, match=said):
            weights.load("liteflownetx", weights=tmp_path / name)


# ------------------------------------------------------------------------------------------------ by name


@pytest.fixture
def bundled(tmp_path, monkeypatch, home):
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(catalogue, "BUNDLED", folder)
    return folder


def test_nothing_there(bundled):
    assert weights.available() == []
    with pytest.raises(WeightsError, match="no weights of liteflownetx; there are none of any network; `featherflow weights"):
        weights.load("liteflownetx")
    with pytest.raises(InputError, match="did you mean 'liteflownetx'"):
        weights.load("liteflowntx")


def test_bundled_then_user(bundled, home, small_network):
    home.mkdir(parents=True)
    save(bundled / "liteflownetx-one.safetensors", small_network, tag="one", source="bundled")
    save(home / "liteflownetx-one.safetensors", small_network, tag="one", source="user")
    assert weights.load("liteflownetx").weights_info.source == "bundled"
    save(home / "liteflownetx-two.safetensors", small_network, tag="two", source="user")
    assert weights.load("liteflownetx:two").weights_info.source == "user"
    assert [info.name for info in weights.available()] == ["liteflownetx:one", "liteflownetx:two"]
    with pytest.raises(WeightsError, match="name one: 'liteflownetx:one' or 'liteflownetx:two'"):
        weights.load("liteflownetx")
    with pytest.raises(WeightsError, match="no weights 'liteflownetx:three'; there are 'liteflownetx:one', 'liteflownetx:two'"):
        weights.load("liteflownetx:three")


def test_default_tag(bundled, monkeypatch, small_network):
    monkeypatch.setitem(catalogue.DEFAULT_TAGS, "liteflownetx", "b")
    for tag in "abc":
        save(bundled / f"liteflownetx-{tag}.safetensors", small_network, tag=tag)
    assert weights.load("liteflownetx").weights_info.tag == "b"
    for tag in "bc":
        (bundled / f"liteflownetx-{tag}.safetensors").unlink()
    assert weights.load("liteflownetx").weights_info.tag == "a"
    assert weights.default_model() in catalogue.DEFAULT_TAGS


def test_loaded_network_computes_what_was_saved(tmp_path, small_network):
    loaded = weights.load("liteflownetx", weights=save(tmp_path / "a.safetensors", small_network), device="cpu")
    frames = torch.rand(2, 1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(*frames), small_network(*frames))


def test_explicit_file_must_be_of_the_network(tmp_path, small_network):
    path = save(tmp_path / "a.safetensors", small_network)
    with pytest.raises(WeightsError, match="holds weights of liteflownetx, not of liteflownet2"):
        weights.load("liteflownet2", weights=path)
    with pytest.raises(WeightsError, match="holds 'liteflownetx:test', not 'liteflownetx:other'"):
        weights.load("liteflownetx:other", weights=path)
    with pytest.raises(InputError, match="The device 'gpu' cannot be used"):
        weights.load("liteflownetx", weights=path, device="gpu")


def test_import_into_the_users_folder(bundled, home, tmp_path, small_caffemodel, small_network):
    file = tmp_path / "x.caffemodel"
    file.write_bytes(small_caffemodel)
    path, _ = import_weights_to(file, "liteflownetx:mine")
    assert path == home / "liteflownetx-mine.safetensors"
    assert torch.equal(weights.load("liteflownetx:mine").mean1, small_network.mean1)
    again, imported = import_weights_to(path, "liteflownetx:renamed")
    assert imported.info.tag == "renamed" and imported.info.source == read_info(path).source
    assert weights.load("liteflownetx:renamed").weights_info.name == "liteflownetx:renamed" and again.parent == home
    save(bundled / "liteflownetx-taken.safetensors", small_network, tag="taken")
    with pytest.raises(InputError, match="comes with featherflow"):
        import_weights_to(file, "liteflownetx:taken")


def test_user_folder_that_cannot_be_made(bundled, tmp_path, monkeypatch, small_caffemodel):
    file = tmp_path / "x.caffemodel"
    file.write_bytes(small_caffemodel)
    monkeypatch.setenv("FEATHERFLOW_HOME", str(file))
    with pytest.raises(FileError, match="cannot be made"):
        import_weights_to(file, "liteflownetx:mine")


def test_a_broken_file_does_not_hide_the_others(bundled, small_network):
    save(bundled / "liteflownetx-good.safetensors", small_network, tag="good")
    (bundled / "liteflownetx-bad.safetensors").write_bytes(b"x" * 100)
    save(bundled / "misnamed.safetensors", small_network, tag="good")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [info.tag for info in weights.available()] == ["good"]
    assert len(caught) == 2
    with pytest.raises(FileError):
        weights.load("liteflownetx:bad")


def test_describe(tmp_path, small_network):
    facts = weights.describe(save(tmp_path / "a.safetensors", small_network, torch.float16))
    assert facts["parameters"] == 902_855 and facts["stored_as"] == ["F16", "F32"] and facts["tag"] == "test"


def test_importing_the_room_is_cheap():
    code = "import featherflow.weights, featherflow.cli.weights, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def rest_elsewhere(folder, network, monkeypatch, **changes):
    """A whole file `liteflownetx:whole`, and beside it one of a network with another mean that takes the rest from it."""
    monkeypatch.chdir(folder)
    save("liteflownetx-whole.safetensors", network, tag="whole")
    other = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    other["mean1"] += 0.25
    info = WeightsInfo(**{**INFO.as_dict(), "tag": "part", "rest_in": "liteflownetx:whole", **changes})
    save_weights("liteflownetx-part.safetensors", other, info, torch.float32)
    return other


def test_what_another_file_has_is_left_out(tmp_path, small_network, monkeypatch):
    wanted = rest_elsewhere(tmp_path, small_network, monkeypatch)
    assert set(load_file("liteflownetx-part.safetensors")) == {"mean1"}
    state, info = read_weights("liteflownetx-part.safetensors")
    assert list(state) == list(wanted) and all(torch.equal(state[name], wanted[name]) for name in wanted)
    # What was read is whole, and is saved so wherever it goes next.
    assert info.rest_in == "" and read_info("liteflownetx-part.safetensors").rest_in == "liteflownetx:whole"
    save_weights("elsewhere.safetensors", state, info, torch.float32)
    assert set(load_file("elsewhere.safetensors")) == set(wanted)
    about = weights.describe("liteflownetx-part.safetensors")
    assert about["rest_in"] == "liteflownetx:whole" and about["tensors"] == len(wanted)
    assert about["parameters"] == weights.describe("liteflownetx-whole.safetensors")["parameters"]


def test_the_rest_must_be_there_and_whole(tmp_path, small_network, monkeypatch):
    rest_elsewhere(tmp_path, small_network, monkeypatch)
    part = "liteflownetx-part.safetensors"
    (tmp_path / "liteflownetx-whole.safetensors").rename("away.safetensors")
    with pytest.raises(WeightsError, match=r"the rest is in liteflownetx:whole, and liteflownetx-whole\.safetensors is not there"):
        read_weights(part)
    save("liteflownetx-whole.safetensors", small_network, torch.float16, tag="whole")  # trained on, say
    with pytest.raises(WeightsError, match=r"liteflownetx-whole\.safetensors is not the file that it was made beside"):
        read_weights(part)
    # A file that names one which names it again is no way round either.
    whole = "liteflownetx-whole.safetensors"
    save_file(load_file(part), whole, INFO.to_metadata() | {"rest_in": "liteflownetx:part"})
    digest = hashlib.sha256(Path(whole).read_bytes()).hexdigest()
    save_file(load_file(part), part, INFO.to_metadata() | {"rest_in": "liteflownetx:whole", "rest_sha256": digest})
    with pytest.raises(WeightsError, match="not whole itself"):
        read_weights(part)


@pytest.mark.parametrize("name", ["../liteflownetx:whole", "liteflownetx:../whole", "nonsense"])
def test_the_rest_is_looked_for_beside_the_file_alone(name, tmp_path, small_network, monkeypatch):
    rest_elsewhere(tmp_path, small_network, monkeypatch)
    part = "liteflownetx-part.safetensors"
    save_file(load_file(part), part, INFO.to_metadata() | {"rest_in": name})
    with pytest.raises(WeightsError, match="'rest_in' cannot be read"):
        read_weights(part)
