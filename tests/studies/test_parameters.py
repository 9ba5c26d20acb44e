"""The counts of the table, from formulas of the layers and from networks of others."""

import pytest
import torch
import torchvision

from cam_core.learned import lfi_backbone
from studies import parameters

# classes, channels C of the last stage
SIZES = {
    "resnet110_bottleneck": (10, 256), "densenet100_12": (10, 342), "resnext29_8x64d": (10, 1024), "resnet18": (2, 512),
    "resnet50": (1000, 2048),
}  # fmt: skip


@pytest.fixture(scope="module")
def counts():
    return parameters.counts().set_index(["backbone", "part"])


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_network_and_part_is_counted_once(counts):
    assert counts.index.is_unique
    assert {(name, part) for name in SIZES for part in ("plain", "fin_3x3", "fin_1x1", "abn_branch")} == set(counts.index)
    assert all(row.classes == SIZES[name][0] for (name, _), row in counts.iterrows())


@pytest.mark.parametrize("name", SIZES)
def test_fin_is_four_convolutions_and_norms(counts, name):
    """Each of C x C kernels without bias, and a scale and a shift for every channel."""
    _, width = SIZES[name]
    assert counts.value[name, "fin_3x3"] == 4 * (9 * width**2 + 2 * width)
    assert counts.value[name, "fin_1x1"] == 4 * (width**2 + 2 * width)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_plain_networks_are_torchvisions(counts, name):
    with torch.device("meta"):
        network = torchvision.models.get_model(name, num_classes=SIZES[name][0])
    assert counts.value[name, "plain"] == size(network)


@pytest.mark.parametrize(("name", "stage"), [("resnet110_bottleneck", "layer3"), ("resnet18", "layer4"), ("resnet50", "layer4")])
def test_abn_s_branch_is_a_stage_and_its_heads(counts, name, stage):
    """A last stage of its own, BN of C; 1x1 C -> K, BN of K; 1x1 K -> K; 3x3 K -> 1, BN of 1; no convolution has a bias."""
    classes, width = SIZES[name]
    with torch.device("meta"):
        own = size(lfi_backbone(name, classes)._network[0].get_submodule(stage))
    heads = 2 * width + width * classes + 2 * classes + classes**2 + 9 * classes + 2
    assert counts.value[name, "abn_branch"] == own + heads


@pytest.mark.parametrize(
    ("name", "classes", "fin", "abn", "plain"),
    [
        ("resnet110_bottleneck", 10, 2.36e6, 1.30e6, 1.70e6),
        ("resnet18", 2, 9.44e6, 8.40e6, 11.18e6),
        ("resnet50", 1000, 151.0e6, 18.0e6, 25.56e6),
        ("densenet100_12", 10, 4.21e6, None, 0.77e6),
        ("resnext29_8x64d", 10, 37.8e6, None, 34.4e6),
    ],
)
def test_parameters_are_the_papers(name, classes, fin, abn, plain):
    """FIN is larger than ABN's branch with 3x3 convolutions, and smaller with the earlier 1x1 ones."""
    counts = parameters.parameter_counts(name, classes)
    assert counts["plain"] == pytest.approx(plain, rel=0.005)
    assert counts["fin_3x3"] == pytest.approx(fin, rel=0.005)
    if abn:
        assert counts["abn_branch"] == pytest.approx(abn, rel=0.005)
        assert counts["fin_1x1"] < counts["abn_branch"] < counts["fin_3x3"]
