"""Metrics of explanations: each a measure per image and a summary, under a named protocol."""

from cam_core.metrics import statistics
from cam_core.metrics.adcc import ADCC, Coherency, Complexity
from cam_core.metrics.agreement import Infidelity, MaxSensitivity, SensitivityN
from cam_core.metrics.cues import ClassPair, Cue, CueLocalization, class_pairs, cue
from cam_core.metrics.faithfulness import AverageDrop, AverageGain, IncreaseInConfidence, MapMean, Wins, wins
from cam_core.metrics.localization import EnergyPointingGame, MaxBoxAcc, MaxBoxAccV2, PointingGame, Present
from cam_core.metrics.metric import Metric
from cam_core.metrics.removal import (
    CorrectAfterRandomRemoval,
    CorrectAfterRemoval,
    Deletion,
    Insertion,
    RemoveAndClassify,
    RoadCombined,
    RoadLerf,
    RoadMorf,
    TiedPixels,
)

# isort: split
from cam_core.metrics.localization import BoxIoU, FalseActivation, LocalizationError, PixelPrecision, PxAP, pixel_truth
from cam_core.metrics.stability import Stability, cascading_randomization, map_stability

__all__ = [
    "ADCC",
    "AverageDrop",
    "AverageGain",
    "ClassPair",
    "Coherency",
    "Complexity",
    "CorrectAfterRandomRemoval",
    "CorrectAfterRemoval",
    "Cue",
    "CueLocalization",
    "Deletion",
    "EnergyPointingGame",
    "IncreaseInConfidence",
    "Infidelity",
    "Insertion",
    "MapMean",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "MaxSensitivity",
    "Metric",
    "PointingGame",
    "Present",
    "RemoveAndClassify",
    "RoadCombined",
    "RoadLerf",
    "RoadMorf",
    "SensitivityN",
    "TiedPixels",
    "Wins",
    "class_pairs",
    "cue",
    "statistics",
    "wins",
]
__all__ += ["BoxIoU", "FalseActivation", "LocalizationError", "PixelPrecision", "PxAP", "Stability"]
__all__ += ["cascading_randomization", "map_stability", "pixel_truth"]
