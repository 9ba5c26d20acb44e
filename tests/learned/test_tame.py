"""TAME against literal loops: the fusion of layers, the loss under each way of masking, what is trained and what is left alone."""

import copy
import math

import pytest
import torch
import torchvision

from cam_core.classifier import Classifier
from cam_core.learned import Tame
from cam_core.probe import Probe
from tests import nets
from training.recipes import TAME, tame_plan

LAYERS = ("relu1", "relu2")


def model(**options) -> Tame:
    torch.manual_seed(0)
    made = Tame(nets.gap(seed=3), LAYERS, **options)
    for branch in made.attention.branches:
        branch[1].running_mean.normal_()
        branch[1].running_var.uniform_(0.5, 2)
    return made


def literal_maps(tame: Tame, images: torch.Tensor) -> list:
    """Every class's map before the sigmoid of each image, by loops, in eval mode; the layers of the tiny network have one size."""
    every = []
    for image in images:
        read = []
        for (conv, norm), layer in zip(tame.attention.branches, LAYERS, strict=True):
            f = tame.classifier.at(layer).activations(image[None])[0].detach()
            for k in range(len(f)):
                z = sum(conv.weight[k, j, 0, 0] * f[j] for j in range(len(f))) + conv.bias[k]
                z = (z - norm.running_mean[k]) / (norm.running_var[k] + norm.eps).sqrt() * norm.weight[k] + norm.bias[k]
                read.append((z + f[k]).clamp_min(0))
        fuse = tame.attention.fuse
        every.append([sum(fuse.weight[c, k, 0, 0] * m for k, m in enumerate(read)) + fuse.bias[c] for c in range(5)])
    return [[m.detach() for m in of_image] for of_image in every]


def test_the_map_is_the_fusion_written_out():
    tame, x, targets = model().eval(), nets.images(3), torch.tensor([4, 0, 2])
    want = torch.stack([literal_maps(tame, x)[b][int(targets[b])] for b in range(3)])
    torch.testing.assert_close(tame.explain(Probe(tame.classifier, x, targets)), want)


def test_layers_of_other_sizes_are_brought_to_the_first_ones_and_to_56_at_most():
    network = torchvision.models.resnet18(num_classes=4)
    tame = Tame(Classifier.of(network, "layer4", name="resnet18")).eval()
    assert tame.layers == ("layer2", "layer3", "layer4")
    for side, want in ((64, 8), (512, 56)):
        assert tame.explain(Probe(tame.classifier, torch.rand(1, 3, side, side))).shape == (1, want, want)


@pytest.mark.parametrize("fill", ["black", "mean"])
@pytest.mark.parametrize("masking", ["random", "diagonal", "max"])
def test_the_loss_is_the_released_one_in_loops(masking, fill):
    tame, x = model(masking=masking, fill=fill).eval(), nets.images(3)
    classifier = tame.classifier
    labels = classifier(x).argmax(1).tolist()
    m = [[of_class.sigmoid() for of_class in of_image] for of_image in literal_maps(tame, x)]
    colour = classifier.mean if fill == "mean" else torch.zeros(3, 1, 1)
    entropy, logits = 0.0, []
    for n, image in enumerate(x):
        shown = torch.nn.functional.interpolate(m[n][labels[n]][None, None], x.shape[-2:], mode="bilinear", align_corners=False)[0]
        logits.append(classifier((image * shown + colour * (1 - shown))[None])[0].detach())
        entropy -= float(logits[-1].log_softmax(0)[labels[n]]) / 3
    chosen = {
        "random": [[of_image[c] for c in labels] for of_image in m],
        "diagonal": [[of_image[c]] for of_image, c in zip(m, labels, strict=True)],
        "max": [[of_image[c] for c in z.argsort(descending=True)[:3]] for of_image, z in zip(m, logits, strict=True)],
    }[masking]
    area = sum(float(v + 0.0005) ** 0.3 for maps in chosen for one in maps for v in one.flatten()) / sum(
        one.numel() for maps in chosen for one in maps
    )
    variation = 0.0
    for one in (one for maps in chosen for one in maps):
        h, w = one.shape
        variation += sum(float(one[i + 1, j] - one[i, j]) ** 2 for i in range(h - 1) for j in range(w))
        variation += sum(float(one[i, j + 1] - one[i, j]) ** 2 for i in range(h) for j in range(w - 1))
        variation += 0.3 * sum(float(v) ** 2 for edge in (one[0], one[-1], one[:, 0], one[:, -1]) for v in edge)
    loss, terms = tame.loss({"images": x})
    assert float(terms["entropy"]) == pytest.approx(entropy, rel=1e-6)
    assert float(loss) == pytest.approx(1.5 * entropy + 2 * area + 0.01 * variation / 6, rel=1e-6)
    assert math.isfinite(float(loss))


def test_only_the_attention_learns_and_a_step_lowers_the_loss():
    tame = model().train()
    kept = copy.deepcopy(tame.classifier.state_dict())
    assert not tame.classifier.training
    assert {name.split(".")[0] for name, p in tame.named_parameters() if p.requires_grad} == {"attention"}
    optimizer, losses = torch.optim.SGD(tame.attention.parameters(), lr=0.05), []
    for _ in range(20):
        loss, _ = tame.loss({"images": nets.images(4)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(a, b) for a, b in zip(kept.values(), tame.classifier.state_dict().values(), strict=True))


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="masking"):
        model(masking="mean")
    with pytest.raises(ValueError, match="are joined is not known"):
        Tame(nets.gap())
    with pytest.raises(ValueError, match="TAME has no reduced recipe for imagenet"):
        tame_plan("imagenet", "resnet50")


def test_the_reduced_recipe_says_what_differs_from_the_published_one():
    assert tame_plan("imagenet", "resnet50", paper="paper").recipe == TAME
    found = tame_plan("drawn_imagenet", "resnet8").recipe.differs_from(TAME)
    assert found == ["lr: 0.1 instead of 0.001", "flip: false instead of true", "crop: None instead of 224"]
