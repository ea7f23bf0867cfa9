"""Where pairs come from: the procedural generator and its textures, and the public benchmarks, augmented for training."""

from featherflow.data.augmentation import Augmentation, PaperAugmentation, RaftAugmentation
from featherflow.data.benchmarks import BENCHMARKS, Benchmark, CheckReport, Example, Pair, check, find_pairs
from featherflow.data.effects import EffectsConfig
from featherflow.data.procedural import PairBatch, SceneConfig, render_pairs
from featherflow.data.textures import TextureBank

__all__ = [
    "BENCHMARKS",
    "Augmentation",
    "Benchmark",
    "CheckReport",
    "EffectsConfig",
    "Example",
    "Pair",
    "PairBatch",
    "PaperAugmentation",
    "RaftAugmentation",
    "SceneConfig",
    "TextureBank",
    "check",
    "find_pairs",
    "render_pairs",
]
