"""Metrics of explanations: each a measure per image and a summary, under a named protocol."""

from cam_core.metrics import statistics
from cam_core.metrics.cues import ClassPair, Cue, CueLocalization, class_pairs, cue
from cam_core.metrics.faithfulness import AverageDrop, AverageGain, IncreaseInConfidence, MapMean
from cam_core.metrics.localization import EnergyPointingGame, MaxBoxAcc, MaxBoxAccV2, PointingGame, Present
from cam_core.metrics.metric import Metric

# isort: split
from cam_core.metrics.localization import BoxIoU, FalseActivation, LocalizationError, PixelPrecision, PxAP, pixel_truth
from cam_core.metrics.stability import Stability, cascading_randomization, map_stability

__all__ = [
    "AverageDrop",
    "AverageGain",
    "ClassPair",
    "Cue",
    "CueLocalization",
    "EnergyPointingGame",
    "IncreaseInConfidence",
    "MapMean",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "Metric",
    "PointingGame",
    "Present",
    "class_pairs",
    "cue",
    "statistics",
]
__all__ += ["BoxIoU", "FalseActivation", "LocalizationError", "PixelPrecision", "PxAP", "Stability"]
__all__ += ["cascading_randomization", "map_stability", "pixel_truth"]
