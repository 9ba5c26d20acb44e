"""CALM: probabilities that are probabilities, EM against ML, the released arithmetic, finer ResNets."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cam_core.learned.calm import Calm, CalmHead, em_loss, ml_loss, posterior, vanilla_superclass
from cam_core.learned.plain import with_pooled_head
from cam_core.probe import Probe
from tests import nets


def model(objective: str = "em", kind: type[Calm] = Calm, **options) -> Calm:
    torch.manual_seed(5)
    made = kind(nets.gap(channels=6), 5, objective, **options)
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


def test_the_losses_are_those_of_the_definition():
    made, labels = model(epsilon=0.0), batch()["labels"]
    joints = [literal(made, b)[0][label].flatten() for b, label in enumerate(labels.tolist())]
    joint = torch.stack(joints).log()
    by_hand = -sum(math.log(float(p.sum())) for p in joints) / 4
    assert float(ml_loss(joint)) == pytest.approx(by_hand, rel=1e-12)
    assert float(model("ml").loss(batch())[0]) == pytest.approx(by_hand, rel=1e-9)
    by_hand = -sum(float((p / p.sum() * p.log()).nan_to_num(0.0).sum()) for p in joints) / 4
    assert float(em_loss(joint, posterior(joint))) == pytest.approx(by_hand, rel=1e-12)
    assert float(made.loss(batch())[0]) == pytest.approx(by_hand, rel=1e-9)
    with pytest.raises(ValueError, match="objective is 'em' or 'ml', got 'em_lagged'"):
        model("em_lagged")


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


def test_without_epsilon_a_probability_that_underflows_is_no_nan():
    """p(y*|x) = exp(-120) is 0 in single precision, its logarithm is not: EM's gradient is still ML's."""
    found = {}
    for objective in ("em", "ml"):
        made = model(objective, epsilon=0.0).float()
        with torch.no_grad():
            made.head.class_head.bias[2] = -120.0
        loss, _ = made.loss({"images": nets.images(2, 16, 16).float(), "labels": torch.tensor([2, 2])})
        loss.backward()
        assert torch.isfinite(loss)
        found[objective] = torch.cat([p.grad.flatten() for p in made.head.parameters()])
    torch.testing.assert_close(found["em"], found["ml"], rtol=1e-5, atol=1e-6)


def test_probabilities_sum_to_1_under_autocast():
    made = model().float()
    with torch.autocast("cpu", torch.bfloat16):
        logits = made.classifier(batch()["images"].float())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(4), rtol=1e-5, atol=0)


def released_em(made: Calm, A: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probability space, all classes, epsilon in the posterior, 1e-8 added to places below 1e-8, then NLL. Loss, p(z|x), p(y,z|x)."""
    f = made.head.class_head(A)
    a = made.head.location_head(A).relu()
    location = a / a.sum((2, 3), keepdim=True).detach()
    joint = f.softmax(1) * location
    posterior = (joint / (joint.sum((2, 3), keepdim=True) + 1e-10)).detach()
    patched = torch.where(location < 1e-8, location + 1e-8, location)
    per_class = (posterior * (f.log_softmax(1) + patched.log())).sum((2, 3))
    return torch.nn.functional.nll_loss(per_class, labels), location, joint


def test_em_equals_the_released_arithmetic():
    made, labels = model(), batch()["labels"]
    A = made.classifier.activations(batch()["images"]).detach()
    released, location, joint = released_em(made, A, labels)
    assert not ((location > 0) & (location < 1e-8)).any()  # what the release patches there is in the test after this one
    loss, log = made.loss(batch())
    assert float(loss) == pytest.approx(float(released), rel=1e-9)
    expected = torch.autograd.grad(released, list(made.head.parameters()))
    ours = torch.autograd.grad(loss, list(made.head.parameters()))
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-12)
    nll = -joint.sum((2, 3))[torch.arange(4), labels].log().mean()
    assert float(log["nll"]) == pytest.approx(float(nll))


def test_em_without_the_releases_patch_of_small_probabilities():
    """Where 0 < p(z|x) < 1e-8 the release takes log(p + 1e-8). The value differs by q log(1 + 1e-8 / p), less than 1e-8 a place times
    p(y*|x,z) / p(y*|x); the class head's gradient by nothing. But a's gradient there is the release's times (p + 1e-8) / p: at 1e-12 ten
    thousand times as large. At 0 and from 1e-8 on both have the same.
    """
    made, labels = model(), torch.tensor([3])
    A = torch.rand(1, 6, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    A[0, 0] = torch.tensor([[1.0, 0.4, 0.0], [0.0, 1e-12, 3e-11], [1e-9, 8e-9, 3e-8]])  # a itself, and nothing else reads it
    with torch.no_grad():
        made.head.location_head.weight.zero_()[0, 0], made.head.class_head.weight[:, 0] = 1, 0
        made.head.location_head.bias.zero_()
    A.requires_grad_()
    made.classifier.activations = lambda _: A
    loss, _ = made.loss({"images": A, "labels": labels})
    released, location, joint = released_em(made, A, labels)  # its graph serves two comparisons
    p, joint = location.detach()[0, 0], joint.detach()[0, 3]
    small = (p > 0) & (p < 1e-8)
    assert (int(small.sum()), int((p == 0).sum())) == (4, 2)
    q = joint / (joint.sum() + 1e-10)
    moved = float((q * torch.log1p(1e-8 / p))[small].sum())
    assert 1e-9 < moved < 4e-8 * float((joint / p)[small].max() / joint.sum())
    assert float((loss - released).detach()) == pytest.approx(moved, abs=1e-14)
    wanted = [A, *made.head.class_head.parameters()]
    (ours, *of_classes), (theirs, *released_of_classes) = (torch.autograd.grad(of, wanted, retain_graph=True) for of in (loss, released))
    for mine, other in zip(of_classes, released_of_classes, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(ours[0, 1:], theirs[0, 1:], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(ours[0, 0], theirs[0, 0] * torch.where(small, 1 + 1e-8 / p, 1.0), rtol=1e-12, atol=0)
    assert ours[0, 0, 1, 1] / theirs[0, 0, 1, 1] > 1e4
    assert (ours[0, 0][p == 0] == 0).all()
    made.patch = 1e-8  # as released
    patched, _ = made.loss({"images": A, "labels": labels})
    assert float(patched.detach()) == pytest.approx(float(released.detach()), rel=1e-14)
    for mine, other in zip(torch.autograd.grad(patched, wanted), (theirs, *released_of_classes), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-15)


class Made(TorchDispatchMode):
    """Notes the operations with a graph that make (not view) a tensor of ``size`` numbers or more."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.names = size, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if torch.is_grad_enabled() and not func.is_view and isinstance(out, torch.Tensor) and out.numel() >= self.size:
            self.names.append(func.overloadpacket.__name__)
        return out


@pytest.mark.parametrize("objective", ["em", "ml"])
def test_loss_multiplies_the_labels_class_alone(objective):
    """What the gradient passes through has all classes in f and its softmax, and no product of p(z|x) with them (the release's has)."""
    made = Calm(nets.gap(channels=6), 40, objective)
    places = made.classifier.activations(batch()["images"])[0, 0].numel()
    with Made(4 * 40 * places) as ours:
        made.loss(batch())
    assert ours.names == ["convolution", "_log_softmax"]
    with Made(4 * 40 * places) as theirs:
        released_em(made, made.classifier.activations(batch()["images"]), batch()["labels"])
    assert theirs.names.count("mul") == 2


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


@pytest.mark.parametrize("kind", ["joint", "posterior"])
def test_superclass_is_the_sum_over_its_members(kind):
    made = model()
    probe = Probe(made.classifier, batch()["images"], batch()["labels"])
    members = torch.eye(5, dtype=torch.bool)
    members[0, 2] = members[3, [1, 4]] = True  # S(0) = {0, 2}, S(3) = {1, 3, 4}
    got = made.superclass(probe, members, kind)
    for b, classes in enumerate([[0, 2], [1, 3, 4], [1], [4]]):
        joint, _, marginal = literal(made, b)
        expected = sum(joint[y] / (marginal[y] if kind == "posterior" else 1) for y in classes)
        torch.testing.assert_close(got[b], expected)
        torch.testing.assert_close(made.superclass(probe, members, kind, mean=True)[b], expected / len(classes))


def test_cams_of_a_superclass_are_min_maxed_one_by_one_and_summed():
    """The release's vanilla-superclass and, of all classes, vanilla-saliency; its min-max takes the bias away."""
    classifier, images, labels = nets.gap(), batch()["images"], batch()["labels"]
    members = torch.eye(5, dtype=torch.bool)
    members[0, 2] = members[3, [1, 4]] = True
    probe, fc = Probe(classifier, images, labels), classifier.head.fc
    some, everything = vanilla_superclass(probe, members), vanilla_superclass(probe)
    for b, classes in enumerate([[0, 2], [1, 3, 4], [1], [4]]):
        cams = [sum(fc.weight[c, k] * probe.activations[b, k] for k in range(6)) + fc.bias[c] for c in range(5)]
        scaled = [(cam - cam.min()) / (cam.max() - cam.min()) for cam in cams]
        torch.testing.assert_close(some[b], sum(scaled[c] for c in classes).detach())
        torch.testing.assert_close(everything[b], sum(scaled).detach())
    assert not some.requires_grad


def test_superclass_of_everything():
    """The joint of all classes is p(z|x); the posteriors of all classes are not weighted by p(y|x) and sum to the number of classes."""
    made = model()
    probe = Probe(made.classifier, batch()["images"])
    everything = torch.ones(5, 5, dtype=torch.bool)
    torch.testing.assert_close(made.superclass(probe, everything), made.explain(probe, "saliency"))
    torch.testing.assert_close(made.superclass(probe, everything, "posterior").sum((1, 2)), torch.full((4,), 5.0, dtype=torch.float64))
