"""Forms of one method: what the study compares, and what a part of it leaves as it was."""

import pandas as pd
import pytest
import torch
from torchvision import tv_tensors

from cam_core import METHODS, Probe, load_classifier, maps
from cam_core.data.example import Example
from studies import forms


@pytest.fixture
def images(monkeypatch):
    """Two drawn images with a box in their left upper quarter, and a random ResNet-8."""
    torch.manual_seed(0)
    classifier = load_classifier("resnet8", None)
    drawn = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    box = tv_tensors.BoundingBoxes([[0.0, 0.0, 112.0, 112.0]], format="XYXY", canvas_size=(224, 224))
    examples = [Example(str(i), image, 0, boxes=box) for i, image in enumerate(drawn)]
    monkeypatch.setattr(forms, "load_classifier", lambda _name: classifier)
    monkeypatch.setattr(forms.sources, "find_root", lambda _name: None)
    monkeypatch.setattr(forms.sources, "images", lambda *_args, limit: lambda _view: examples[:limit])
    return Probe(classifier.frozen(), drawn)


def test_a_peers_form_is_set_beside_ours_with_what_it_does_otherwise(images):
    rows = forms.compare("resnet8", [("grad_cam", "captum: LayerGradCam", 2), ("grad_cam", "grad_cam_pp", 2)]).set_index("other")
    signed = torch.einsum("bk,bkhw->bhw", images.gradients().mean((2, 3)), images.activations)
    ours = METHODS["grad_cam"](images)
    want = [float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) for a, b in zip(ours, signed, strict=True)]
    row = rows.loc["captum: LayerGradCam"]
    assert row.correlation == pytest.approx(sum(want) / 2, abs=1e-5)
    assert row.worst == pytest.approx(min(want), abs=1e-5)
    finished = maps.upsample(maps.min_max(signed), (224, 224))
    share = finished[:, :112, :112].sum((1, 2)) / finished.sum((1, 2))
    assert row.energy_other == pytest.approx(100 * float(share.mean()), rel=1e-4)
    assert row.otherwise == "no ReLU"
    assert rows.loc["grad_cam_pp"].otherwise == ""


def test_a_part_replaces_its_own_pairs_alone(images, monkeypatch, tmp_path):
    monkeypatch.setattr(forms.sources, "HOME", tmp_path)
    (tmp_path / "results/studies").mkdir(parents=True)
    path = tmp_path / "results/studies/forms-resnet8.csv"
    facts = {"form": "grad_cam", "correlation": 0.1 + 0.2}
    pd.DataFrame([facts | {"other": "grad_cam_pp"}, facts | {"other": "captum: LayerGradCam"}]).to_csv(path, index=False)
    monkeypatch.setattr(forms, "PAIRS", [("grad_cam", "grad_cam_pp", 2), ("grad_cam", "captum: LayerGradCam", 2)])
    monkeypatch.setattr("sys.argv", ["forms", "resnet8", "--only", "captum"])
    forms.main()
    found = pd.read_csv(path, float_precision="round_trip").set_index("other").correlation
    assert len(found) == 2
    assert found["grad_cam_pp"] == 0.1 + 0.2
    assert found["captum: LayerGradCam"] != 0.1 + 0.2
