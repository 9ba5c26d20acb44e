"""No CAM method of the peers is missing here without a reason: their classes are enumerated from the installed packages."""

import importlib
import inspect
import pkgutil
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


def modules(package):
    """A package and all its modules, exported or not."""
    return [package, *(importlib.import_module(one.name) for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))]


def named(peer):
    return {*PEERS[peer]["same"], *PEERS[peer]["missing"]}


def test_every_class_of_pytorch_grad_cam():
    package = pytest.importorskip("pytorch_grad_cam")
    assert classes(package) - {*PARTS} == named("pytorch-grad-cam")
    cams = {name for module in modules(package) for name in classes(module) if issubclass(getattr(module, name), package.base_cam.BaseCAM)}
    assert cams - {"BaseCAM"} <= named("pytorch-grad-cam")


def test_every_method_of_torchcam():
    package = pytest.importorskip("torchcam.methods")
    assert {name for module in modules(package) for name in classes(module)} == named("TorchCAM")


def test_every_layer_and_cam_method_of_captum():
    attr = pytest.importorskip("captum.attr")
    of_layers = {name for name in classes(attr) if issubclass(getattr(attr, name), attr.LayerAttribution)}
    assert {name for name in classes(attr) if "cam" in name.lower()} | of_layers - {"LayerAttribution"} == named("Captum")


def test_ours_exist():
    assert [ours for peer in PEERS.values() for ours in peer["same"].values() if ours not in METHODS] == []
    assert not any({*of["same"]} & {*of["missing"]} for of in PEERS.values())
