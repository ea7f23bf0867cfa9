"""The published protocol: its table of stages, what is copied where, its optimiser, and a run of all stages in small."""

import dataclasses
import json
import math

import pytest
import torch

from featherflow import networks
from featherflow.errors import InputError, WeightsError
from featherflow.networks.liteflownet import (
    LITEFLOWNET,
    LITEFLOWNET2,
    LITEFLOWNET2_KITTI,
    LITEFLOWNETX,
    with_options,
)
from featherflow.training import RECIPES, changed_recipe, get_recipe, train
from featherflow.training.initialization import carry_over, initialize, msra
from featherflow.training.loop import Trainer
from featherflow.training.optimizers import make_optimizer
from featherflow.training.paper import ABLATIONS, COST_VOLUMES

CONFIGS = {
    "liteflownet": LITEFLOWNET,
    "liteflownet2": LITEFLOWNET2,
    "liteflownet2-kitti": LITEFLOWNET2_KITTI,
    "liteflownetx": LITEFLOWNETX,
}

#: LiteFlowNetX's protocol, 75,000 times shorter, on small crops.
SMALL = ["shrink=75000", "batch=2", "height=64", "width=64"]


def weights_of(run):
    return {name: value.clone() for name, value in run.network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def table(name):
    recipe = get_recipe(name)
    return [(stage.samples // recipe.batch, stage.learning_rate) for stage in recipe.schedule()]


def test_stages_are_those_of_the_papers():
    assert table("paper/liteflownet") == [
        (300_000, 1e-4),
        (300_000, 1e-4),
        (200_000, 1e-4),
        (200_000, 1e-4),
        (200_000, 5e-5),
        (300_000, 4e-5),
    ]
    assert table("paper/liteflownet2") == [(300_000, 1e-4), (300_000, 1e-4), (200_000, 1e-4), (200_000, 1e-4), (300_000, 6e-5)]
    assert table("paper/liteflownet2-things") == [(500_000, 3e-6)]
    finest = [stage.options["finest_level"] for stage in get_recipe("paper/liteflownet").schedule()]
    assert finest == [6, 6, 5, 4, 3, 2]
    paper = [recipe for name, recipe in RECIPES.items() if name.startswith("paper/")]
    batches = {recipe.name: (recipe.batch, recipe.width, recipe.height, recipe.loss.exponent) for recipe in paper}
    assert batches["paper/liteflownet"] == (8, 448, 320, 0.5) and batches["paper/liteflownetx-things"] == (4, 768, 384, 0.5)
    assert batches["paper/liteflownet2-ft-sintel"] == (4, 768, 384, 0.4)
    assert batches["paper/liteflownet-ft-kitti"] == (4, 896, 320, 0.4)
    assert get_recipe("paper/liteflownet2").loss.full_weight == 6.25e-4 and get_recipe("paper/liteflownet").loss.full_weight == 0
    assert get_recipe("paper/liteflownet2-ft-kitti").network == "liteflownet2-kitti"
    fine = get_recipe("paper/liteflownet2-ft-sintel")
    assert fine.augmentation.noise == (0.0, 0.0) and fine.augmentation.mirror == 0.5
    assert fine.data == (("sintel",), ("kitti2012", "kitti2015"))


def test_every_recipe_ends_with_its_whole_network_and_begins_with_one_that_there_is():
    for recipe in RECIPES.values():
        assert not recipe.begins_with or recipe.begins_with in RECIPES
        if recipe.name.startswith("paper/"):
            whole = with_options(CONFIGS[recipe.network], recipe.options)
            assert with_options(CONFIGS[recipe.network], recipe.schedule()[-1].options) == whole
    ablations = {name.removeprefix("paper/ablation-").upper(): recipe for name, recipe in RECIPES.items() if "ablation" in name}
    assert {name: with_options(LITEFLOWNET, recipe.options) for name, recipe in ablations.items()} == ABLATIONS
    costs = [with_options(LITEFLOWNET2, RECIPES[f"paper/costs-{name}"].options) for name in ("3", "3-6", "4")]
    assert costs == list(COST_VOLUMES.values())


def test_rates_halve_within_each_stage_and_shrink_with_it():
    for shrink in (1, 1000):
        last = changed_recipe("paper/liteflownet", [f"shrink={shrink}"]).schedule()[-1]
        rate = [last.rate(8 * n // shrink) for n in (0, 119_000, 120_000, 160_000, 200_000, 240_000, 299_000)]
        assert rate == pytest.approx([4e-5 * f for f in (1, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16)])
        assert last.occluded_weight(0) == 1.0
    assert changed_recipe("paper/liteflownet", ["rate_factor=3"]).schedule()[0].rate(0) == pytest.approx(3e-4)


def test_numbers_of_parts_can_be_changed_and_those_of_stages_not():
    recipe = changed_recipe("paper/liteflownet2", ["augmentation.noise=0,0.04", "loss.exponent=0.4", "halve_at=5,6"])
    assert (recipe.augmentation.noise, recipe.loss.exponent, recipe.halve_at) == ((0.0, 0.04), 0.4, (5, 6))
    for change in ("samples=3", "learning_rate=1", "augmentation.speed=1", "stages=1"):
        with pytest.raises(InputError, match="has no field"):
            changed_recipe("paper/liteflownet2", [change])


def test_a_new_level_copies_every_layer_that_fits():
    """Which layers are copied, per level, as the spec of the protocol lists them."""
    copied = {}
    for level in (5, 4, 3, 2):
        before = networks.build("liteflownet", finest_level=level + 1)
        msra(before, torch.Generator().manual_seed(2))
        after = networks.build("liteflownet", finest_level=level)
        msra(after, torch.Generator().manual_seed(3))
        carry_over(after, before.state_dict(), torch.Generator())
        state, old = after.state_dict(), before.state_dict()
        assert all(torch.equal(state[name], old[name]) for name in old)
        names = [name for name, _ in after.named_parameters() if f"level{level}." in name and name.endswith("weight")]
        above = {name: name.replace(f"level{level}.", f"level{level + 1}.") for name in names}
        copied[level] = {
            name.removeprefix(f"nete.level{level}.").removesuffix(".weight")
            for name in names
            if above[name] in old and torch.equal(state[name], old[above[name]])
        }
    matching, sub, trunk = "matching.convs.{}", "subpixel.convs.{}", "regularization.convs.{}"
    everywhere = {matching.format(i) for i in range(3)} | {sub.format(i) for i in (1, 2)} | {trunk.format(i) for i in range(1, 6)}
    flows = {"matching.flow", "subpixel.flow"}
    assert copied[5] == everywhere | flows | {"regularization.distance.0"}
    assert copied[4] == everywhere | {trunk.format(0)}
    assert copied[3] == everywhere | flows | {trunk.format(0), "regularization.distance.0", "regularization.distance.1"}
    assert copied[2] == everywhere | {trunk.format(0), sub.format(0)}


def test_the_pseudo_level_starts_bilinear_and_other_weights_are_refused():
    plain, kitti = networks.build("liteflownet2"), networks.build("liteflownet2-kitti")
    msra(kitti, torch.Generator().manual_seed(0))
    carry_over(kitti, plain.state_dict(), torch.Generator())
    assert torch.equal(kitti.netc.levels[0][0].weight, plain.netc.levels[0][0].weight)
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 32, 8, 8).contiguous()
    expected = torch.nn.functional.interpolate(ramp, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(kitti.pseudo.upsubpixel(ramp)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-5)
    with pytest.raises(WeightsError, match="does not fit"):
        carry_over(kitti, networks.build("liteflownet").state_dict(), torch.Generator())
    with pytest.raises(WeightsError, match=r"lack the tensor 'netc\.levels"):
        carry_over(kitti, {name: value for name, value in plain.state_dict().items() if "netc" not in name}, torch.Generator())


@pytest.mark.parametrize("options", [{}, {"normalized_matching": True, "octaves": 1}])
def test_a_wider_network_begins_with_the_answers_of_the_narrow_one(options):
    narrow = networks.build("liteflownet2-slim", **options).eval()
    wide = networks.build("liteflownet2", **options).eval()
    initialize(narrow, torch.Generator().manual_seed(4))
    with torch.no_grad():
        narrow.nete["level3"].subpixel.flow.weight.mul_(3.0)
    carry_over(wide, narrow.state_dict(), torch.Generator().manual_seed(5))
    frames = torch.rand(2, 1, 3, 128, 192, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        expected, found = narrow(*frames), wide(*frames)
    assert expected.abs().max() > 0.1
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    # Copies of a channel are read with different weights, so they learn different things.
    wide(*frames).square().mean().backward()
    gradient = wide.nete["level4"].subpixel.convs[1].weight.grad
    first, second = gradient.chunk(2)
    assert (first - second).norm() > 0.1 * first.norm()


def test_a_narrower_network_begins_with_the_mean_of_the_copies():
    """Right after widening nothing is lost; later the copies of a channel, which have come to differ, are averaged."""
    slim, wide = networks.build("liteflownet2-slim"), networks.build("liteflownet2")
    initialize(slim, torch.Generator().manual_seed(4))
    carry_over(wide, slim.state_dict(), torch.Generator().manual_seed(5))
    back = networks.build("liteflownet2-slim")
    carry_over(back, wide.state_dict(), torch.Generator())
    for name, value in slim.state_dict().items():
        assert torch.allclose(back.state_dict()[name], value, atol=1e-5), name
    with torch.no_grad():
        wide.netc.levels[0][0].bias[0] += 1.0
    carry_over(back, wide.state_dict(), torch.Generator())
    change = back.netc.levels[0][0].bias - slim.netc.levels[0][0].bias
    assert change[0].item() == pytest.approx(0.5) and change[1:].abs().max() == 0


@pytest.mark.parametrize(
    "begin, network", [("liteflownet2", "liteflownet"), ("liteflownet", "liteflownet2-slim"), ("liteflownetx", "liteflownet2")]
)
def test_units_that_are_no_multiples_are_refused(begin, network):
    with pytest.raises(WeightsError, match="does not fit"):
        carry_over(networks.build(network), networks.build(begin).state_dict(), torch.Generator())


@pytest.mark.parametrize("channels", [15, 17, 24, 48])
def test_widths_that_are_no_multiples_are_refused(channels):
    state = networks.build("liteflownet2-slim").state_dict()
    state["netc.levels.0.0.bias"] = torch.zeros(channels)
    with pytest.raises(WeightsError, match=r"'netc\.levels\.0\.0\.bias' of shape \(\d+,\), which does not fit"):
        carry_over(networks.build("liteflownet2"), state, torch.Generator())


def test_msra_and_the_frozen_biases(tmp_path, textures):
    run = Trainer(changed_recipe("paper/liteflownet2", SMALL), tmp_path, textures)
    weight = run.network.netc.levels[5][0].weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.03)
    assert all(not p.any() for name, p in run.network.named_parameters() if name.endswith("bias"))
    whole = networks.build("liteflownet2")
    msra(whole, torch.Generator().manual_seed(0))
    assert whole.nete.level3.matching.flow.weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 25)), rel=0.1)
    run._enter(1, run.average)
    for _ in range(2):
        run.train_step()
    for name, parameter in run.network.named_parameters():
        if name.endswith("bias"):
            assert bool(parameter.any()) != (".distance." in name), name


def test_the_optimiser_adds_decay_to_the_gradient_of_weights_alone():
    """Three steps of the paper's Adam against its formula in float64."""
    layer = torch.nn.Conv2d(2, 3, 3)
    recipe = get_recipe("paper/liteflownet2")
    optimizer = make_optimizer(layer, recipe)
    decays = {parameter: decay for parameter, decay in ((layer.weight, 4e-4), (layer.bias, 0.0))}
    state = {
        p: [p.detach().double().clone(), torch.zeros_like(p, dtype=torch.double), torch.zeros_like(p, dtype=torch.double)]
        for p in decays
    }
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 4):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2
        for parameter, decay in decays.items():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            value, first, second = state[parameter]
            gradient = parameter.grad.double() + decay * value
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.999).add_(0.001 * gradient**2)
            value.sub_(1e-2 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8))
        optimizer.step()
    for parameter in decays:
        assert torch.allclose(parameter.detach().double(), state[parameter][0], atol=1e-5)


def test_all_stages_in_one_command_and_in_pieces(tmp_path, textures):
    """Six stages in one run, and the same in pieces that end before, at and after borders: the same bits."""
    recipe = changed_recipe("paper/liteflownetx", SMALL)
    whole = Trainer(recipe, tmp_path / "whole", textures)
    whole.run(validate=lambda network: {"finest": network.config.finest_level})
    stages = [4, 4, 3, 3, 3, 4]
    assert [stage.samples // 2 for stage in recipe.schedule()] == stages and whole.samples == 2 * sum(stages)
    lines = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["validation"]["finest"]) for line in lines if "validation" in line] == [
        ("S6", 6),
        ("R6", 6),
        ("SR5", 5),
        ("SR4", 4),
        ("SR3", 3),
        ("SR2", 2),
    ]
    for samples in (8, 6, 6, 22):  # ends at the first border, within the second stage, within the third
        piece = Trainer(recipe, tmp_path / "pieces", textures)
        piece.run(samples=samples)
    assert piece.samples == whole.samples and same(weights_of(whole), weights_of(piece))
    assert sorted(path.name for path in tmp_path.glob("whole/stage-*")) == [f"stage-{n}.safetensors" for n in range(1, 6)]


def test_weights_of_one_recipe_start_the_next(tmp_path, textures):
    first = Trainer(changed_recipe("paper/liteflownetx", ["shrink=1000000", *SMALL[1:]]), tmp_path / "first", textures)
    first.run()
    things = ["shrink=250000", "chunks=1", *SMALL[1:]]
    with pytest.raises(InputError, match="--start"):
        train("paper/liteflownetx-things", tmp_path / "things", changes=things)
    train("paper/liteflownetx-things", tmp_path / "things", start=tmp_path / "first/weights.safetensors", changes=things)
    train("paper/liteflownetx-things", tmp_path / "things", changes=things)  # done: nothing left to do, and no need of --start
    assert (tmp_path / "things/weights.safetensors").exists()


def test_every_recipe_is_a_plain_table():
    """Two recipes with equal numbers are equal; the names are the only key."""
    assert all(recipe.name == name for name, recipe in RECIPES.items())
    assert dataclasses.replace(get_recipe("paper/ablation-all"), name="paper/liteflownet") == get_recipe("paper/liteflownet")
