"""Every way of calibrating is measured, on the same maps, and a map's unit counts only where nothing takes it away."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cam_core import METHODS, Probe, maps, metrics
from cam_core.classifier import linear_head
from cam_core.evaluate import evaluate
from cam_core.learned import Calm, lfi_backbone
from cam_core.metrics.cues import CALIBRATIONS, PARTS, THRESHOLDS, VARIANTS, bird_in_view
from data_scripts.draw import draw
from reproduce import sources
from studies import calibration
from tests.metrics.test_cues import CALIBRATE, EDGES, released_evaluator

COUNT = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = draw(tmp_path_factory.mktemp("data") / "drawn", small=True, processes=1, progress=False)
    return sources.images("drawn_cub", root, limit=COUNT)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return lfi_backbone("resnet8", 10).eval()


@pytest.fixture(scope="module")
def frame(data, network):
    louder = replace(METHODS["cam"], name="louder", function=lambda probe: 1000 * METHODS["cam"](probe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "RESAMPLES", 20)
        return calibration.calibrated("plain", network, data, [METHODS["cam"], louder], progress=False)


def test_every_way_stands_there_once(frame):
    ways = set(zip(frame.method, frame.calibration, frame.thresholds, frame.variant, strict=True))
    assert len(frame) == len(ways) == 2 * len(CALIBRATIONS) * len(THRESHOLDS) * len(VARIANTS)
    assert (frame.ci_low <= frame.ci_high).all()
    assert set(frame.metric) == {"cue_localization"}


def test_a_louder_map_is_another_one_only_under_clipping(frame):
    values = frame.set_index(["method", "calibration", "thresholds", "variant"])["value"]
    for way in values["cam"].index:
        same = values["louder"][way] == pytest.approx(values["cam"][way], rel=1e-2)
        assert same == (way[0] != "clipping"), way


def test_the_usual_way_is_what_thresholds_one_by_one_give(frame, data, network):
    birds, positives = data("squash"), {}
    for index in range(COUNT):
        example = birds[index]
        heat = METHODS["cam"].class_maps(Probe(network.frozen(), example.image[None]))[0]
        bird = bird_in_view(example.official_mask, example.image.shape[1:])
        _, cells, visible = metrics.cue(example.label, example.parts, bird)
        for pair in metrics.class_pairs(birds.class_attributes, birds.attribute_names):
            if example.label in pair[:2] and pair.parts & visible:
                score = maps.min_max(maps.upsample((heat[pair.first] - heat[pair.second]), cells.shape).abs()).double().numpy()
                truth = np.isin(cells.numpy(), [PARTS.index(part) for part in pair.parts])
                positives.setdefault(pair, []).append((score.ravel(), truth.ravel()))
    precisions = []
    for found in positives.values():
        score, truth = (np.concatenate(part) for part in zip(*found, strict=True))
        total, recall = 0.0, 0.0
        for threshold in np.arange(0, 1, 0.001)[::-1]:
            taken = score >= threshold
            if taken.any():
                hits = (taken & truth).sum()
                total += hits / taken.sum() * (hits / truth.sum() - recall)
                recall = hits / truth.sum()
        precisions.append(100 * total)
    usual = frame[
        (frame.method == "cam") & (frame.calibration == "min_max") & (frame.thresholds == "even") & (frame.variant == "zeros kept")
    ]
    assert usual.value.item() == pytest.approx(np.mean(precisions), abs=0.05)
    assert usual.pairs.item() == len(precisions)


def test_the_released_script_on_drawn_birds(data, network):
    """From files to the printed number: segmentations through Pillow, CAM with the bias, an evaluator that is never reset."""
    birds, heats, cues = data("squash"), [], []
    for index in range(COUNT):
        example, last = birds[index], linear_head(network, 64)
        activations = Probe(network.frozen(), example.image[None]).activations[0]
        f = torch.einsum("ck,khw->chw", last.weight, activations).detach() + last.bias.detach()[:, None, None]
        heats.append(maps.upsample(f, example.image.shape[1:]))
        mask = Image.open(birds.annotations[index].segmentation).convert("L").resize(example.image.shape[:0:-1])  # Pillow's own filter
        cues.append(metrics.cue(example.label, example.parts, torch.from_numpy(np.array(mask) > 0)))
    pairs = metrics.class_pairs(birds.class_attributes, birds.attribute_names)
    pairs = [pair for pair in pairs if any(one.label in pair[:2] and pair.parts & one.visible for one in cues)]
    printed = released_evaluator(pairs, torch.stack(heats), cues, EDGES["even"], CALIBRATE["min_max"])
    wanted = metrics.CueLocalization(pairs, variant="released")
    table = evaluate(network, data, [METHODS["cam[calm]"], METHODS["cam"]], [wanted], progress=False)
    ours, without = (table.metrics[name, wanted.name, wanted.setting].compute() for name in ("cam[calm]", "cam"))
    assert ours == pytest.approx(np.mean(printed), abs=0.01)
    assert without != pytest.approx(ours, abs=0.1)


def test_calm_shows_the_joint_and_the_posterior(data, network):
    torch.manual_seed(1)
    model = Calm(network, 10, uniform=True).eval()
    joint, posterior = calibration.joint_and_posterior("calm_em", model)
    probe = Probe(model.classifier, data("squash")[0].image[None])
    sums = joint.class_maps(probe).sum((2, 3), keepdim=True)
    torch.testing.assert_close(joint.class_maps(probe) / sums, posterior.class_maps(probe))
    torch.testing.assert_close(sums[:, :, 0, 0], probe.probabilities.float())
