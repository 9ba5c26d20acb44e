"""ABN against a literal transcription, and the parameter counts that its authors' networks have."""

import pytest
import torch
import torch.nn.functional as F

from cam_core.learned.abn import Abn, AttentionBranch
from cam_core.learned.lfi import lfi_backbone
from cam_core.pretrained import load_classifier
from cam_core.probe import Probe
from tests import nets
from tests.learned.test_lfi import randomised

LABELS = torch.tensor([0, 2, 1])


def model() -> Abn:
    torch.manual_seed(0)
    made = randomised(Abn("resnet8", 3).double()).train()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of one batch, so that the sigmoid does not saturate
    made.classifier(nets.images(4, 32, 24, seed=9))
    return made.eval()


def convolved(x, convolution):
    """A convolution as sums over the window, position by position."""
    weight, (k, pad) = convolution.weight.detach(), (convolution.kernel_size[0], convolution.padding[0])
    padded, (h, w) = F.pad(x, [pad] * 4), x.shape[-2:]
    out = torch.zeros(len(x), len(weight), h, w, dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            out[:, :, i, j] = torch.einsum("bcuv,ocuv->bo", padded[:, :, i : i + k, j : j + k], weight)
    return out


def normed(x, norm):
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        standard = (x[:, c] - norm.running_mean[c]) / torch.sqrt(norm.running_var[c] + norm.eps)
        out[:, c] = standard * norm.weight[c].detach() + norm.bias[c].detach()
    return out


def literal(made: Abn, images: torch.Tensor):
    """Map, attention logits, perception logits by the description; the network's own stages are taken as they are."""
    c, branch = made.classifier, made.trunk.branch
    G = c.trunk.features((images - c.mean) / c.std).detach()
    E = normed(convolved(normed(branch.stage(G).detach(), branch.norm), branch.classes), branch.classes_norm).clamp(min=0)
    raw = normed(convolved(E, branch.map_head), branch.map_norm)[:, 0]
    M = 1 / (1 + torch.exp(-raw))
    scores = convolved(E, branch.class_head)
    first = scores.sum((2, 3)) / (E.shape[2] * E.shape[3])
    weighted = torch.empty_like(G)
    for k in range(G.shape[1]):
        weighted[:, k] = G[:, k] + M * G[:, k]
    second = c.head(c.trunk.stage(weighted)).detach()
    return M, first, second


def test_equals_the_literal_transcription():
    made, images = model(), nets.images(3, 32, 24)
    M, first, second = literal(made, images)
    torch.testing.assert_close(made.explain(Probe(made.classifier, images)), M, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(made.classifier(images).detach(), second, rtol=1e-10, atol=1e-12)
    loss, log = made.loss({"images": images, "labels": LABELS})
    terms = [-sum(float(logits[b].log_softmax(0)[LABELS[b]]) for b in range(3)) / 3 for logits in (first, second)]
    assert float(log["attention"]) == pytest.approx(terms[0], rel=1e-10)
    assert float(log["perception"]) == pytest.approx(terms[1], rel=1e-10)
    assert float(loss.detach()) == pytest.approx(sum(terms), rel=1e-10)
    assert M.min() > 0
    assert M.max() < 1


def test_no_attention_leaves_the_plain_network():
    torch.manual_seed(0)
    backbone = lfi_backbone("resnet8", 3).double().eval()
    made, images = Abn(backbone).double().eval(), nets.images(3, 32, 32)
    with torch.no_grad():
        made.trunk.branch.map_norm.bias.fill_(-1e4)  # sigmoid(-10000) = 0
    assert torch.equal(made.classifier(images), backbone(images))
    with torch.no_grad():
        made.trunk.branch.map_norm.bias.fill_(1e4)  # (1 + M) G = 2 G
    doubled = backbone.head(made.trunk.stage(2 * made.trunk.features(backbone.normalize(images))))
    torch.testing.assert_close(made.classifier(images), doubled, rtol=1e-12, atol=0)


def test_both_terms_teach_the_branch_and_one_teaches_its_class_head():
    made = model().train()
    made.loss({"images": nets.images(3, 32, 32), "labels": LABELS})[0].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in made.parameters())
    made.zero_grad()
    F.cross_entropy(made.classifier(nets.images(3, 32, 32)), LABELS).backward()
    assert made.trunk.branch.class_head.weight.grad is None
    assert made.trunk.branch.map_head.weight.grad.abs().sum() > 0


def test_the_branch_has_weights_of_its_own():
    torch.manual_seed(0)
    made = Abn("resnet8", 3)
    own, stage = made.trunk.branch.stage[0].conv1.weight, made.trunk.stage[0][0].conv1.weight
    assert own.shape == stage.shape
    assert not torch.equal(own, stage)
    state = made.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)


@pytest.mark.parametrize(
    ("name", "side", "stem", "map_side", "activations"),
    [
        ("resnet8", 32, 1, 16, (64, 8)),
        ("resnet110_bottleneck", 16, 1, 8, (256, 4)),
        ("densenet100_12", 16, 1, 4, (342, 4)),
        ("resnet18", 64, 2, 4, (512, 2)),
        ("resnet18", 64, 1, 8, (512, 4)),
    ],
)
def test_shapes(name, side, stem, map_side, activations):
    made, images = Abn(name, 3, stem_stride=stem).eval(), torch.rand(2, 3, side, side)
    probe = Probe(made.classifier, images)
    assert made.explain(probe).shape == (2, map_side, map_side)
    assert probe.activations.shape == (2, activations[0], activations[1], activations[1])
    assert probe.logits.shape == (2, 3)


def test_resnext_s_branch_leaves_its_first_norm_out():
    """As released: evidence is the rectified, normalised 1x1 convolution of the stage itself; elsewhere a BatchNorm stands between."""
    torch.manual_seed(0)
    stage = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 1))
    for normed in (True, False):
        branch = AttentionBranch(stage, 6, 3, normed=normed).eval()
        with torch.no_grad():
            if normed:
                branch.norm.bias.fill_(0.7)
            x = torch.rand(2, 4, 5, 5)
            seen = branch.stage(x) + (0.7 if normed else 0.0)
            evidence = branch.classes_norm(branch.classes(seen)).relu()
            torch.testing.assert_close(branch(x)[1], branch.class_head(evidence).mean((2, 3)), rtol=1e-4, atol=1e-5)
    with torch.device("meta"):
        assert isinstance(Abn(lfi_backbone("resnext29_8x64d", 10)).trunk.branch.norm, torch.nn.Identity)
        assert isinstance(Abn(lfi_backbone("resnet8", 10)).trunk.branch.norm, torch.nn.BatchNorm2d)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="ABN is built of torchvision's ResNets"):
        Abn(load_classifier("squeezenet1_1", None, num_classes=3))
    with pytest.raises(ValueError, match="got tiny"):
        Abn(nets.gap())
