"""Training of the learned models: the papers' recipes, one loop for all models, and the trained models kept and found again."""

from training.loop import TrainingError, accuracy, fit, predict
from training.recipes import Recipe
from training.store import trained

__all__ = ["Recipe", "TrainingError", "accuracy", "fit", "predict", "trained"]
