"""The L-CAM mechanisms that come with the package."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cam_core import maps
from cam_core.data.example import read_image
from cam_core.data.transforms import view
from cam_core.learned import shipped
from cam_core.learned.lcam import LCam
from cam_core.pretrained import LITE, load_classifier
from cam_core.probe import Probe
from data_scripts.photographs import PHOTOGRAPHS
from training.store import ship


@pytest.fixture(scope="module")
def probe():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CAM_WEIGHTS", raising=False)
        classifier = load_classifier(LITE).frozen()
    seen = view("squash", classifier.size, interpolation=classifier.interpolation)
    images = [seen(read_image(PHOTOGRAPHS[name].path)).as_subclass(Tensor) for name in ("chelsea", "coffee", "flower", "china")]
    return Probe(classifier, torch.stack(images))


def kept(probe, heat):
    """The target's probability where the brightest three tenths of the map is shown alone, as a share of the unmasked one."""
    masks = (maps.top_fraction(maps.upsample(maps.min_max(heat), probe.images.shape[-2:]), 0.3) > 0).float()[:, None]
    masked = probe.score_masked(masks)[:, 0].double().softmax(1)
    index = torch.arange(len(heat)), probe.targets
    return masked[index] / probe.probabilities[index]


def test_fm_shows_what_the_network_needs_and_an_untrained_one_or_another_class_does_not(probe):
    model = shipped.load_learned("l_cam_fm", probe.classifier)
    torch.manual_seed(0)
    own, untrained = kept(probe, model.explain(probe)), kept(probe, LCam(probe.classifier).explain(probe))
    other = kept(probe, model.explain(probe.pairs(torch.arange(4), (probe.targets + 500) % 1000)))
    assert float(own.mean()) > float(untrained.mean()) + 0.1
    assert float(own.mean()) > float(other.mean()) + 0.1


@pytest.mark.parametrize("name", shipped.NAMES)
def test_what_is_shipped_says_what_it_was_trained_on(name, probe):
    facts = shipped.about(name)
    assert facts["weights"] == probe.classifier.weights
    assert facts["layer"] == probe.classifier.layer
    assert facts["images"] == 1000
    assert facts["updates"] == facts["epochs"] * 16
    assert any(line.startswith("epochs: ") for line in facts["deviations"])
    file = shipped.FOLDER / f"{name}-{LITE}.safetensors"
    assert all(value.dtype == torch.float16 for value in load_file(file).values())
    assert file.stat().st_size < 2.7e6
    heat = shipped.learned_method(name, probe.classifier)(probe)
    assert heat.shape == (4, 7, 7)
    assert heat.dtype == torch.float32


def test_what_is_kept_is_what_was_trained(tmp_path):
    torch.manual_seed(0)
    classifier = load_classifier("resnet8", weights=None, num_classes=5)
    model = LCam(classifier, "img")
    summary = dict.fromkeys(("images", "epochs", "updates", "seed", "deviations", "digest", "recipe"), 1)
    file = ship(model, summary, tmp_path)
    assert file.name == "l_cam_img-resnet8.safetensors"
    for key, value in load_file(file).items():
        assert torch.equal(value, model.attention.state_dict()[key].half())


def test_another_network_or_other_weights_are_refused(probe):
    with pytest.raises(
        ValueError, match=r"no trained l_cam_fm of resnet8 comes with the package; there are: l_cam_fm of efficientnet_lite0"
    ):
        shipped.load_learned("l_cam_fm", load_classifier("resnet8", weights=None))
    with pytest.raises(
        ValueError, match=r"was trained on efficientnet-lite0-57934424 cut at 'bn2', this network holds random cut at 'bn2'"
    ):
        shipped.load_learned("l_cam_fm", load_classifier(LITE, weights=None))
    with pytest.raises(ValueError, match=r"this network holds efficientnet-lite0-57934424 cut at 'blocks.5'"):
        shipped.load_learned("l_cam_fm", probe.classifier.at("blocks.5"))
