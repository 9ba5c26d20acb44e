"""No CAM method of the peers is missing here without a reason: their classes are enumerated from the installed packages."""

import inspect
from pathlib import Path

import pytest
import yaml

from cam_core.methods import METHODS

pytestmark = pytest.mark.oracle
PEERS = yaml.safe_load((Path(__file__).parents[2] / "book/peers.yaml").read_text(encoding="utf-8"))
PARTS = ("ActivationsAndGradients", "AblationLayer", "AblationLayerVit", "AblationLayerFasterRCNN")  # of methods, not methods


def classes(package):
    """The public classes that a package defines itself."""
    root = package.__name__.partition(".")[0]
    return {name for name, one in vars(package).items() if inspect.isclass(one) and one.__module__.startswith(root) and name[0] != "_"}


def named(peer):
    return {*PEERS[peer]["same"], *PEERS[peer]["missing"]}


def test_every_class_of_pytorch_grad_cam():
    assert classes(pytest.importorskip("pytorch_grad_cam")) - {*PARTS} == named("pytorch-grad-cam")


def test_every_method_of_torchcam():
    assert classes(pytest.importorskip("torchcam.methods")) == named("TorchCAM")


def test_every_layer_and_cam_method_of_captum():
    found = {name for name in classes(pytest.importorskip("captum.attr")) if name.startswith("Layer") or "Cam" in name}
    assert found - {"LayerAttribution"} == named("Captum")


def test_ours_exist():
    assert [ours for peer in PEERS.values() for ours in peer["same"].values() if ours not in METHODS] == []
    assert not any({*of["same"]} & {*of["missing"]} for of in PEERS.values())
