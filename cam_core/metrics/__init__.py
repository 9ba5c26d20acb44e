"""Metrics of explanations: each a measure per image and a summary, under a named protocol."""

from cam_core.metrics import statistics
from cam_core.metrics.adcc import ADCC, Coherency, Complexity
from cam_core.metrics.agreement import Infidelity, MaxSensitivity, SensitivityN
from cam_core.metrics.arcc import ARCC
from cam_core.metrics.boxes import BoxIoU, LocalizationError, MaxBoxAcc, MaxBoxAccV2
from cam_core.metrics.cues import ClassPair, Cue, CueLocalization, class_pairs, cue
from cam_core.metrics.f_fidelity import FFidelityMinus, FFidelityPlus
from cam_core.metrics.faithfulness import AverageDrop, AverageGain, CorrectUnderMask, IncreaseInConfidence, MapMean, Wins, wins
from cam_core.metrics.grids import GridLocalization
from cam_core.metrics.localization import EnergyPointingGame, PointingGame, Present
from cam_core.metrics.metric import Metric
from cam_core.metrics.parts import (
    BackgroundIndependence,
    Completeness,
    ControlledCheck,
    DeletionCheck,
    Distractibility,
    PairDeletion,
    PreservationCheck,
    Removal,
    SingleDeletion,
    TargetSensitivity,
)
from cam_core.metrics.pixels import FalseActivation, MaximumInBox, PixelPrecision, PxAP, pixel_truth
from cam_core.metrics.randomization import cascading_randomization
from cam_core.metrics.removal import CorrectAfterRandomRemoval, CorrectAfterRemoval, Deletion, Insertion, RemoveAndClassify, TiedPixels
from cam_core.metrics.road import RoadCombined, RoadLerf, RoadMorf
from cam_core.metrics.stability import Stability, map_stability

__all__ = [
    "ADCC", "ARCC", "AverageDrop", "AverageGain", "BackgroundIndependence", "BoxIoU", "ClassPair", "Coherency", "Completeness",
    "Complexity", "ControlledCheck", "CorrectAfterRandomRemoval", "CorrectAfterRemoval", "CorrectUnderMask", "Cue",
    "CueLocalization", "Deletion", "DeletionCheck", "Distractibility", "EnergyPointingGame", "FFidelityMinus", "FFidelityPlus",
    "FalseActivation", "GridLocalization", "IncreaseInConfidence", "Infidelity", "Insertion", "LocalizationError", "MapMean",
    "MaxBoxAcc", "MaxBoxAccV2", "MaxSensitivity", "MaximumInBox", "Metric", "PairDeletion", "PixelPrecision", "PointingGame",
    "Present", "PreservationCheck", "PxAP", "Removal", "RemoveAndClassify", "RoadCombined", "RoadLerf", "RoadMorf", "SensitivityN",
    "SingleDeletion", "Stability", "TargetSensitivity", "TiedPixels", "Wins", "cascading_randomization", "class_pairs", "cue",
    "map_stability", "pixel_truth", "statistics", "wins",
]  # fmt: skip
