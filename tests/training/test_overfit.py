"""Every network can be trained: on one rendered pair its error falls below a fifth of the pair's mean motion in 200 steps.

A cut gradient, a wrong unit or sign, or a loss that leaves a part of the network out would not get there. The quick ones
always run, the others with `python -m pytest -m slow`.
"""

import dataclasses

import pytest
import torch

from featherflow import networks
from featherflow.data import SceneConfig, TextureBank
from featherflow.training import RECIPES, get_recipe
from featherflow.training.loop import Trainer

STEPS = 200
QUICK = ("spynet", "pwcnet")
# A pair of 64x64 px leaves a transformer 8x8 places to match.
SIDE = {"gmflow": 128, "gmflow-refine": 128, "flowformer": 128}
# One pair stands less than the recipe's batch.
RATE = {"gmflow": "1e-4", "gmflow-refine": "1e-4", "flownets": "3e-4", "flowformer": "1e-4"}
# At a constant rate their errors swing about the goal; the last 80 steps cool down, as the recipes do at their end.
COOLED = ("gmflow", "gmflow-refine", "flowformer")
MOVING = SceneConfig(effects=None, small=(0.0, 1.2), medium=(1.0, 16.0), static_camera=0.0, particles=0.0)
NETWORKS = [recipe.network for recipe in RECIPES.values() if recipe.name.startswith("modern/")]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NETWORKS])
def test_one_pair_can_be_learnt(name, tmp_path):
    plain = networks.build(name)
    side = max(SIDE.get(name, 64), -(-plain.traits.smallest_size // plain.traits.size_multiple) * plain.traits.size_multiple)
    changes = {"samples": "1_000_000", "warmup": "0", "batch": "1", "chunks": "1", "occluded_from": "0", "occluded_until": "0"}
    changes["both_ways"] = "false"
    if name in COOLED:
        changes["samples"] = str(STEPS)
    if name in RATE:
        changes["learning_rate"] = RATE[name]
    recipe = dataclasses.replace(get_recipe(f"modern/{name}", changes), height=side, width=side)
    textures = TextureBank.procedural(8, 160, torch.Generator().manual_seed(0))
    run = Trainer(recipe, tmp_path, textures, MOVING)
    pair = run.chunk(3, 0)
    if name == "raft-stereo":
        pair.flow[:, 1] = 0.0
    run.chunk = lambda step, index: pair
    goal = pair.flow.norm(dim=1).mean().item() / 5
    errors = []
    while len(errors) < STEPS and (not errors or errors[-1] > goal):
        errors.append(run.train_step()["epe"])
    assert errors[-1] <= goal, f"{errors[-1]:.2f} px after {len(errors)} steps, wanted {goal:.2f} px"
