"""Transformers: the patches' tokens as a grid, whatever stands before them, against the tokens and gradients of the whole network."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.swin_transformer import SwinTransformer

from cam_core import METHODS
from cam_core.classifier import Classifier
from cam_core.pretrained import load_classifier
from cam_core.probe import Probe


def vit(*, side=(32, 32), **options):
    """A tiny transformer of timm in float64, 8 x 8 pixels a patch."""
    torch.manual_seed(0)
    sizes = {"img_size": side, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 4}
    network = VisionTransformer(**sizes, **options).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def swin():
    torch.manual_seed(0)
    return SwinTransformer([2, 2], 8, [1, 2], [1, 2], [4, 4], num_classes=4).double().eval()


def by_hand(network, block, x, target):
    """Output of a block and the gradient of the target's logit by it, in one pass through the uncut network."""
    kept = []
    hook = network.get_submodule(block).register_forward_hook(lambda _m, _given, output: kept.append(output))
    logits = network(x)
    hook.remove()
    return kept[0].detach(), torch.autograd.grad(logits[:, target].sum(), kept[0])[0], logits.detach()


GRIDS = {  # network, layer, tokens, tokens before the grid, grid
    "class token": (vit(), "blocks.1", None, 1, (4, 4)),
    "class token and registers, as DINOv2": (vit(reg_tokens=4), "blocks.1", None, 5, (4, 4)),
    "no class token, averaged": (vit(class_token=False, global_pool="avg"), "blocks.2", None, 0, (4, 4)),
    "as the user says": (vit(reg_tokens=2), "blocks.1", 3, 3, (4, 4)),
    "not square": (vit(side=(32, 16), reg_tokens=1), "blocks.1", (4, 2), 2, (4, 2)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_patches_lie_where_they_were_cut_and_have_the_gradients_of_the_whole_network(name):
    network, layer, given, before, (height, width) = GRIDS[name]
    classifier = Classifier.of(network, layer, tokens=given)
    x = torch.rand(2, 3, 8 * height, 8 * width, generator=torch.Generator().manual_seed(1)).double()
    tokens, gradients, logits = by_hand(network, layer, classifier.normalize(x), 2)
    probe = Probe(classifier, x, 2)
    torch.testing.assert_close(probe.logits, logits)
    assert probe.activations.shape == (2, 16, height, width)
    for i in range(height):
        for j in range(width):
            assert torch.equal(probe.activations[:, :, i, j], tokens[:, before + i * width + j])
    torch.testing.assert_close(probe.gradients().flatten(2).mT, gradients[:, before:])
    weights = gradients[:, before:].mean(1, keepdim=True)
    want = (weights * tokens[:, before:]).sum(2).relu().reshape(2, height, width)
    torch.testing.assert_close(METHODS["grad_cam"](probe), want)
    torch.testing.assert_close(METHODS["grad_cam"](Probe(classifier.frozen(), x, 2)), want)
    torch.testing.assert_close(probe.at("blocks.0").logits, logits)  # another block has the same tokens


def test_channels_that_come_last():
    network = swin()
    classifier = Classifier.of(network, "features.3", tokens=0)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    found, gradients, logits = by_hand(network, "features.3", classifier.normalize(x), 1)
    probe = Probe(classifier, x, 1)
    torch.testing.assert_close(probe.logits, logits)
    assert torch.equal(probe.activations, found.permute(0, 3, 1, 2))
    torch.testing.assert_close(METHODS["hires_cam"](probe), (gradients * found).sum(3))
    assert Classifier.of(network).layer == "permute"  # of torchvision's own the map is known


@pytest.mark.parametrize(("given", "told"), [(2, "tokens=2"), ((5, 5), r"tokens=\(5, 5\)")])
def test_another_number_of_tokens_is_refused(given, told):
    classifier = Classifier.of(GRIDS["class token"][0], "blocks.1", tokens=given)
    with pytest.raises(ValueError, match=rf"the layer gives \(1, 17, 16\), no square grid of patches behind {told}: take the output of a"):
        classifier(torch.rand(1, 3, 32, 32).double())


@pytest.mark.parametrize(("name", "layer"), [("test_vit", "blocks.4"), ("test_vit3", "blocks.8")])
def test_transformers_of_timm_go_by_their_names(name, layer):
    classifier = load_classifier(f"timm/{name}", weights=None)
    x = torch.rand(1, 3, 160, 160)
    assert classifier.layer == layer  # the last block that gets a gradient: only the class token of the last one is read, or all tokens
    torch.testing.assert_close(Probe(classifier, x).logits, classifier.network(classifier.normalize(x)).detach())
    assert float(Probe(classifier, x).gradients().abs().max()) > 0


def test_a_trunk_without_classes_is_explained_by_a_similarity():
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0).eval()  # as DINO's
    x = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    classifier = Classifier.of(network, "blocks.4", mean=(0.5,) * 3, std=(0.5,) * 3)
    with torch.no_grad():
        wanted = network(classifier.normalize(x[:1]))[0]
    probe = Probe(classifier, x, lambda embedding: torch.cosine_similarity(embedding, wanted, dim=1))
    assert float(probe.score(probe.logits)[0]) == pytest.approx(1)
    assert METHODS["grad_cam"](probe).shape == (2, 10, 10)
