"""What a training computes: one tiny training a model, whose numbers move only together with `TRAINING_VERSION`.

In float64, first weights included. Float32 rounds differently on another kind of processor (vectors of another width draw and add
differently), and a training amplifies that: after nine updates ABN's losses differ by three thousandths. In float64 the numbers agree
to nine digits and more, so they are compared to seven. The same bits can be asked for on one machine only, and other tests do: a
training that is killed and resumed ends with those of one that is not.
"""

from functools import partial

import pytest
import torch
from torch import nn

from cam_core.classifier import Classifier
from cam_core.learned.abn import Abn
from cam_core.learned.calm import PATCH, Calm
from cam_core.learned.lcam import LCam
from cam_core.learned.lfi import LfiCam, lfi_backbone
from cam_core.learned.plain import Plain
from training.recipes import ABN, CALM, L_CAM, L_CAM_FEW, LFI_CAM, PLAIN_IMAGENET, drawn_recipe
from training.store import TRAINING_VERSION, trained


def data() -> dict[str, torch.Tensor]:
    """Ten images of three classes that differ in brightness."""
    labels = torch.arange(10) % 3
    noise = torch.rand(10, 3, 20, 22, generator=torch.Generator().manual_seed(0))
    return {"images": noise * (1 + labels)[:, None, None, None] / 3, "labels": labels}


@pytest.fixture(autouse=True)
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def backbone() -> Classifier:
    return lfi_backbone("resnet8", 3)


def plain() -> Plain:
    """Under a head with dropout, whose draws belong to the training."""
    classifier = backbone()
    classifier.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Dropout(0.3), nn.Linear(64, 3))
    return Plain(classifier)


def l_cam(variant: str, **options) -> LCam:
    """On a classifier whose BatchNorm has seen images: else all its maps are nearly alike."""
    classifier = backbone()
    classifier(data()["images"])
    return LCam(classifier, variant, **options)


def calm(objective: str) -> Calm:
    return Calm(backbone(), 3, objective, uniform=True, patch=PATCH if objective == "em" else 0.0)


# Each by its paper's recipe, but for length, batch and window; ABN by the cycle of drawn data and L-CAM-Fm from cached activations.
SMALL = {"batch": 4, "crop": 16}
TRAININGS = {
    "plain": (plain, PLAIN_IMAGENET.shortened(3, **SMALL)),
    "lfi_cam": (lambda: LfiCam(backbone()), LFI_CAM.shortened(3, batch=4)),
    "abn": (lambda: Abn(backbone()), drawn_recipe(ABN, 3, batch=4, held_out=0.2)),
    "l_cam_fm": (partial(l_cam, "fm", masks="own"), L_CAM.shortened(3, **{**L_CAM_FEW, "batch": 4})),
    "l_cam_img": (partial(l_cam, "img", cached=False), L_CAM.shortened(3, **SMALL)),
    "calm_em": (partial(calm, "em"), CALM.shortened(3, **SMALL)),
    "calm_ml": (partial(calm, "ml"), CALM.shortened(3, **SMALL)),
}
# By version: the losses of the three epochs, and the sum of the magnitudes of all that learned.
NUMBERS = {
    1: {
        "plain": (1.1710024, 0.866558807, 1.26603718, 4839.52545),
        "lfi_cam": (1.51127611, 0.887024652, 2.18877814, 12143.6708),
        "abn": (2.20462487, 1.71771725, 2.29358482, 8028.25806),
        "l_cam_fm": (2.7943588, 2.5219524, 2.15898218, 17.0639539),
        "l_cam_img": (2.48205679, 2.47868204, 2.50404879, 11.6268511),
        "calm_em": (2.40501119, 1.86559206, 1.55913527, 4808.03775),
        "calm_ml": (1.49478398, 0.801975203, 0.580538529, 4808.03775),
    }
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_computes_what_its_version_says(name, tmp_path):
    build, recipe = TRAININGS[name]
    model, summary = trained(build, recipe, data(), seed=5, store=tmp_path, device="cpu", progress=False)
    found = [epoch["loss"] for epoch in summary["history"]]
    found.append(float(sum(p.detach().abs().sum() for p in model.parameters() if p.requires_grad)))
    assert found == pytest.approx(NUMBERS.get(TRAINING_VERSION, {}).get(name), rel=1e-7), (
        f"a training of {name} now computes {', '.join(f'{value:.9g}' for value in found)}, so models kept before must not be found again: "
        "raise TRAINING_VERSION, put the new numbers into NUMBERS under it, and say in CHANGELOG.md what moves"
    )
