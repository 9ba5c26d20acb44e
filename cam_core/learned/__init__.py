"""Models that are trained to explain. Each has ``loss(batch)``, ``explain(probe)`` -> maps [B,h,w], ``classifier`` and ``name``."""

from cam_core.learned.abn import Abn
from cam_core.learned.calm import Calm, calm_trunk
from cam_core.learned.lcam import LCam
from cam_core.learned.lfi import LfiCam, lfi_backbone
from cam_core.learned.plain import Plain, mean_average_precision, multi_label_head, with_pooled_head
from cam_core.learned.recipes import ABN, CALM, L_CAM, L_CAM_VGG, LFI_CAM, PLAIN, Recipe
from cam_core.learned.store import trained
from cam_core.learned.train import TrainingError, accuracy, fit, predict

__all__ = [
    "ABN", "CALM", "LFI_CAM", "L_CAM", "L_CAM_VGG", "PLAIN", "Abn", "Calm", "LCam", "LfiCam", "Plain", "Recipe", "TrainingError",
    "accuracy", "calm_trunk", "fit", "lfi_backbone", "mean_average_precision", "multi_label_head", "predict",
    "trained", "with_pooled_head",
]  # fmt: skip
