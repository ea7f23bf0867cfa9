"""Training: recipes (typed, one per protocol), losses, the resumable loop."""

from .command import train
from .recipes import RECIPES, Recipe, get_recipe

__all__ = ["RECIPES", "Recipe", "get_recipe", "train"]
