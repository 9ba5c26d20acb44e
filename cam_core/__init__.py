"""Class activation maps, learned and post-hoc, behind one interface and under one protocol.

    classifier = load_classifier("efficientnet_lite0")     # or "resnet50", or any other of torchvision, or "timm/NAME"
    probe = Probe(classifier, images)                      # [B,3,H,W] in [0, 1]
    heat = METHODS["grad_cam"](probe)                      # [B,h,w], raw

The names below are imported when first asked for, so that the command line answers without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cam_core.classifier import Classifier
    from cam_core.learned.shipped import load_learned
    from cam_core.methods import METHODS
    from cam_core.pretrained import load_classifier
    from cam_core.probe import Probe

_HOME = {
    "Classifier": "classifier",
    "load_classifier": "pretrained",
    "load_learned": "learned.shipped",
    "METHODS": "methods",
    "Probe": "probe",
}
__all__ = ["METHODS", "Classifier", "Probe", "load_classifier", "load_learned"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"cam_core.{_HOME[name]}"), name)
    raise AttributeError(f"module 'cam_core' has no attribute {name!r}")
