"""Import: every release's files become our weights, exactly; what does not fit is refused with one sentence and no file."""

import hashlib
import io
import json
import lzma
import os
import pickle

import caffe_writer as writer
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import random_network

from featherflow import networks
from featherflow.errors import FeatherflowError, FileError, InputError, WeightsError
from featherflow.networks.liteflownet import OFFICIAL_MEANS
from featherflow.ops import bilinear_upsampling_kernel, correlate
from featherflow.weights import ports
from featherflow.weights.containers import Contents
from featherflow.weights.importer import import_weights, import_weights_to
from featherflow.weights.store import read_weights

FLOW_TOLERANCE = 1e-3  # px


def as_contents(data: bytes) -> Contents:
    return Contents(data, "weights.caffemodel")


def saved(state, **wrapped) -> Contents:
    out = io.BytesIO()
    torch.save(state, out, **wrapped)
    return Contents(out.getvalue(), "weights.pytorch")


def equal(a, b) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


# ------------------------------------------------------------------------------------------------ official files


def test_golden_file_in_xz(shared_golden):
    source = shared_golden / "liteflownet" / "liteflownet2_sintel.caffemodel.xz"
    assert import_weights(source, "liteflownet2").state_dict["mean1"].tolist() == [0.40234375, 0.4296875, 0.4609375]


@pytest.mark.parametrize("name", ["liteflownet", "liteflownet2", "liteflownet2-kitti", "liteflownetx"])
def test_official_files_round_trip(name):
    network = random_network(name)
    imported = import_weights(as_contents(writer.caffemodel(writer.official_layers_of(network))), f"{name}:mine")
    assert equal(imported.state_dict, network.state_dict())
    assert (imported.info.architecture, imported.info.tag, imported.info.approximate) == (name, "mine", "")


def test_legacy_shapes_round_trip(small_network):
    data = writer.caffemodel(writer.official_layers_of(small_network), legacy=True, legacy_shape=True)
    assert equal(import_weights(as_contents(data), "liteflownetx").state_dict, small_network.state_dict())


def test_golden_file(shared_golden, tmp_path):
    """The synthetic official file gives the flow of the official layers, with the means of the file."""
    folder = shared_golden / "liteflownet"
    case = np.load(folder / "caffemodel_case.npz")
    meta = json.loads(str(case["meta"]))
    source = folder / meta["file"]
    archive = tmp_path / "liteflownet2.tar.gz"
    archive.write_bytes(writer.tar_gz({"models/liteflownet2.caffemodel": lzma.decompress(source.read_bytes())}))
    path, imported = import_weights_to(archive, "liteflownet2:golden", tmp_path / "out.safetensors")
    assert meta["raw_sha256"] in imported.info.source
    for slot, layer in (("mean1", "img0s_aug"), ("mean2", "img1s_aug")):
        assert imported.state_dict[slot].tolist() == meta["file_mean_bgr"][layer]
    ignored = next(remark for remark in imported.remarks if "left out" in remark)
    assert ignored.startswith(f"{len(meta['layers_with_blobs_to_ignore'])} layers")
    assert any("distance layers" in remark for remark in imported.remarks)

    state, _ = read_weights(path)
    network = networks.build("liteflownet2")
    network.load_state_dict(state)
    frames = [torch.from_numpy(case[key]).permute(2, 0, 1)[None].float() / 255 for key in ("image1", "image2")]
    with torch.inference_mode():
        flow = network(*frames)[0].numpy()
    assert np.abs(flow - case["flow"]).max() <= FLOW_TOLERANCE
    assert np.abs(flow - case["flow_constant_means"]).max() > 10 * FLOW_TOLERANCE


def test_without_means_and_kernels(small_network):
    """A deployment file may lack both; published means and bilinear kernels stand in, and that is said."""
    layers = [entry for entry in writer.official_layers_of(small_network, means=None) if "to" not in entry[0]]
    imported = import_weights(as_contents(writer.caffemodel(layers)), "liteflownetx")
    assert torch.allclose(imported.state_dict["mean2"], torch.tensor(OFFICIAL_MEANS[1]))
    assert torch.equal(imported.state_dict["nete.level5.upflow.weight"], bilinear_upsampling_kernel(2))
    assert sum("mean colour" in remark for remark in imported.remarks) == 2
    assert any("4 fixed up-sampling kernels" in remark for remark in imported.remarks)


def test_constants_that_are_none_are_told(small_network):
    layers = writer.official_layers_of(small_network)
    layers.append(("scaled_flow_R_L5_y", "Convolution", [np.full((1, 9, 1, 1), 2.0), np.zeros(1)]))
    remarks = import_weights(as_contents(writer.caffemodel(layers)), "liteflownetx").remarks
    assert [remark for remark in remarks if "constant sum" in remark] == [
        "Layer 'scaled_flow_R_L5_y' should be a constant sum and is not; it is left out all the same."
    ]


# ------------------------------------------------------------------------------------------------ files that do not fit


def altered(layers, name, change):
    return [(n, kind, change(blobs)) if n == name else (n, kind, blobs) for n, kind, blobs in layers]


BAD_LAYERS = {
    "missing": (lambda layers: [e for e in layers if e[0] != "conv3_R_L4"], "Layer 'conv3_R_L4', which liteflownetx needs"),
    "no bias": (lambda layers: altered(layers, "conv3_1", lambda b: b[:1]), "Layer 'conv3_1' of .* has no bias"),
    "mis-shaped": (lambda layers: altered(layers, "conv5", lambda b: [b[0][1:], b[1]]), r"'conv5' of .* shape \(63, 48, 3, 3\)"),
    "transposed": (lambda layers: altered(layers, "conv6", lambda b: [b[0].swapaxes(0, 1), b[1]]), r"'conv6' of .*\(64, 96"),
    "first of two": (lambda layers: [e for e in layers if e[0] not in ("conv1", "dist_R_L2")], "Layer 'conv1'"),
    "infinite": (lambda layers: altered(layers, "conv2_2", lambda b: [b[0] * np.inf, b[1]]), "'conv2_2' holds values"),
    "mean of two": (lambda layers: altered(layers, "img0s_aug", lambda b: [*b[:2], b[2].ravel()[:2]]), "'img0s_aug' must"),
    "kernel of other shape": (
        lambda layers: altered(layers, "scaled_flow_R_L3to2", lambda b: [np.ones((2, 1, 8, 8))]),
        r"'scaled_flow_R_L3to2' of .* shape \(2, 1, 8, 8\)",
    ),
}


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_the_first_bad_layer_is_named(case, small_network, tmp_path, home):
    change, said = BAD_LAYERS[case]
    file = tmp_path / "bad.caffemodel"
    file.write_bytes(writer.caffemodel(change(writer.official_layers_of(small_network))))
    with pytest.raises(WeightsError, match=said) as error:
        import_weights_to(file, "liteflownetx:bad")
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["bad.caffemodel"]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def pickled(thing) -> bytes:
    return pickle.dumps(thing, protocol=2)


BAD_FILES = {
    "text": (b"name: LiteFlowNet", FileError),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), FileError),
    "empty": (b"", FileError),
    "pickle of code": (pickled({"state_dict": Evil()}), WeightsError),
    "torch file of code": (saved({"state_dict": {"a": Evil()}}).data, WeightsError),
    "pickle of numbers": (pickled([1, 2]), FeatherflowError),
    "torch file of a list": (saved([torch.ones(1)]).data, WeightsError),
    "torch file of foreign names": (saved({"layer.weight": torch.ones(1)}).data, WeightsError),
    "torch file of nothing": (saved({}).data, WeightsError),
    "torch file, truncated": (saved({"layer.weight": torch.ones(500)}).data[:-700], FileError),
    "zip of anything": (b"PK\x03\x04" + bytes(80), FileError),
    "safetensors, damaged": ((20).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}' + bytes(90), FileError),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(case, tmp_path, home, monkeypatch):
    data, kind = BAD_FILES[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.bin").write_bytes(data)
    with pytest.raises(kind) as error:
        import_weights_to("bad.bin", "liteflownet:bad")
    text = str(error.value)
    assert "bad.bin" in text and text.endswith(".") and "\n" not in text and len(text) < 250, text
    assert os.listdir(tmp_path) == ["bad.bin"]  # nothing written, no code run


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 0.9999))
def test_truncated_anywhere(share, small_caffemodel):
    with pytest.raises((FileError, WeightsError)) as error:
        import_weights(as_contents(small_caffemodel[: int(share * len(small_caffemodel))]), "liteflownetx")
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize("asked, given_", [("liteflownet2", "liteflownet2-kitti"), ("liteflownet", "liteflownetx")])
def test_a_file_of_another_network_is_recognised(asked, given_):
    """The KITTI file even holds all that liteflownet2 needs."""
    data = writer.caffemodel(writer.official_layers_of(random_network(given_)))
    with pytest.raises(WeightsError, match=f"not look like weights of {asked} but of {given_}; import it as '{given_}'"):
        import_weights(as_contents(data), asked)


@pytest.mark.parametrize(
    "name, said", [("liteflownett", "did you mean"), ("liteflownet:No", "A tag is made"), ("liteflownet:", "A tag"),
                   ("liteflownet2:kitti-x", "mistaken for the network 'liteflownet2-kitti'")]
)  # fmt: skip
def test_bad_names(name, said, tmp_path):
    with pytest.raises(InputError, match=said):
        import_weights(tmp_path / "any", name)


# ------------------------------------------------------------------------------------------------ ports

# Entries of each port's state dict (specification, section 8.3).
PORT_FILES = {
    ("sniklaus", "liteflownet"): 212,
    ("ptlflow", "liteflownet"): 190,
    ("ptlflow", "liteflownet2"): 185,
    ("ptlflow", "liteflownet2-kitti"): 196,
    ("mmflow", "liteflownet"): 190,
    ("mmflow", "liteflownet2"): 184,
}
ORIGINS = {origin.key: origin for origin in ports.ORIGINS}


def port_file(key: str, network) -> dict[str, torch.Tensor]:
    """A network's weights under a port's names, with the entries that only the port has."""
    origin, state = ORIGINS[key], network.state_dict()
    entries = {}
    for ours, theirs in origin.layers(network.config).items():
        for kind in ("weight", "bias"):
            if f"{ours}.{kind}" in state:
                entries[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    if key == "ptlflow" and network.config.finest_level == 3:
        side = 4 if network.config.pseudo_level else 8
        entries["up_flow.weight"] = torch.ones(2, 1, side, side)
    if key == "sniklaus":
        for kind in ("weight", "bias"):
            entries[f"netSubpixel.0.netFeat.0.{kind}"] = entries[f"netMatching.0.netFeat.0.{kind}"].clone()
        for index, size in enumerate((7, 5, 5, 3, 3)):
            for axis in "XY":
                entries[f"netRegularization.{index}.netScale{axis}.weight"] = torch.ones(1, size**2, 1, 1)
                entries[f"netRegularization.{index}.netScale{axis}.bias"] = torch.zeros(1)
        entries = {name.replace(".net", ".module").replace("net", "module", 1): t for name, t in entries.items()}
    return entries


@pytest.mark.parametrize("key, name", PORT_FILES)
def test_port_names(key, name):
    """Every entry of a port is found, none is used twice, and each arrives where it belongs."""
    network = random_network(name)
    entries = port_file(key, network)
    assert len(entries) == PORT_FILES[key, name]
    imported = import_weights(saved(entries if key == "sniklaus" else {"state_dict": entries, "epoch": 3}), name)
    state = imported.state_dict
    assert list(state) == list(network.state_dict())
    changed = {tensor for tensor, value in network.state_dict().items() if not torch.equal(value, state[tensor])}
    expected = {"mean1", "mean2"}
    if key == "ptlflow":
        expected.add("netc.levels.0.0.weight")
    if key == "mmflow":
        expected |= {f"nete.level{level}.matching.convs.0.weight" for level in network.config.levels}
    assert changed == expected
    left_out = [remark for remark in imported.remarks if "left out" in remark]
    assert left_out == (["1 layers that liteflownet2-kitti does not use are left out: up_flow."] if name == "liteflownet2-kitti"
                        else left_out)  # fmt: skip
    assert bool(imported.info.approximate) == (key != "sniklaus")


def test_names_of_ports_spelled_out():
    """A few entries of the specification's table, by hand: level indices, activations counted, shared and split layers."""
    first, second = networks.build("liteflownet").config, networks.build("liteflownet2-kitti").config
    sniklaus, ptlflow, mmflow = ports.sniklaus_layers(first), ports.ptlflow_layers(first), ports.mmflow_layers(first)
    assert sniklaus["netc.levels.1.2"] == "netFeatures.netTwo.4"
    assert sniklaus["nete.level6.matching.flow"] == "netMatching.4.netMain.6"
    assert sniklaus["nete.level3.regularization.distance.1"] == "netRegularization.1.netDist.1"
    assert ptlflow["nete.level2.expansion"] == "feat2_conv.0"
    assert ptlflow["nete.level5.upflow"] == "matching_nets.1.up_flow"
    assert ptlflow["nete.level6.regularization.distance.0"] == "regularization_nets.0.dist"
    assert ptlflow["nete.level6.subpixel.flow"] == "subpixel_nets.0.flow_net.6"
    assert ports.ptlflow_layers(second)["nete.level3.subpixel.flow"] == "subpixel_nets.3.flow_net"
    assert ports.ptlflow_layers(second)["nete.level3.subpixel.convs.4"] == "subpixel_nets.3.feat_net.8"
    assert ports.ptlflow_layers(second)["nete.level3.matching.flow"] == "matching_nets.3.flow_net.10"
    assert mmflow["nete.level2.upflow"] == "decoder.decoders.level3.upflow_layer"
    assert mmflow["nete.level2.matching.upcost"] == "decoder.decoders.level2.NetM.corr_up"


def test_sniklaus_is_the_official_network():
    """With equal tensors (above) and the two published means nothing is left that could differ."""
    state = import_weights(saved(port_file("sniklaus", random_network("liteflownet"))), "liteflownet").state_dict
    for slot, mean in zip(("mean1", "mean2"), OFFICIAL_MEANS, strict=True):
        assert torch.equal(state[slot], torch.tensor(mean))


def test_sniklaus_twin_layers_must_be_equal():
    entries = port_file("sniklaus", random_network("liteflownet"))
    entries["moduleSubpixel.0.moduleFeat.0.bias"] = entries["moduleSubpixel.0.moduleFeat.0.bias"] + 1
    with pytest.raises(WeightsError, match=r"netSubpixel\.0\.netFeat\.0\.bias"):
        import_weights(saved(entries), "liteflownet")


def test_ptlflow_input_is_folded():
    """Its first layer sees R, G, B minus a mean in an order of its own."""
    network = random_network("liteflownet")
    imported = networks.build("liteflownet")
    imported.load_state_dict(import_weights(saved({"state_dict": port_file("ptlflow", network)}), "liteflownet").state_dict)
    frame = torch.rand(1, 3, 64, 64)
    theirs = network.netc(frame - torch.tensor([0.411618, 0.434631, 0.454253]).view(1, 3, 1, 1))
    ours = imported.encode(frame, imported.mean2).features
    assert all(torch.allclose(theirs[level], ours[level], atol=1e-5) for level in ours)


@pytest.mark.parametrize("level", [6, 3, 2])
def test_mmflow_cost_volume_is_folded(level):
    """It sums over channels where the official network takes the mean."""
    network = random_network("liteflownet")
    state = import_weights(saved({"state_dict": port_file("mmflow", network)}), "liteflownet").state_dict
    imported = networks.build("liteflownet")
    imported.load_state_dict(state)
    theirs, ours = network.nete[f"level{level}"].matching, imported.nete[f"level{level}"].matching
    channels = {6: 192, 3: 64, 2: 64}[level]
    features = torch.rand(2, 1, channels, 16, 16)
    costs = torch.nn.functional.leaky_relu(correlate(*features, theirs.radius, theirs.stride) * channels, 0.1)
    costs = costs if theirs.upcost is None else theirs.upcost(costs)
    with torch.inference_mode():
        assert torch.allclose(theirs.flow(theirs.convs(costs)), ours(*features), rtol=1e-4, atol=1e-5)


def test_other_containers_of_port_names(tmp_path):
    """Wrapped for several devices, in half precision, as safetensors, with a training state around it."""
    from safetensors.torch import save

    network = random_network("liteflownet2")
    entries = port_file("mmflow", network)
    expected = import_weights(saved(entries), "liteflownet2").state_dict
    wrapped = {f"module.{name}": tensor.double() for name, tensor in entries.items()}
    assert equal(import_weights(saved({"state_dict": wrapped, "meta": {"epoch": 1}}), "liteflownet2").state_dict, expected)
    flat = Contents(save({name: tensor.contiguous() for name, tensor in entries.items()}), "weights.safetensors")
    assert equal(import_weights(flat, "liteflownet2").state_dict, expected)
    halved = saved({name: tensor.half() for name, tensor in entries.items()}, _use_new_zipfile_serialization=False)
    assert import_weights(halved, "liteflownet2").state_dict["netc.levels.5.0.bias"].dtype == torch.float32
    with pytest.raises(WeightsError, match="mmflow, which holds weights of liteflownet or liteflownet2, not of liteflownetx"):
        del entries["encoder.layers.1.layers.0.conv.weight"]
        import_weights(saved(entries), "liteflownetx")


def test_damaged_port_entries():
    entries = port_file("mmflow", random_network("liteflownet2"))
    key = "decoder.decoders.level4.NetS.layers.1.conv"
    for value, said in (
        (torch.ones(1).expand(10**6, 10**6), r"NetS.layers.1.conv.weight' of .* shape \(1000000, 1000000\)"),
        (torch.ones(128, 128, 3, 3, dtype=torch.int64), "floating-point numbers, got int64"),
    ):
        with pytest.raises(WeightsError, match=said):
            import_weights(saved({**entries, f"{key}.weight": value}), "liteflownet2")


def test_hash_in_the_source_is_of_the_unpacked_file(small_caffemodel, tmp_path):
    file = tmp_path / "a.caffemodel.xz"
    file.write_bytes(lzma.compress(small_caffemodel, preset=0))
    info = import_weights(file, "liteflownetx").info
    assert hashlib.sha256(small_caffemodel).hexdigest() in info.source and str(tmp_path) not in info.source
    assert info.tag == "imported" and "research" in info.licence_weights
