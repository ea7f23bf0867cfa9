"""Training: recipes (typed, one per protocol), losses, the resumable loop."""

from .command import changed_recipe, train
from .recipes import RECIPES, Recipe, Stage, get_recipe

__all__ = ["RECIPES", "Recipe", "Stage", "changed_recipe", "get_recipe", "train"]
