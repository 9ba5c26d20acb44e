"""Metrics of explanations: each a measure per image and a summary, under a named protocol."""

from cam_core.metrics import statistics
from cam_core.metrics.adcc import ADCC, Coherency, Complexity
from cam_core.metrics.agreement import Infidelity, MaxSensitivity, SensitivityN
from cam_core.metrics.boxes import BoxIoU, LocalizationError, MaxBoxAcc, MaxBoxAccV2
from cam_core.metrics.cues import ClassPair, Cue, CueLocalization, class_pairs, cue
from cam_core.metrics.faithfulness import AverageDrop, AverageGain, CorrectUnderMask, IncreaseInConfidence, MapMean, Wins, wins
from cam_core.metrics.localization import EnergyPointingGame, PointingGame, Present
from cam_core.metrics.metric import Metric
from cam_core.metrics.pixels import FalseActivation, MaximumInBox, PixelPrecision, PxAP, pixel_truth
from cam_core.metrics.randomization import cascading_randomization
from cam_core.metrics.removal import CorrectAfterRandomRemoval, CorrectAfterRemoval, Deletion, Insertion, RemoveAndClassify, TiedPixels
from cam_core.metrics.road import RoadCombined, RoadLerf, RoadMorf
from cam_core.metrics.stability import Stability, map_stability

__all__ = [
    "ADCC", "AverageDrop", "AverageGain", "BoxIoU", "ClassPair", "Coherency", "Complexity", "CorrectAfterRandomRemoval",
    "CorrectAfterRemoval", "CorrectUnderMask", "Cue", "CueLocalization", "Deletion", "EnergyPointingGame", "FalseActivation",
    "IncreaseInConfidence", "Infidelity", "Insertion", "LocalizationError", "MapMean", "MaxBoxAcc", "MaxBoxAccV2", "MaxSensitivity",
    "MaximumInBox", "Metric", "PixelPrecision", "PointingGame", "Present", "PxAP", "RemoveAndClassify", "RoadCombined", "RoadLerf",
    "RoadMorf", "SensitivityN", "Stability", "TiedPixels", "Wins", "cascading_randomization", "class_pairs", "cue", "map_stability",
    "pixel_truth", "statistics", "wins",
]  # fmt: skip
