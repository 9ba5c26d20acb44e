"""The same maps as pytorch-grad-cam, TorchCAM and Captum where they compute the same thing; elsewhere the deviation itself."""

import numpy as np
import pytest
import torch
import torchvision

from cam_core import load_classifier, maps
from cam_core.methods import METHODS
from cam_core.methods.gradient import layer_cam, refine_cam
from cam_core.methods.perturbation import is_cam, ss_cam
from cam_core.methods.pixel import _noisy, integrated_gradients, smooth_grad, var_grad
from cam_core.probe import Probe
from studies.peers import OTHERWISE

pytestmark = pytest.mark.oracle
pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed: make setup")
torchcam = pytest.importorskip("torchcam.methods", reason="torchcam is not installed: make setup")
attr = pytest.importorskip("captum.attr", reason="captum is not installed: make setup")

SIDE = 64


def built(name):
    """(classifier, the same network plain, its layer, normalised images, images, targets), random weights."""
    torch.manual_seed(0)
    classifier = load_classifier(name, weights=None, num_classes=10)
    network = classifier._network[0].eval()
    for module in network.modules():  # in-place operations behind the layer would change what the peers' hooks keep
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    if name == "densenet121":  # its last ReLU is an in-place function: no hook reaches it, and it overwrites what a hook before it keeps
        pooled = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), network.classifier)
        network = torch.nn.Sequential(network.features, torch.nn.ReLU(), *pooled).eval()
    layer = network.get_submodule({"resnet8": "layer3", "resnet18": "layer4", "vgg16": "features.29", "densenet121": "1"}[name])
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return classifier, network, layer, classifier.normalize(images), images, torch.tensor([3, 7])


@pytest.fixture(scope="module", params=["resnet18", "vgg16", "densenet121"])
def case(request):
    return built(request.param)


@pytest.fixture(scope="module")
def small():
    return built("resnet18")


@pytest.fixture(scope="module")
def few_channels():
    """ResNet-8 whose logits differ enough that a softmax over the channels chooses among them."""
    found = built("resnet8")
    with torch.no_grad():
        found[1].fc.weight *= 30
    return found


def peer(kind, case, **options):
    """A pytorch-grad-cam map before its resizing, [B,h,w]."""
    _, network, layer, inputs, _, targets = case
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(pytorch_grad_cam, kind)(model=network, target_layers=[layer], **options) as cam:
        cam.activations_and_grads(inputs)  # registers nothing new; makes the hooks' first pass
        chosen = [ClassifierOutputTarget(int(t)) for t in targets]
        logits = cam.activations_and_grads(inputs)
        network.zero_grad()
        sum(target(out) for target, out in zip(chosen, logits, strict=True)).backward()
        a, g = cam.activations_and_grads.activations[0].numpy(), cam.activations_and_grads.gradients[0].numpy()
        return torch.from_numpy(np.asarray(cam.get_cam_image(inputs, layer, chosen, a, g, eigen_smooth=False)))


def agree(ours, theirs, tolerance=1e-4):
    """Equal to a share of the range, after a rectification and a rescaling that both sides share."""
    ours, theirs = maps.min_max(ours.relu().double()), maps.min_max(theirs.relu().double())
    return float((ours - theirs).abs().max()) <= tolerance


@pytest.mark.parametrize(
    ("kind", "name"), [("GradCAM", "grad_cam"), ("XGradCAM", "xgrad_cam"), ("HiResCAM", "hires_cam"), ("LayerCAM", "layer_cam")]
)
def test_grad_cam_package_agrees(case, kind, name):
    classifier, _, _, _, images, targets = case
    assert agree(METHODS[name](Probe(classifier, images, targets)), peer(kind, case))


def test_it_rectifies_every_map_hires_cam_too(small):
    classifier, network, layer, inputs, images, targets = small
    from pytorch_grad_cam import HiResCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with HiResCAM(model=network, target_layers=[layer]) as cam:
        theirs = torch.from_numpy(cam(inputs, [ClassifierOutputTarget(int(t)) for t in targets]))
    probe = Probe(classifier, images, targets)

    def off(heat):
        return float((maps.min_max(maps.upsample(maps.min_max(heat), (SIDE, SIDE))) - theirs).abs().max())

    assert off(OTHERWISE["grad-cam: HiResCAM"](probe)) <= 1e-3
    assert off(METHODS["hires_cam"](probe)) > 0.1  # should this fail, signs are kept upstream


def test_its_grad_cam_pp_adds_an_epsilon_of_the_size_of_the_denominator(case):
    classifier, network, _, _, images, targets = case
    theirs, ours = peer("GradCAMPlusPlus", case), METHODS["grad_cam_pp"](Probe(classifier, images, targets))
    with_epsilon = OTHERWISE["grad-cam: GradCAMPlusPlus"](Probe(classifier, images, targets))
    assert agree(with_epsilon, theirs, 1e-3)  # this is what it computes
    if isinstance(network, torchvision.models.ResNet):
        assert not agree(ours, theirs, 1e-3)  # and not the paper's formula; should this fail, the epsilon is gone upstream


@pytest.mark.parametrize(("kind", "name"), [("GradCAM", "grad_cam"), ("XGradCAM", "xgrad_cam"), ("LayerCAM", "layer_cam")])
def test_torchcam_agrees(case, kind, name):
    classifier, network, layer, inputs, images, targets = case
    with getattr(torchcam, kind)(network, layer) as extractor:
        logits = network(inputs.clone().requires_grad_())
        theirs = extractor(targets.tolist(), logits)[0].detach()
    assert agree(METHODS[name](Probe(classifier, images, targets)), theirs)


def test_torchcam_cam_agrees_and_does_not_rectify(case):
    classifier, network, layer, inputs, images, targets = case
    if isinstance(network, torchvision.models.VGG):
        with pytest.raises(ValueError, match="use grad_cam"):  # three linear layers: torchcam refuses it, too
            METHODS["cam"](Probe(classifier, images, targets))
        return
    with torchcam.CAM(network, layer) as extractor, torch.no_grad():
        theirs = extractor(targets.tolist(), network(inputs))[0]
    ours = maps.min_max(METHODS["cam"](Probe(classifier, images, targets)))
    assert float((ours - theirs).abs().max()) <= 1e-4  # its formula has a ReLU that its code has not; should this fail, it has come


def test_torchcam_loses_the_denominator_of_grad_cam_pp(case):
    classifier, network, layer, inputs, images, targets = case
    with torchcam.GradCAMpp(network, layer) as extractor:
        logits = network(inputs.clone().requires_grad_())
        theirs = extractor(targets.tolist(), logits)[0].detach()
    probe = Probe(classifier, images, targets)
    assert agree(OTHERWISE["torchcam: GradCAMpp"](probe), theirs, 1e-3)  # should this fail, the division has come back upstream
    if isinstance(network, torchvision.models.ResNet):
        assert not agree(METHODS["grad_cam_pp"](probe), theirs, 1e-3)


def test_captum_agrees_and_does_not_rectify(case):
    classifier, network, layer, inputs, images, targets = case
    theirs = attr.LayerGradCam(network, layer).attribute(inputs, targets)[:, 0].detach()
    probe = Probe(classifier, images, targets)
    signed = OTHERWISE["captum: LayerGradCam"](probe)
    assert float(signed.min()) < 0
    assert torch.allclose(signed, theirs, rtol=1e-4, atol=1e-4 * float(signed.abs().max()))
    assert agree(METHODS["grad_cam"](probe), theirs)


# --- activations, ablation -----------------------------------------------------------------------------------------------------------


def test_its_eigen_cam_takes_the_means_off_and_leaves_the_sign_to_chance(case):
    classifier, _, _, _, images, targets = case
    theirs, ours = peer("EigenCAM", case), METHODS["eigen_cam[centred]"](Probe(classifier, images, targets))
    for a, b in zip(theirs.double(), ours.double(), strict=True):
        assert min(float((a - b).abs().max()), float((a + b).abs().max())) <= 1e-3 * float(b.abs().max())


def test_its_ablation_cam_agrees_where_the_logit_is_positive_and_turns_over_where_it_is_negative(small):
    classifier, network, layer, inputs, images, _ = small
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    logits = classifier(images)
    for pick, sign in ((logits.argmax(1), 1), (logits.argmin(1), -1)):
        assert bool((logits.gather(1, pick[:, None]) * sign > 0).all())  # else the case says nothing
        probe = Probe(classifier, images, pick)
        keep = 1 - torch.eye(512)
        without = probe.score_channels(keep.expand(2, -1, -1)).gather(2, pick[:, None, None].expand(-1, 512, 1))[..., 0]
        y = logits.gather(1, pick[:, None])
        with AblationCAM(model=network, target_layers=[layer]) as cam:
            a = probe.activations.numpy()
            chosen = [ClassifierOutputTarget(int(t)) for t in pick]
            weights = torch.from_numpy(np.asarray(cam.get_cam_weights(inputs, layer, chosen, a, None)))
        dead = probe.activations.amax((2, 3)) == 0
        want = (y - without) / y  # divided by y, not |y|: the maps of negative logits are turned over; a fix upstream breaks this
        assert torch.allclose(weights.reshape(want.shape)[~dead], want[~dead].float(), atol=1e-4 * float(want.abs().max()))
        ours = METHODS["ablation_cam"](probe)
        turned = torch.einsum("bk,bkhw->bhw", weights.reshape(want.shape), probe.activations)
        assert agree(ours, sign * turned)
        assert agree(OTHERWISE["grad-cam: AblationCAM"](probe), turned)


# --- the methods since ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("FEM", "fem[activations]"), ("GradCAMElementWise", "grad_cam_elementwise")])
def test_grad_cam_package_has_our_form(small, kind, name):
    classifier, _, _, _, images, targets = small
    assert agree(METHODS[name](Probe(classifier, images, targets)), peer(kind, small))


@pytest.mark.parametrize(("kind", "name"), [("KPCA_CAM", "kpca_cam"), ("EigenGradCAM", "eigen_grad_cam"), ("SegEigenCAM", "seg_eigen_cam")])
def test_grad_cam_package_has_our_components_with_any_sign(small, kind, name):
    classifier, _, _, _, images, targets = small
    theirs, ours = peer(kind, small), METHODS[name](Probe(classifier, images, targets))
    for a, b in zip(theirs.double(), ours.double(), strict=True):
        assert float((a - (a * b).sum().sign() * b).abs().max()) <= 1e-3 * float(b.abs().max())
        assert kind != "KPCA_CAM" or float((a * b).sum()) > 0  # scikit-learn turns the larger extreme up, as we do


def shown(heat):
    """A map as pytorch-grad-cam returns it."""
    return maps.min_max(maps.upsample(maps.min_max(heat), (SIDE, SIDE)))


def test_its_finer_cam_and_shapley_cam_are_ours(few_channels):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, FinerWeightedTarget

    classifier, network, layer, inputs, images, targets = few_channels
    probe = Probe(classifier, images, targets)
    near = (probe.logits - probe.of_target(probe.logits)[:, None]).abs().argsort(1)[:, 1:4].tolist()
    with pytorch_grad_cam.FinerCAM(network, [layer]) as cam:
        theirs = torch.from_numpy(cam(inputs, [FinerWeightedTarget(int(t), n, 1) for t, n in zip(targets, near, strict=True)]))
    assert float((shown(METHODS["finer_cam[softmax]"](probe)) - theirs).abs().max()) <= 1e-3
    assert float((shown(METHODS["finer_cam"](probe)) - theirs).abs().max()) > 0.01
    with pytorch_grad_cam.ShapleyCAM(network, [layer]) as cam:
        theirs = torch.from_numpy(cam(inputs, [ClassifierOutputReST(int(t)) for t in targets]))
    assert float((shown(METHODS["shapley_cam"](probe)) - theirs).abs().max()) <= 1e-3
    assert float((shown(METHODS["grad_cam"](probe)) - theirs).abs().max()) > 0.01


def test_torchcam_finer_cam_and_refine_cam_are_ours(few_channels):
    classifier, network, layer, inputs, images, targets = few_channels
    probe = Probe(classifier, images, targets)
    with torchcam.FinerCAM(network, layer) as extractor:
        theirs = extractor(targets.tolist(), network(inputs.clone().requires_grad_()))[0].detach()
    assert agree(METHODS["finer_cam"](probe), theirs)
    with torchcam.RefineCAM(network, ["layer1", "layer2", "layer3"], base_method=torchcam.LayerCAM) as extractor:
        theirs = extractor(targets.tolist(), network(inputs.clone().requires_grad_()))[0].detach()
    assert agree(refine_cam(probe, base=layer_cam), theirs)


def test_its_refine_cam_enlarges_the_maps_before_it_multiplies_them(few_channels):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    classifier, network, _, inputs, images, targets = few_channels
    layers = [network.layer1, network.layer2, network.layer3]
    cam = pytorch_grad_cam.RefineCAM(network, layers, base_method=pytorch_grad_cam.LayerCAM)
    theirs = torch.from_numpy(cam(inputs, [ClassifierOutputTarget(int(t)) for t in targets]))
    probe = Probe(classifier, images, targets)
    each = [shown(layer_cam(probe.at(name))) for name in ("layer1", "layer2", "layer3")]
    assert float((maps.min_max(torch.stack(each).prod(0)) - theirs).abs().max()) <= 1e-3
    assert float(maps.correlation(shown(refine_cam(probe, base=layer_cam)), theirs).min()) > 0.9


# --- masked images -------------------------------------------------------------------------------------------------------------------


def test_torchcam_score_cam_is_our_softmax_form_with_masks_rescaled_before_they_are_enlarged(small):
    classifier, network, layer, inputs, images, targets = small
    with torchcam.ScoreCAM(network, layer, batch_size=64) as extractor, torch.no_grad():
        theirs = extractor(targets.tolist(), network(inputs))[0]
    probe = Probe(classifier, images, targets)
    assert agree(OTHERWISE["torchcam: ScoreCAM"](probe), theirs, 1e-3)
    assert agree(METHODS["score_cam[softmax]"](probe), theirs, 5e-2)  # close, but for channels that are constant


def softmaxed(probe, changes):
    """Our SS-CAM and IS-CAM with the masks rescaled before they are enlarged, which is the one thing that TorchCAM does otherwise."""
    unit, size = maps.min_max(probe.activations), probe.images.shape[-2:]
    column = probe.targets[:, None, None].expand(-1, unit.shape[1], 1)
    logits = [probe.score_masked(unit, "mean", lambda m, c=c: c(maps.upsample(m, size))).gather(2, column)[..., 0] for c in changes]
    return torch.einsum("bk,bkhw->bhw", (sum(logits) / len(logits)).softmax(1), probe.activations)


def test_torchcam_is_cam_is_our_cumulative_form_with_masks_rescaled_before_they_are_enlarged(few_channels):
    classifier, network, layer, inputs, images, targets = few_channels
    with torchcam.ISCAM(network, layer, batch_size=64, num_samples=4) as extractor, torch.no_grad():
        theirs = extractor(targets.tolist(), network(inputs))[0]
    probe = Probe(classifier, images, targets)
    assert agree(softmaxed(probe, [lambda m, f=f: f * m for f in (0.25, 0.75, 1.5, 2.5)]), theirs, 1e-3)
    ours, even = (is_cam(probe, samples=4, cumulative=cumulative) for cumulative in (True, False))
    assert not agree(ours, theirs, 1e-3)  # should this fail, masks are rescaled last upstream
    assert agree(ours, theirs, 0.1)
    assert not agree(even, theirs, 0.1)


def test_torchcam_ss_cam_is_ours_under_the_same_noise_with_masks_rescaled_before_they_are_enlarged(few_channels):
    classifier, network, layer, inputs, images, targets = few_channels
    noise = list(2 * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float())
    drawn = iter(noise)
    with torchcam.SSCAM(network, layer, batch_size=64, num_samples=3) as extractor, torch.no_grad():
        extractor._distrib.sample = lambda size: next(drawn).expand(size)  # its own noise differs between channels and images
        theirs = extractor(targets.tolist(), network(inputs))[0]
    probe = Probe(classifier, images, targets)
    assert agree(softmaxed(probe, [lambda m, n=n: m + n for n in noise]), theirs, 1e-3)
    assert float(maps.correlation(ss_cam(probe, samples=3), theirs).min()) > 0.999


def test_weights_of_grad_cam_package_are_ours_on_every_network(case):
    classifier, network, layer, inputs, images, _ = case
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = classifier(images).argmax(1)
    probe, few = Probe(classifier, images, targets), 24  # channels: their loop passes the whole network for each
    chosen, a = [ClassifierOutputTarget(int(t)) for t in targets], probe.activations[:, :few]
    column = targets[:, None, None].expand(-1, few, 1)
    theirs = {}
    for kind in ("AblationCAM", "ScoreCAM"):
        with getattr(pytorch_grad_cam, kind)(model=network, target_layers=[layer]) as cam:
            theirs[kind] = torch.from_numpy(np.asarray(cam.get_cam_weights(inputs, layer, chosen, a.numpy(), None))).reshape(2, few)
    without = probe.score_channels(1 - torch.eye(probe.activations.shape[1])[:few].expand(2, -1, -1)).gather(2, column)[..., 0]
    y = probe.logits.gather(1, targets[:, None])
    drop = (y - without) / y
    assert float(drop.abs().max()) > 0
    assert torch.allclose(theirs["AblationCAM"], drop, atol=1e-3 * float(drop.abs().max()))
    picked = probe.score_masked(a, "mean", aligned).gather(2, column)[..., 0].softmax(1)
    assert torch.allclose(theirs["ScoreCAM"], picked, atol=1e-4 * float(picked.max()))


def aligned(mask):
    """A mask at image size as pytorch-grad-cam makes it."""
    large = torch.nn.functional.interpolate(mask[:, None], (SIDE, SIDE), mode="bilinear", align_corners=True)[:, 0]
    return maps.min_max(large)


def test_grad_cam_score_cam_enlarges_masks_with_aligned_corners(small):
    classifier, _, _, _, images, targets = small
    assert agree(OTHERWISE["grad-cam: ScoreCAM"](Probe(classifier, images, targets)), peer("ScoreCAM", small), 1e-3)


# --- pixels --------------------------------------------------------------------------------------------------------------------------


def test_captum_integrated_gradients_agree(case):
    classifier, network, _, inputs, images, targets = case
    theirs = attr.IntegratedGradients(network).attribute(inputs, 0, targets, n_steps=20, method="gausslegendre").sum(1).detach()
    ours = integrated_gradients(Probe(classifier, images, targets), steps=20)
    off = (ours - theirs).abs() / theirs.abs().max()
    assert float(off.mean()) <= 1e-5
    assert float(off.max()) <= 2e-3  # rounding turns single ReLUs of a deep network on or off


def test_captum_saliency_and_guided_backprop_agree(case):
    classifier, network, _, inputs, images, targets = case
    probe = Probe(classifier, images, targets)
    plain = attr.Saliency(network).attribute(inputs.clone(), targets).amax(1).detach()
    assert torch.allclose(METHODS["saliency"](probe), plain, atol=1e-4 * float(plain.max()))
    guided = attr.GuidedBackprop(network).attribute(inputs.clone(), targets).abs().amax(1).detach()
    assert torch.allclose(METHODS["guided_backprop"](probe), guided, atol=1e-4 * float(guided.max()))


def test_captum_smooth_grad_and_var_grad_agree_under_the_same_noise(small, monkeypatch):
    classifier, network, _, inputs, images, targets = small
    probe = Probe(classifier, images[:1], targets[:1])
    noise = torch.cat(list(_noisy(probe, 3, 0.15, 0))) - inputs[:1]
    assert float(noise.std() / (inputs[:1].max() - inputs[:1].min())) == pytest.approx(0.15, rel=0.03)
    monkeypatch.setattr(torch, "normal", lambda *_args, **_kwargs: noise)
    tunnel = attr.NoiseTunnel(attr.Saliency(network))
    how = {"nt_samples": 3, "stdevs": 1.0, "target": int(targets[0]), "abs": False}
    smooth, spread = (tunnel.attribute(inputs[:1].clone(), nt_type=kind, **how).detach() for kind in ("smoothgrad", "vargrad"))
    for ours, theirs in ((smooth_grad(probe, samples=3), smooth.abs().amax(1)), (var_grad(probe, samples=3), spread.amax(1))):
        assert float(theirs.max()) > 0
        assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.max()))
