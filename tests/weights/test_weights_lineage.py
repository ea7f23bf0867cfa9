"""Official checkpoints from FlowNet to FlowFormer: wrappers, prefixes, twins; files of another network are named."""

import io
import runpy

import numpy as np
import pytest
import torch
from random_networks import random_network

from featherflow import networks
from featherflow.errors import WeightsError
from featherflow.weights import import_weights, import_weights_to, lineage, load
from featherflow.weights.checkpoints import unwrapped
from featherflow.weights.containers import Contents

FOLDERS = {
    "spynet": "spynet", "pwcnet": "pwcnet", "pwcnet-old": "pwcnet_old", "raft": "raft", "raft-small": "raft_small",
    "gmflow": "gmflow", "gmflow-refine": "gmflow_refine", "flowformer": "flowformer", "raft-stereo": "raft_stereo",
}  # fmt: skip
WRAPPERS = {"pwcnet": "state_dict", "gmflow": "model", "gmflow-refine": "model"}


@pytest.fixture(scope="module")
def official(shared_golden):
    """Entries of a network's official file, by name."""
    draw = runpy.run_path(str(shared_golden / "synth_weights.py"))["synth_state_dict"]
    made = {}

    def entries(name):
        if name not in made:
            arrays = draw(shared_golden / FOLDERS[name] / "params.json", check=False)
            made[name] = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return dict(made[name])

    return entries


def saved(value, name="weights.pth", **options) -> Contents:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return Contents(out.getvalue(), name)


@pytest.mark.parametrize("name", FOLDERS)
def test_official_files_are_taken(name, official):
    entries = official(name)
    wrapped = {WRAPPERS[name]: entries, "step": 5} if name in WRAPPERS else entries
    imported = import_weights(saved(wrapped), f"{name}:official")
    network = networks.build(name)
    network.load_state_dict(imported.state_dict)
    release = lineage.release_of(name)
    assert imported.info.licence_weights == release.licence_weights and release.title in imported.info.recipe
    bare = unwrapped(entries)
    assert all(torch.equal(tensor, bare[key]) for key, tensor in network.state_dict().items())


def test_imported_weights_are_found_by_name(official, home):
    import_weights_to(saved(official("raft-small")), "raft-small:things")
    network = load("raft-small:things")
    assert network.weights_info.licence_code == "BSD-3-Clause"
    assert torch.equal(network.fnet.conv1.weight, official("raft-small")["module.fnet.conv1.weight"])


def test_batch_statistics_survive_storage(official, home):
    """They are buffers, one of them a whole number."""
    import_weights_to(saved(official("raft")), "raft:things")
    statistics = load("raft:things").cnet.norm1
    assert torch.equal(statistics.running_var, official("raft")["module.cnet.norm1.running_var"])
    assert statistics.num_batches_tracked.dtype == torch.int64


def test_old_pickles_with_numbers_of_numpy_beside_the_weights(official):
    """`FlowNet2_checkpoint.pth.tar` and its like: not zip files, and scores may be NumPy's."""
    wrapped = {"epoch": 3, "state_dict": official("pwcnet"), "best_EPE": np.float64(2.5)}
    contents = saved(wrapped, "pwc_net.pth.tar", _use_new_zipfile_serialization=False)
    assert len(import_weights(contents, "pwcnet").state_dict) == 128


@pytest.mark.parametrize(
    "asked, given_",
    [("raft", "raft-small"), ("raft-small", "raft"), ("gmflow", "gmflow-refine"), ("gmflow-refine", "gmflow"),
     ("pwcnet", "pwcnet-old"), ("pwcnet-old", "pwcnet"), ("flowformer", "raft"), ("raft", "raft-stereo"), ("flownets", "spynet"),
     ("liteflownet2", "raft"), ("liteflownet", "spynet")],
)  # fmt: skip
def test_a_file_of_another_network_is_named(asked, given_, official):
    with pytest.raises(WeightsError, match=f"does not look like weights of {asked} but of {given_}; import it as '{given_}'"):
        import_weights(saved(official(given_)), asked)


def test_a_file_of_the_liteflownet_family_is_named():
    from caffe_writer import caffemodel, official_layers_of

    contents = Contents(caffemodel(official_layers_of(random_network("liteflownetx"))), "lite.caffemodel")
    with pytest.raises(WeightsError, match=r"official Caffe release.*not of raft"):
        import_weights(contents, "raft")


def test_what_is_missing_mis_shaped_or_too_much_is_named(official):
    entries = official("raft-small")
    for change, said in (
        (lambda e: e.pop("module.update_block.gru.convz.weight"), "lacks the entry 'update_block.gru.convz.weight'"),
        (lambda e: e.update({"module.fnet.conv1.bias": torch.zeros(3)}), "shape"),
        (lambda e: e.update({"module.extra.weight": torch.zeros(3)}), "'extra.weight' that raft-small does not have"),
        (lambda e: e.update({"module.fnet.conv1.bias": torch.full((32,), torch.nan)}), "not finite"),
    ):
        changed = dict(entries)
        change(changed)
        with pytest.raises(WeightsError, match=said):
            import_weights(saved(changed), "raft-small")


def test_twins_must_be_equal(official):
    entries = official("raft")
    entries["module.cnet.layer2.0.norm3.weight"] = entries["module.cnet.layer2.0.norm3.weight"] + 1
    with pytest.raises(WeightsError, match="one module"):
        import_weights(saved(entries), "raft")


def test_a_file_of_nobody():
    with pytest.raises(WeightsError, match="lacks the entry"):
        import_weights(saved({"layer.weight": torch.zeros(3)}), "raft")
    with pytest.raises(WeightsError, match="no release"):
        import_weights(saved({"layer.weight": torch.zeros(3)}), "liteflownet2")


def test_from_file_to_flow_on_the_command_line(official, home, tmp_path, capsys):
    """Import under a tag, then estimate with it; the number of iterations matters and is refused where it means nothing."""
    from PIL import Image

    from featherflow.cli import main
    from featherflow.flow import read_flow

    (tmp_path / "raft-small.pth").write_bytes(saved(official("raft-small")).data)
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (2, 130, 133, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{index}.png")

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
            raise SystemExit(0)
        return left.value.code or 0

    assert run("weights", "import", tmp_path / "raft-small.pth", "--as", "raft-small:things") == 0
    pair = ("estimate", tmp_path / "0.png", tmp_path / "1.png")
    for count in (1, 2):
        out = tmp_path / f"{count}.flo"
        assert run(*pair, "--model", "raft-small:things", "--iterations", count, "-o", out) == 0
    flows = [read_flow(tmp_path / f"{count}.flo") for count in (1, 2)]
    flows = [flow if isinstance(flow, np.ndarray) else flow[0] for flow in flows]
    assert flows[0].shape == (130, 133, 2) and np.abs(flows[0] - flows[1]).max() > 0.01
    assert run(*pair, "--model", "dis", "--iterations", 3, "-o", tmp_path / "3.flo") == 2
    assert run("weights", "import", tmp_path / "raft-small.pth", "--as", "gmflow:things") == 4
    assert "of raft-small" in capsys.readouterr().err
