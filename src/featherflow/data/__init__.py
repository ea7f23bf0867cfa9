"""Where pairs come from: the procedural generator and its textures."""

from featherflow.data.effects import EffectsConfig
from featherflow.data.procedural import PairBatch, SceneConfig, render_pairs
from featherflow.data.textures import TextureBank

__all__ = ["EffectsConfig", "PairBatch", "SceneConfig", "TextureBank", "render_pairs"]
