"""Grad-CAM's sum without the ReLU and the numbers of L-CAM's protocol, image by image from the network's gradients."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cam_core.data import Dataset, Example
from cam_core.data.example import Annotation
from cam_core.probe import Probe
from studies import published_gap
from tests import nets


def weighted_sum(classifier, image):
    """Class of the largest logit, and sum_k mean(dy/dA_k) A_k [h,w] of one image."""
    activations = classifier.activations(image[None]).detach().requires_grad_()
    logits = classifier.head(activations)[0]
    target = int(logits.argmax())
    (gradient,) = torch.autograd.grad(logits[target], activations)
    pairs = zip(gradient[0], activations.detach()[0], strict=True)
    return target, sum(of.mean() * channel for of, channel in pairs)


def test_signed_is_grad_cam_before_its_relu():
    classifier, images = nets.dense(), nets.images(4)
    maps = published_gap.signed(Probe(classifier, images))
    expected = torch.stack([weighted_sum(classifier, image)[1] for image in images])
    torch.testing.assert_close(maps, expected, rtol=1e-10, atol=1e-12)
    assert (expected < 0).any()
    assert (expected > 0).any()


class Noise(Dataset):
    """Random images of 40 x 40 pixels."""

    def __init__(self, count: int) -> None:
        super().__init__(Path(), "test", "original")
        self.ids, self.classes = [str(number) for number in range(count)], list("abcd")
        self.annotations = [Annotation(Path(), 0) for _ in self.ids]

    def __getitem__(self, index: int) -> Example:
        return Example(self.ids[index], torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(index)), 0, size=(40, 40))


def literal(classifier, image, share, *, rectified):
    """Y and O of one image, and the mean of its map: rescaled, enlarged, its lowest pixels black but for ``share`` of all."""
    target, raw = weighted_sum(classifier, image)
    raw = raw.relu() if rectified else raw
    heat = F.interpolate(((raw - raw.min()) / (raw.max() - raw.min()))[None, None], (40, 40), mode="bilinear")[0, 0]
    heat = heat.flatten().clone()
    shown = math.ceil(1600 * (1 - (1 - share)))  # 241 of 1600 at 0.15, in floating point, as released
    heat[heat.argsort(stable=True)[: 1600 - shown]] = 0
    before, after = (classifier(x[None]).softmax(1)[0, target] for x in (image, image * heat.view(40, 40)))
    return before.item(), after.item(), heat.mean().item()


def test_the_study_is_the_protocol_image_by_image(monkeypatch):
    classifier, asked = nets.dense(), []
    monkeypatch.setattr(published_gap, "load_classifier", lambda _name: classifier)
    monkeypatch.setattr(published_gap.sources, "find_root", lambda name: f"root of {name}")
    monkeypatch.setattr(published_gap.sources, "images", lambda *given, limit: lambda view: asked.append((*given, view)) or Noise(limit))
    frame = published_gap.study("tiny", 6)
    assert asked == [("imagenet", "root of imagenet", "crop")]
    assert set(frame.method) == {"grad_cam", "grad_cam[no relu]", *published_gap.NAMES}
    assert len(frame) == 6 * 3 * 3
    assert set(zip(frame.n, frame.backbone, frame.weights, strict=True)) == {(6, "tiny", classifier.weights)}
    values = frame.set_index(["method", "setting", "metric"]).value
    images = [Noise(6)[number].image.double() for number in range(6)]
    for method, rectified in (("grad_cam", True), ("grad_cam[no relu]", False)):
        for share, setting in ((1.0, "100%"), (0.5, "50%"), (0.15, "15%")):
            rows = [literal(classifier, image, share, rectified=rectified) for image in images]
            drop = 100 / 6 * sum(max(0.0, before - after) / before for before, after, _ in rows)
            assert drop > 1
            assert values[method, setting, "average_drop"] == pytest.approx(drop, rel=1e-9)
            assert values[method, setting, "increase_in_confidence"] == pytest.approx(100 / 6 * sum(o > y for y, o, _ in rows))
            assert values[method, setting, "map_mean"] == pytest.approx(100 / 6 * sum(mean for *_, mean in rows), rel=1e-9)
    assert values["grad_cam", "100%", "map_mean"] != pytest.approx(values["grad_cam[no relu]", "100%", "map_mean"], rel=0.01)
