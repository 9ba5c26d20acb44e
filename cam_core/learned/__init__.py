"""Models that are trained to explain. Each has ``loss(batch)``, ``explain(probe)`` -> maps [B,h,w], ``classifier`` and ``name``.

The package `training` trains them.
"""

from cam_core.learned.abn import Abn
from cam_core.learned.calm import Calm
from cam_core.learned.lcam import LCam
from cam_core.learned.lfi import LfiCam, lfi_backbone
from cam_core.learned.plain import Plain, with_pooled_head
from cam_core.learned.tame import Tame

__all__ = ["Abn", "Calm", "LCam", "LfiCam", "Plain", "Tame", "lfi_backbone", "with_pooled_head"]
