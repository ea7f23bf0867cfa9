"""The loop resumes exactly, survives NaN and interruption, and its parts equal closed forms."""

import dataclasses
import json
import math
import os
import signal
import threading

import numpy as np
import pytest
import torch

import featherflow
from featherflow.errors import InputError, TrainingError
from featherflow.networks.liteflownet import FLOW_SCALE, FlowEstimate
from featherflow.training import RECIPES, Recipe, get_recipe
from featherflow.training.initialization import initialize
from featherflow.training.loop import MOST_BAD_STEPS, Trainer, order_of_maps
from featherflow.training.losses import MultilevelLoss, PaperLoss, SequenceLoss, reduce_label, robust_error
from featherflow.training.optimizers import make_optimizer, orthogonalize

TINY = Recipe("test", "liteflownetx", samples=40, batch=2, height=64, width=64, warmup=0.0, cooldown=0.5)


def trainer(folder, textures, **changes):
    return Trainer(dataclasses.replace(TINY, **changes), folder, textures)


def weights_of(run):
    return {name: value.clone() for name, value in run.network.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, textures, optimizer):
    """Bit for bit: weights, averaged weights, optimiser, schedule and data stream all continue."""
    whole = trainer(tmp_path / "whole", textures, optimizer=optimizer)
    whole.run(samples=8)
    first = trainer(tmp_path / "pieces", textures, optimizer=optimizer)
    first.run(samples=4)
    second = trainer(tmp_path / "pieces", textures, optimizer=optimizer)
    assert second.samples == 4
    second.run(samples=4)
    assert second.samples == whole.samples == 8
    assert same(weights_of(whole), weights_of(second)) and same(whole.average, second.average)


def test_the_number_of_workers_changes_nothing(tmp_path, textures):
    from concurrent.futures import ThreadPoolExecutor

    two, one = trainer(tmp_path / "two", textures, chunks=2), trainer(tmp_path / "one", textures, chunks=2)
    # Cores within one worker may change a sum's order; how many workers there are may not.
    one.workers = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    two.workers = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))
    for run in (one, two):
        run.train_step()
    assert same(weights_of(one), weights_of(two))


def test_training_learns(tmp_path, textures):
    """On one batch over and over, the error must fall clearly: a wrong sign or a cut gradient would not."""
    run = trainer(tmp_path, textures, samples=10_000, learning_rate=2e-3)
    pairs = run.chunk(0, 0)
    run.chunk = lambda step, index: pairs
    errors = [run.train_step()["epe"] for _ in range(60)]
    assert np.mean(errors[-5:]) < 0.7 * errors[0]


def test_bad_gradients_are_skipped_counted_and_end_the_run(tmp_path, textures):
    run = trainer(tmp_path, textures, samples=10_000)
    run.train_step()
    before = weights_of(run)
    good = run.chunk
    run.chunk = lambda step, index: dataclasses.replace(good(step, index), frame1=torch.full((1, 3, 64, 64), math.nan))
    assert "skipped" in run.train_step() and run.skipped == 1
    assert same(before, weights_of(run))
    with pytest.raises(TrainingError, match="No finite gradient"):
        run.run()
    assert run.skipped == MOST_BAD_STEPS + 2


def test_sigint_ends_the_piece_with_a_checkpoint(tmp_path, textures):
    run = trainer(tmp_path, textures, samples=1_000_000)
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    run.run()
    assert 0 < run.samples < 1_000_000
    assert trainer(tmp_path, textures, samples=1_000_000).samples == run.samples


def test_a_damaged_checkpoint_is_named(tmp_path, textures):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt"):
        trainer(tmp_path, textures)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: [1, 2],
        lambda state: torch.zeros(3),
        lambda state: {**state, "stage": "first"},
        lambda state: {**state, "stage": -1},
        lambda state: {**state, "step": "many"},
        lambda state: {**state, "average": 5},
        lambda state: {key: value for key, value in state.items() if key != "optimizer"},
    ],
)
def test_a_checkpoint_of_something_else_is_named(tmp_path, textures, damage):
    run = trainer(tmp_path, textures)
    run.save()
    torch.save(damage(run.state()), tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt"):
        trainer(tmp_path, textures)


def test_a_damaged_log_stops_no_resume(tmp_path, textures):
    run = trainer(tmp_path, textures)
    run.run(samples=4)
    good = (tmp_path / "log.jsonl").read_bytes()
    bad = b'{"step": "two"}\n[1]\nnull\n5\n{"step": null}\n\xff\xfe{\n' + b"[" * 100_000 + b"\n" + b'{"step": 1e999}\n{"step'
    (tmp_path / "log.jsonl").write_bytes(good + bad)
    assert trainer(tmp_path, textures).samples == run.samples
    assert (tmp_path / "log.jsonl").read_bytes() == good


def test_the_log_and_the_weights_of_a_run(tmp_path, textures):
    run = trainer(tmp_path, textures)
    seen = []
    run.run(samples=4, validate=lambda network: {"group": 1.5}, report=seen.append)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == seen and lines[-1]["validation"] == {"group": 1.5}
    frames = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)
    flow = featherflow.estimate(*frames, model="liteflownetx", weights=tmp_path / "weights.safetensors")
    assert flow.shape == (70, 90, 2)
    info = featherflow.load("liteflownetx", weights=tmp_path / "weights.safetensors").weights_info
    assert (info.recipe, info.samples_seen, info.scores) == ("test", 4, {"epe_px_per_image": {"group": 1.5}})


def test_robust_error_in_closed_form():
    truth = torch.zeros(1, 2, 4, 6)
    flow = torch.zeros(1, 2, 4, 6)
    flow[:, 0], flow[:, 1] = 3.0, 4.0
    weight = torch.ones(1, 1, 4, 6)
    assert robust_error(flow, truth, weight, 0.0, 1.0) == pytest.approx(5.0)
    assert robust_error(flow, truth, weight, 0.0, 0.7) == pytest.approx(5.0**0.7, rel=1e-5)
    flow[..., 3:] = 0.0
    weight[..., 3:] = 0.0
    assert robust_error(flow, truth, weight, 0.0, 1.0) == pytest.approx(5.0)


def test_labels_shrink_by_weighted_means():
    truth = torch.arange(16.0).view(1, 1, 4, 4).repeat(1, 2, 1, 1)
    weight = torch.ones(1, 1, 4, 4)
    weight[..., 0, 0] = 0.0
    label, label_weight = reduce_label(truth, weight, (2, 2))
    assert label[0, 0, 0, 0] == pytest.approx((1 + 4 + 5) / 3) and label_weight[0, 0, 0, 0] == pytest.approx(0.75)
    assert label[0, 0, 1, 1] == pytest.approx((10 + 11 + 14 + 15) / 4)


def test_the_true_flow_has_the_smallest_loss_and_every_unit_counts():
    truth = torch.full((1, 2, 64, 64), 5.0)
    network = featherflow.networks.build("liteflownetx")
    weight = torch.ones(1, 1, 64, 64)

    def loss(matching, last):
        u = [torch.full((1, 2, 2, 2), value / FLOW_SCALE) for value in (matching, last)]
        estimate = FlowEstimate(6, u[0], None, u[1], None, None)
        return float(MultilevelLoss(full_weight=1.0).judge([estimate], truth, weight, network.full_size)[0])

    assert loss(5.0, 5.0) < loss(5.0, 6.0) and loss(5.0, 5.0) < loss(6.0, 5.0)


def test_orthogonal_updates():
    for shape in ((8, 40), (40, 8), (16, 16)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        singular = torch.linalg.svdvals(orthogonalize(matrix))
        assert singular.min() > 0.5 and singular.max() < 1.35


def test_orthogonal_updates_are_those_of_the_plain_iteration():
    """The steps in the smaller square are the published ones in another order, for many matrices at once too."""

    def plain(x):
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x

    matrices = torch.randn(3, 8, 40, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([plain(matrix) for matrix in matrices])
    assert torch.allclose(orthogonalize(matrices), expected, atol=1e-5)
    assert torch.allclose(orthogonalize(matrices.mT), expected.mT, atol=1e-5)


@pytest.mark.parametrize("loss", [MultilevelLoss, PaperLoss])
def test_level_weights_that_would_leave_levels_out_are_refused(loss):
    with pytest.raises(InputError, match="5 level_weights"):
        loss(level_weights=(1.0, 1.0))
    with pytest.raises(InputError, match="5 level_weights"):
        get_recipe("modern/liteflownet2", {"loss.level_weights": "1,1"})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_pair_used_both_ways_teaches_what_two_pairs_would(tmp_path, textures, precision):
    """Loss and gradients of both directions at once are the means of those of each direction by itself."""
    run = trainer(tmp_path, textures, network="liteflownet2-slim", both_ways=True, chunks=1, precision=precision)
    pairs = run.chunk(0, 0)
    assert len(pairs.frame1) == 1 and pairs.labels()[0].shape == (2, 2, 64, 64)
    turned = dataclasses.replace(
        pairs, frame1=pairs.frame2, frame2=pairs.frame1, flow=pairs.flow_backward, valid=pairs.valid_backward,
        occluded=pairs.occluded_backward, flow_backward=None,
    )  # fmt: skip
    found = []
    for given in (pairs, dataclasses.replace(pairs, flow_backward=None), turned):
        full = dict.fromkeys(("valid", "valid_backward"), torch.ones_like(pairs.valid))
        none = dict.fromkeys(("occluded", "occluded_backward"), torch.zeros_like(pairs.valid))
        given = dataclasses.replace(given, **full, **none)
        run.chunk = lambda step, index, given=given: given
        gradients, figures = run._differentiate(0)
        found.append((torch.cat([gradient.float().flatten() for gradient in gradients]), figures["loss"]))
    (both, loss), *single = found
    assert loss == pytest.approx(sum(loss for _, loss in single) / 2, rel=1e-5 if precision == "float32" else 0.02)
    mean = sum(gradient for gradient, _ in single) / 2
    assert (both - mean).norm() < (1e-3 if precision == "float32" else 0.2) * mean.norm()


def test_chunks_of_pairs_used_both_ways_must_come_out_even(tmp_path, textures):
    with pytest.raises(InputError, match="counts as two samples"):
        trainer(tmp_path, textures, both_ways=True, batch=2, chunks=2)


@pytest.mark.parametrize(
    ("capability", "dtype", "device", "order"),
    [
        ("AVX2", None, "cpu", torch.contiguous_format),
        ("AVX2", torch.bfloat16, "cpu", torch.channels_last),
        ("AVX2", None, "meta", torch.channels_last),
        ("AVX512", None, "cpu", torch.channels_last),
        ("DEFAULT", None, "cpu", torch.channels_last),
    ],
)
def test_maps_lie_as_gradients_of_weights_are_fastest(monkeypatch, capability, dtype, device, order):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert order_of_maps(dtype, torch.device(device)) == order


def test_the_order_of_maps_changes_nothing_that_is_learnt(tmp_path, textures, monkeypatch):
    steps = {}
    for capability in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        run = trainer(tmp_path / capability, textures, precision="float32")
        wide = run.network.get_parameter("netc.levels.1.0.weight")
        assert wide.is_contiguous() == (capability == "AVX2"), "the order that was asked for"
        steps[capability] = run.train_step()
    assert steps["AVX2"]["loss"] == pytest.approx(steps["AVX512"]["loss"], rel=1e-4)
    assert steps["AVX2"]["norm"] == pytest.approx(steps["AVX512"]["norm"], rel=1e-3)


def test_weights_are_cast_once_a_step(tmp_path, textures):
    """Convolutions of the twin hold the network's weights of this step, rounded; all else is the network's own."""
    run = trainer(
        tmp_path, textures, network="raft-small", loss=SequenceLoss(iterations=2), height=128, width=128, precision="bfloat16"
    )
    run.train_step()
    before = weights_of(run)
    run.train_step()
    twins = dict(run.narrow.named_parameters())
    for name, parameter in run.network.named_parameters():
        if parameter.ndim == 4:
            assert twins[name].dtype == torch.bfloat16 and torch.equal(twins[name], before[name].bfloat16())
    assert all(a is b for a, b in zip(run.network.buffers(), run.narrow.buffers(), strict=True))


def test_muon_takes_hidden_convolutions_only():
    network = featherflow.networks.build("liteflownet2-slim")
    groups = make_optimizer(network, Recipe("test", "liteflownet2-slim")).param_groups
    hidden = {id(p) for group in groups if group["orthogonal"] for p in group["params"]}
    names = {name: id(p) in hidden for name, p in network.named_parameters()}
    assert names["netc.levels.1.0.weight"] and names["nete.level3.regularization.convs.0.weight"]
    assert not names["netc.levels.0.0.weight"] and not names["nete.level3.matching.flow.weight"]
    assert not names["nete.level3.regularization.distance.0.weight"] and not names["netc.levels.1.0.bias"]
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_initialization_passes_the_flow_on():
    """Local convolutions start near the identity, flow layers near zero: u after R stays near u after S."""
    network = featherflow.networks.build("liteflownet2-slim")
    initialize(network, torch.Generator().manual_seed(0))
    frames = torch.rand(2, 1, 3, 64, 64)
    with torch.inference_mode():
        estimates = network.flows(*(network.encode(frame, network.mean1) for frame in frames))
    for estimate in estimates:
        inner = (slice(None), slice(None), slice(1, -1), slice(1, -1)) if estimate.level < 6 else slice(None)
        assert (estimate.regularized - estimate.subpixel)[inner].abs().max() < 1.0


def test_without_matching_the_subpixel_unit_starts_as_one_that_compares():
    """Features moved by one place leave the two channels of that place silent, and no others of the nine."""
    network = featherflow.networks.build("liteflownetx")
    initialize(network, torch.Generator().manual_seed(0))
    layer = network.nete["level3"].subpixel.convs[0]
    first = torch.randn(1, 32, 12, 12, generator=torch.Generator().manual_seed(1))
    second = first.roll((-1, 1), dims=(2, 3))  # what stands at (y, x) in the first stands at (y - 1, x + 1) in the second
    with torch.inference_mode():
        answers = layer(torch.cat((first, second, torch.zeros(1, 2, 12, 12)), dim=1))[0, :, 3:-3, 3:-3]
    sizes = answers.abs().amax(dim=(1, 2))
    silent = [channel for channel in range(40) if sizes[channel] < 1e-5]
    up_right = 2 * 2  # places run row by row, a channel and its negative each
    assert silent == [up_right, up_right + 1, up_right + 18, up_right + 19]
    assert torch.allclose(answers[0], -answers[1], atol=1e-6)
    assert answers.var() == pytest.approx(2 / 1.01, rel=0.3)  # as any other layer's


def test_schedules():
    recipe = Recipe("test", "liteflownetx", samples=1000, warmup=0.1, cooldown=0.4, learning_rate=1.0, final_rate=0.0)
    assert recipe.rate(50) == pytest.approx(0.5) and recipe.rate(300) == pytest.approx(1.0)
    assert recipe.rate(800) == pytest.approx(0.5) and recipe.rate(1000) == pytest.approx(0.0)
    assert recipe.occluded_weight(0) == 0.0 and recipe.occluded_weight(250) == pytest.approx(0.5)
    assert recipe.occluded_weight(1000) == 1.0


def test_recipes_take_changes_as_text():
    recipe = get_recipe("modern/liteflownet2", {"samples": "1_000", "loss.detach": "false", "loss.level_weights": "1,2,3,4,5"})
    assert (recipe.samples, recipe.loss.detach, recipe.loss.level_weights) == (1000, False, (1.0, 2.0, 3.0, 4.0, 5.0))
    with pytest.raises(InputError, match="has no field"):
        get_recipe("modern/liteflownet2", {"network": "x"})
    recipe = get_recipe("modern/liteflownet2", {"scene.small": "0.3,1.5", "scene.large": "32", "scene.layers": "2,4"})
    assert recipe.scene == {"small": (0.3, 1.5), "large": 32.0, "layers": (2, 4)}
    recipe = get_recipe("modern/liteflownet2", {"options.convex_upsampling": "true", "frozen": "netc.*,nete.*"})
    assert recipe.options["convex_upsampling"] is True and recipe.options["octaves"] == 1 and recipe.frozen == ("netc.*", "nete.*")
    for change in ({"scene.small": "0.3"}, {"scene.width": "64"}, {"scene.colour": "1"}, {"options.colour": "1"}):
        with pytest.raises(InputError):
            get_recipe("modern/liteflownet2", change)
    assert all(featherflow.networks.get(recipe.network) for recipe in RECIPES.values())
