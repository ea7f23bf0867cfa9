"""The networks from FlowNet to FlowFormer equal their official releases: golden flows, intermediates, parameter counts.

The weights are drawn by the rule in the golden folder and pass through our importer, so that a case also proves that official
key names are understood. What a mistake costs in pixels stands in the golden folder's README; most cost 0.05 to 20 px.
"""

import json
import runpy

import numpy as np
import pytest
import torch

from featherflow import networks
from featherflow.networks import flownet2, gmflow, pwcnet
from featherflow.ops import correlate, correlate_dilated
from featherflow.weights.checkpoints import unwrapped
from featherflow.weights.lineage import official_state

# Golden folder of each network, largest difference allowed [px], parameters of the official release.
CASES = {
    "flownets": ("flownets", 1e-3, 38_676_506),
    "flownetc": ("flownetc", 1e-3, 39_175_298),
    "flownet2": ("flownet2", 1e-3, 162_518_834),
    "spynet": ("spynet", 1e-3, 1_440_300),
    "pwcnet": ("pwcnet", 1e-3, 9_374_340),
    "pwcnet-old": ("pwcnet_old", 1e-3, 8_749_280),
    "raft": ("raft", 1e-3, 5_257_536),
    "raft-small": ("raft_small", 1e-3, 990_162),
    "gmflow": ("gmflow", 5e-3, 4_680_288),
    "gmflow-refine": ("gmflow_refine", 5e-3, 4_716_720),
    "flowformer": ("flowformer", 5e-4, 16_168_113),
    "raft-stereo": ("raft_stereo", 1e-3, 11_116_176),
}
# Without golden case of their own; those above prove the parts they are made of.
COUNTS = {"raft-stereo-realtime": 9_865_568, "flownet2-sd": 45_371_666, "flownet2-cs": 77_870_620, "flownet2-css": 116_565_942}
HALF = 2e-3  # intermediates are stored in float16: relative to their largest value
SINGLE = 1e-4


class Golden:
    """A network with its golden weights, and its cases."""

    def __init__(self, name, shared_golden):
        self.name = name
        folder, self.tolerance, self.count = CASES[name]
        self.folder = shared_golden / folder
        self.params = json.loads((self.folder / "params.json").read_text())
        draw = runpy.run_path(str(shared_golden / "synth_weights.py"))["synth_state_dict"]
        entries = {key: torch.from_numpy(array) for key, array in draw(self.folder / "params.json", check=False).items()}
        with torch.device("meta"):
            self.network = networks.build(name)
        self.network.load_state_dict(official_state(unwrapped(entries), name), assign=True)

    def cases(self):
        for path in sorted(self.folder.glob("case*.npz")):
            case = np.load(path)
            yield case, json.loads(str(case["meta"])), *(frames(case, key) for key in ("image1", "image2"))

    def flow(self, frame1, frame2, meta):
        options = {"iterations": meta["iterations"]} if "iterations" in meta else {}
        with torch.inference_mode():
            return self.network(frame1, frame2, **options)


def frames(case, key):
    image = torch.from_numpy(case[key])
    return (image if image.ndim == 4 else image[None]).permute(0, 3, 1, 2).float() / 255


def differs(ours, golden):
    """Largest difference, relative to the largest golden value."""
    golden = golden.astype(np.float32)
    return float(np.abs(ours.float().numpy() - golden).max() / np.abs(golden).max())


@pytest.fixture(params=CASES, scope="module")
def golden(request, shared_golden):
    yield Golden(request.param, shared_golden)


def test_final_flow(golden):
    for case, meta, frame1, frame2 in golden.cases():
        flow = golden.flow(frame1, frame2, meta).numpy()
        official = case["flow"] if case["flow"].ndim == 4 else case["flow"][None]
        channels = official.shape[1]  # 1 for stereo, whose flow has no vertical part
        difference = np.abs(flow[:, :channels] - official).max()
        print(f"{golden.name}: {difference:.1e} px")
        assert difference <= golden.tolerance
        assert not flow[:, channels:].any()


def test_parameter_count(golden):
    ours = sum(parameter.numel() for parameter in golden.network.parameters())
    assert ours == golden.count == golden.params["parameter_count"]


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count_of_parts(name):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in networks.build(name).parameters()) == COUNTS[name]


def test_intermediates(golden):
    """Tells which part is wrong when the final flow is."""
    compare = INTERMEDIATES[golden.name]
    case, _, frame1, frame2 = next(iter(golden.cases()))
    with torch.inference_mode():
        seen = compare(golden.network, frame1, frame2, case)
    for key, ours in seen.items():
        assert differs(ours, case[key]) <= (HALF if case[key].dtype == np.float16 else SINGLE), key
    assert {key for key in case.files if key.startswith("inter_")} == set(seen), "a key that nothing was compared with"


class Watched:
    """Outputs of some modules while a block runs: `watched[name]` holds one entry per call."""

    def __init__(self, **modules):
        self.outputs, self.hooks = {}, []
        for name, module in modules.items():
            self.hooks.append(module.register_forward_hook(self._keeper(name)))

    def _keeper(self, name):
        def keep(module, inputs, output):
            self.outputs.setdefault(name, []).append(output)

        return keep

    def __getitem__(self, name):
        return self.outputs[name]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


class WatchedInputs(Watched):
    """As `Watched`, for what the modules are given."""

    def _keeper(self, name):
        def keep(module, inputs, output):
            self.outputs.setdefault(name, []).append(inputs)

        return keep


def flownet_intermediates(network, frame1, frame2, case):
    with Watched(**dict(network.named_children())) as kept:
        flows = network.flows(frame1, frame2)
    seen = {f"inter_flow{level}": flow[0] for level, flow in zip((6, 5, 4, 3, 2), flows, strict=True)}
    seen["inter_conv6_1_ch_every32"] = kept["conv6_1"][0][0, ::32]
    if "inter_conv_redir_ch_every8" not in case.files:
        return seen | {"inter_conv3_1_ch_every32": kept["conv3_1"][0][0, ::32]}
    return seen | {
        "inter_conv3a_ch_every32": kept["conv3"][0][0, ::32],
        "inter_conv_redir_ch_every8": kept["conv_redir"][0][0, ::8],
        "inter_corr_rows_cols_every4": correlate_dilated(*kept["conv3"], 10, 2)[0, :, ::4, ::4],
    }


def flownet2_intermediates(network, frame1, frame2, case):
    parts = {part: getattr(network, part).predict_flow2 for part in ("flownetc", "flownets_1", "flownets_2", "flownets_d")}
    with Watched(**parts, fusion=network.flownetfusion) as kept:
        after_c, after_s1, after_s2, after_sd, _ = network.flows(frame1, frame2)
    x1, x2 = flownet2.mean_free_pair(frame1, frame2).chunk(2, dim=1)

    def brightness_error(flow):
        return flownet2._compare(x1, x2, flow)[1][0, 0, ::8, ::8]

    return {
        "inter_flownetc_flow2": kept["flownetc"][0][0],
        "inter_flownets1_flow2": kept["flownets_1"][0][0],
        "inter_flownets2_flow2": kept["flownets_2"][0][0],
        "inter_flownetsd_flow2": kept["flownets_d"][0][0],
        "inter_fusion_flow2": kept["fusion"][0][0][0],
        "inter_fusion_flow1_every4": kept["fusion"][0][1][0, :, ::4, ::4],
        "inter_diffmag_after_c_every8": brightness_error(after_c),
        "inter_diffmag_after_s1_every8": brightness_error(after_s1),
        "inter_diffmag_s2_every8": brightness_error(after_s2),
        "inter_diffmag_sd_every8": brightness_error(after_sd),
        "inter_flowmag_s2_every8": after_s2[0, :, ::8, ::8].norm(dim=0),
        "inter_flowmag_sd_every8": after_sd[0, :, ::8, ::8].norm(dim=0),
    }


def spynet_intermediates(network, frame1, frame2, case):
    with Watched(**{str(level): module for level, module in enumerate(network.moduleBasic)}) as kept:
        network.flows(frame1, frame2)
    seen = {f"inter_residual_level{level}": kept[str(level)][0][0] for level in range(5)}
    return seen | {"inter_residual_level5_every4": kept["5"][0][0, :, ::4, ::4]}


def pwcnet_intermediates(network, frame1, frame2, case):
    with Watched(**{str(level): getattr(network, f"predict_flow{level}") for level in (6, 5, 4, 3, 2)}) as kept:
        flows = network.flows(frame1, frame2)
    if not any(key.startswith("inter_") for key in case.files):
        return {}
    pyramid1, pyramid2 = network.encode(frame1), network.encode(frame2)
    seen = {
        "inter_c13_ch_every8": pyramid1[3][0, ::8],
        "inter_c16": pyramid1[6][0],
        "inter_net_out_times20": flows[-1][0] * 20,
    }
    for level, every in ((6, 1), (5, 1), (4, 2), (3, 4), (2, 8)):
        seen[f"inter_flow_level{level}"] = kept[str(level)][0][0]
        features = pyramid2[level]
        if level < 6:
            upflow = getattr(network, f"deconv{level + 1}")(kept[str(level + 1)][0]) * (20 / 2**level)
            features = pwcnet.masked_warp(features, upflow, network.config.valid_from)
        costs = correlate(pyramid1[level], features, 4)
        seen[f"inter_corr_level{level}_before_lrelu_rows_cols_every{every}"] = costs[0, :, ::every, ::every]
    return seen


def raft_intermediates(network, frame1, frame2, case):
    update = network.update_block
    parts = {"fnet": network.fnet, "cnet": network.cnet, "motion": update.encoder, "gru": update.gru}
    if hasattr(update, "mask"):
        parts["mask"] = update.mask
    with Watched(**parts) as kept, WatchedInputs(encoder=update.encoder) as given:
        iterates = network.flows(frame1, frame2, iterations=12, last_only=True)
    features1, features2 = kept["fnet"][0]
    seen = {
        "inter_fmap1_ch_every16": features1[::16],
        "inter_fmap2_ch_every16": features2[::16],
        "inter_cnet_raw_ch_every16": kept["cnet"][0][0, ::16],
        "inter_corr_lookup_iter1": given["encoder"][0][1][0, :, ::4, ::4],
        "inter_corr_lookup_iter6": given["encoder"][5][1][0, :, ::4, ::4],
        "inter_motion_iter1_ch_every16": kept["motion"][0][0, ::16],
        "inter_net_iter1_ch_every16": kept["gru"][0][0, ::16],
        "inter_flow_low_iters": torch.stack([iterate.coarse[0] for iterate in iterates]),
    }
    if "mask" in parts:
        seen["inter_upmask_scaled_iter12"] = 0.25 * kept["mask"][-1][0, :, ::6, ::6]
    return seen


def gmflow_intermediates(network, frame1, frame2, case):
    layers = network.transformer.layers
    parts = {"self0": layers[0].self_attn, "self1": layers[1].self_attn, "cross0": layers[0].cross_attn_ffn}
    parts |= {"backbone": network.backbone, "transformer": network.transformer, "propagated": network.feature_flow_attn}
    with Watched(**parts) as kept, WatchedInputs(propagated=network.feature_flow_attn) as given:
        network.flows(frame1, frame2)

    def tokens(name):
        return kept[name][0][0].flatten(0, 1)[::8, ::8]

    seen = {
        "inter_selfattn_layer0_tokens_every8_ch_every8": tokens("self0"),
        "inter_selfattn_shifted_layer1_tokens_every8_ch_every8": tokens("self1"),
        "inter_crossffn_layer0_tokens_every8_ch_every8": tokens("cross0"),
    }
    for scale in range(len(network.config.scales)):
        matched, propagated = given["propagated"][scale][1][0], kept["propagated"][scale][0]
        if scale:  # there the golden case holds what matching adds
            matched = matched - gmflow.enlarged(kept["propagated"][scale - 1], 2)[0]
        seen[f"inter_backbone_scale{scale}_ch_every16"] = kept["backbone"][0][scale][0, ::16]
        seen[f"inter_transformer_f0_scale{scale}_ch_every16"] = kept["transformer"][scale][0][0, ::16]
        seen[f"inter_matching_flow_scale{scale}"] = matched
        seen[f"inter_propagated_flow_scale{scale}"] = propagated
    return seen


def flowformer_intermediates(network, frame1, frame2, case):
    encoder, decoder = network.memory_encoder, network.memory_decoder
    perceiver, update = encoder.cost_perceiver_encoder, decoder.update_block
    parts = {"context": network.context_encoder, "features": encoder.channel_convertor, "patches": perceiver.patch_embed}
    parts |= {"latents": perceiver.input_layer, "memory": perceiver, "token": decoder.flow_token_encoder}
    parts |= {"answer": decoder.decoder_layer.cross_attend, "aggregated": update.aggregator}
    with Watched(**parts) as kept:
        iterates = network.flows(frame1, frame2, iterations=12, last_only=True)
    answer = kept["answer"][0].squeeze(1).T.unflatten(1, iterates[0].coarse.shape[-2:])
    return {
        "inter_context_ch_every16": kept["context"][0][0, ::16],
        "inter_feat1_ch_every16": kept["features"][0][0, ::16],
        "inter_patch_tokens_px_every32_ch_every4": kept["patches"][0][::32, :, ::4],
        "inter_latents0_px_every32_ch_every4": kept["latents"][0][::32, :, ::4],
        "inter_cost_memory_px_every32_ch_every4": kept["memory"][0][::32, :, ::4],
        "inter_flow_token_iter1_ch_every4": kept["token"][0][0, ::4],
        "inter_cost_global_iter1_ch_every4": answer[::4],
        "inter_aggregated_motion_iter1_ch_every16": kept["aggregated"][0][0, ::16],
        "inter_flow_low_iters": torch.stack([iterate.coarse[0] for iterate in iterates]),
    }


def raft_stereo_intermediates(network, frame1, frame2, case):
    update = network.update_block
    with Watched(fnet=network.fnet, cnet=network.cnet, motion=update.encoder, head=update.flow_head) as kept:
        network.flows(frame1, frame2, iterations=12, last_only=True)
    hidden, _ = kept["cnet"][0]
    return {
        "inter_fmap1_ch_every32": kept["fnet"][0][0, ::32],
        "inter_context_net08_ch_every32": hidden[0][0, ::32],
        "inter_context_net32_ch_every16": hidden[2][0, ::16],
        "inter_motion_iter1_ch_every32": kept["motion"][0][0, ::32],
        "inter_delta_x_iters": torch.stack([residual[0, 0] for residual in kept["head"]]),
    }


INTERMEDIATES = {
    "flownets": flownet_intermediates,
    "flownetc": flownet_intermediates,
    "flownet2": flownet2_intermediates,
    "spynet": spynet_intermediates,
    "pwcnet": pwcnet_intermediates,
    "pwcnet-old": pwcnet_intermediates,
    "raft": raft_intermediates,
    "raft-small": raft_intermediates,
    "gmflow": gmflow_intermediates,
    "gmflow-refine": gmflow_intermediates,
    "flowformer": flowformer_intermediates,
    "raft-stereo": raft_stereo_intermediates,
}
