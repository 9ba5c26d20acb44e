"""CALM: probabilities that are probabilities, EM against ML, the released arithmetic, finer ResNets."""

import math

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from cam_core.learned.calm import Calm, CalmHead, calm_trunk
from cam_core.learned.plain import with_pooled_head
from cam_core.probe import Probe
from tests import nets


def model(objective: str = "em", **options) -> Calm:
    torch.manual_seed(5)
    made = Calm(nets.gap(channels=6), 5, objective, **options)
    with torch.no_grad():
        made.head.location_head.bias.fill_(0.05)
        made.head.class_head.weight.mul_(4)
    return made.eval()


def batch() -> dict[str, torch.Tensor]:
    return {"images": nets.images(4, 24, 20), "labels": torch.tensor([0, 3, 1, 4])}


def gradients(made: Calm) -> torch.Tensor:
    made.zero_grad()
    made.loss(batch())[0].backward()
    return torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])


def literal(made: Calm, b: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Joint [C,h,w], p(z|x) [h,w] of one image, place by place from the two convolutions' weights."""
    A = made.classifier.activations(batch()["images"]).detach()[b]
    head = made.head
    joint = torch.zeros(5, *A.shape[1:], dtype=torch.float64)
    location = torch.zeros(A.shape[1:], dtype=torch.float64)
    for i in range(A.shape[1]):
        for j in range(A.shape[2]):
            a = head.location_head.weight[0, :, 0, 0] @ A[:, i, j] + head.location_head.bias[0]
            location[i, j] = max(0.0, a.item())
    location /= location.sum()
    for i in range(A.shape[1]):
        for j in range(A.shape[2]):
            f = head.class_head.weight[:, :, 0, 0].detach() @ A[:, i, j] + head.class_head.bias.detach()
            joint[:, i, j] = torch.exp(f) / torch.exp(f).sum() * location[i, j]
    return joint, location, joint.sum((1, 2))


def test_maps_are_the_probabilities_of_the_definition():
    made = model()
    probe = Probe(made.classifier, batch()["images"], batch()["labels"])
    for b in range(4):
        joint, location, marginal = literal(made, b)
        y = int(batch()["labels"][b])
        assert (location == 0).any() or b != 0  # the first image has places that the ReLU closes
        torch.testing.assert_close(made.class_maps(probe)[b], joint)
        torch.testing.assert_close(made.explain(probe)[b], joint[y])
        torch.testing.assert_close(made.explain(probe, "posterior")[b], joint[y] / joint[y].sum())
        torch.testing.assert_close(made.explain(probe, "saliency")[b], location)
        torch.testing.assert_close(probe.logits[b].exp(), marginal)
        torch.testing.assert_close(probe.logits[b].softmax(0), marginal)  # logits are log p(y|x)


def test_sums():
    made = model()
    probe = Probe(made.classifier, batch()["images"])
    one = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(made.class_maps(probe).sum((1, 2, 3)), one)
    torch.testing.assert_close(made.explain(probe, "posterior").sum((1, 2)), one)
    torch.testing.assert_close(made.explain(probe, "saliency").sum((1, 2)), one)
    torch.testing.assert_close(made.explain(probe).sum((1, 2)), probe.logits.exp().amax(1))
    with pytest.raises(ValueError, match="posterior"):
        made.explain(probe, "gtcond")


@pytest.mark.parametrize("detach_scale", [True, False])
def test_em_and_ml_have_the_same_gradient(detach_scale):
    """Fisher's identity: the posterior at the current parameters gives the gradient of the marginal likelihood; the values differ."""
    em, ml = (model(o, epsilon=0.0, detach_scale=detach_scale) for o in ("em", "ml"))
    torch.testing.assert_close(gradients(em), gradients(ml), rtol=1e-11, atol=1e-14)
    assert em.loss(batch())[0].item() > ml.loss(batch())[0].item() + 0.5


def test_released_epsilon_switches_unlikely_images_off():
    """With p(y*|x) far below 1e-10 the released EM gradient is the ML gradient times p / (p + 1e-10)."""
    images, labels = nets.images(1, 16, 16), torch.tensor([2])

    def gradient(objective: str, **options) -> tuple[torch.Tensor, float]:
        made = model(objective, **options)
        with torch.no_grad():
            made.head.class_head.bias[2] = -32.0
        made.loss({"images": images, "labels": labels})[0].backward()
        p = float(made.classifier(images)[0, 2].exp())
        return torch.cat([q.grad.flatten() for q in made.head.parameters()]), p

    em, p = gradient("em")
    ml, _ = gradient("ml")
    assert p < 1e-12
    torch.testing.assert_close(em, ml * p / (p + 1e-10), rtol=1e-9, atol=0)


def test_em_equals_the_released_arithmetic():
    """Probability space, all classes, epsilon in the posterior, 1e-8 added to places below 1e-8, then NLL."""
    made = model()
    A = made.classifier.activations(batch()["images"]).detach()
    f = made.head.class_head(A)
    a = made.head.location_head(A).relu()
    location = a / a.sum((2, 3), keepdim=True).detach()
    joint = f.softmax(1) * location
    posterior = (joint / (joint.sum((2, 3), keepdim=True) + 1e-10)).detach()
    patched = torch.where(location < 1e-8, location + 1e-8, location)
    per_class = (posterior * (f.log_softmax(1) + patched.log())).sum((2, 3))
    released = torch.nn.functional.nll_loss(per_class, batch()["labels"])
    loss, log = made.loss(batch())
    assert float(loss) == pytest.approx(float(released), rel=1e-9)
    expected = torch.autograd.grad(released, list(made.head.parameters()))
    ours = torch.autograd.grad(loss, list(made.head.parameters()))
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-12)
    nll = -joint.sum((2, 3))[torch.arange(4), batch()["labels"]].log().mean()
    assert float(log["nll"]) == pytest.approx(float(nll))


def test_detached_scale_inflates_the_attention():
    """With S constant, sum_z a dL/da = -1 for every image; with its gradient the loss does not know the scale, and the sum is 0."""
    for detach, expected in ((True, -1.0), (False, 0.0)):
        head = CalmHead(6, 5, detach_scale=detach).double()
        A = torch.rand(1, 6, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            head.location_head.weight.abs_()
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        original = head.location_head.forward
        head.location_head.forward = lambda x, original=original, scale=scale: original(x) * scale
        (-head(A)[0, 1]).backward()
        assert float(scale.grad) == pytest.approx(expected, abs=1e-12)


def test_attention_of_zero_everywhere():
    made = model()
    with torch.no_grad():
        made.head.location_head.bias.fill_(-100)
    with pytest.raises(ValueError, match="zero everywhere in 4 of 4 images"):
        made.classifier(batch()["images"])
    made.head.uniform = True
    probe = Probe(made.classifier, batch()["images"])
    places = probe.activations[0, 0].numel()
    assert torch.allclose(made.explain(probe, "saliency"), torch.full((), 1 / places, dtype=torch.float64))
    gradient = gradients(made)
    assert torch.isfinite(gradient).all()


def test_closed_places_have_no_gradient_and_no_nan():
    made = model("ml", detach_scale=False)
    with torch.no_grad():  # close about half of the places
        A = made.classifier.activations(batch()["images"])
        made.head.location_head.bias -= made.head.location_head(A).median()
    assert torch.isinf(made.head.log_location(A)).any()
    assert torch.isfinite(gradients(made)).all()


def test_cam_beside_calm():
    """The plain network of the same trunk is average pooling of f."""
    backbone = nets.gap()
    cam = with_pooled_head(backbone, 3)
    images = nets.images(2)
    weight, bias = cam.head[2].weight, cam.head[2].bias
    f = torch.einsum("ck,bkhw->bchw", weight, backbone.activations(images)) + bias[:, None, None]
    torch.testing.assert_close(cam(images), f.mean((2, 3)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize(("stride", "side"), [(16, 14), (8, 28)])
def test_finer_resnets_reuse_every_weight(name, stride, side, tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    file = tmp_path / f"{name}.safetensors"
    save_file(network.state_dict(), file)
    backbone = calm_trunk(name, str(file), stride)
    activations = backbone.activations(torch.rand(1, 3, 224, 224))
    assert activations.shape[-2:] == (side, side)
    trunk = backbone.trunk.state_dict()
    assert all(torch.equal(value, trunk[key]) for key, value in network.state_dict().items() if not key.startswith("fc"))
    assert math.isclose(32 / stride, side / 7)


def test_other_families_are_refused():
    with pytest.raises(ValueError, match="torchvision ResNet"):
        calm_trunk("mobilenet_v2", None)
    with pytest.raises(ValueError, match="32, 16 or 8"):
        calm_trunk("resnet18", None, 4)
