"""What all faithfulness metrics share: batches move nothing, the protocol says what is hidden, NaN is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cam_core import METHODS, maps, metrics
from cam_core.probe import Probe
from cam_core.protocol import PROTOCOLS, finish
from tests.nets import dense, images

KINDS = {
    **{f"{kind.name} 2 {protocol}": (lambda k=kind, p=protocol: k(0.5, "mean", p)) for kind in (metrics.AverageDrop, metrics.AverageGain)
       for protocol in ("l_cam", "score_cam")},
    **{kind.name: kind for kind in (
        metrics.Insertion, metrics.Deletion, metrics.TiedPixels, metrics.RemoveAndClassify, metrics.CorrectAfterRemoval,
        metrics.CorrectAfterRandomRemoval, metrics.RoadMorf, metrics.RoadLerf, metrics.RoadCombined, metrics.Coherency, metrics.Complexity,
        metrics.ADCC, metrics.SensitivityN, metrics.Infidelity, metrics.MaxSensitivity)},
    "top-1 under the mask": metrics.CorrectUnderMask,
    "top-2 under the mask": lambda: metrics.CorrectUnderMask(0.5, 2, fill="mean"),
    "removal, blurred": lambda: metrics.RemoveAndClassify(fill="blur"),
    "removal, noise": lambda: metrics.RemoveAndClassify(fill="noise"),
    "adcc of means": lambda: metrics.ADCC("means"),
    "infidelity as it is": lambda: metrics.Infidelity(scaled=False),
}  # fmt: skip


def explain_for(metric):
    finishing = PROTOCOLS[metric.protocol].finishing

    def explain(probe):
        size = probe.activations.shape[-2:] if finishing == "cells" else probe.images.shape[-2:]
        return finish(METHODS["grad_cam"](probe), size, finishing)

    return explain


def needed(metric, probe):
    more = {"method": lambda: (explain_for(metric),), "label": lambda: (probe.targets,)}
    return (probe, *more.get(metric.needs, tuple)())


@pytest.mark.parametrize("kind", KINDS)
def test_images_one_by_one_give_what_the_batch_gives(kind):
    classifier, batch = dense(), images(3)
    whole, single = KINDS[kind](), KINDS[kind]()
    probe = Probe(classifier, batch)
    heat = explain_for(whole)(probe)
    whole.update(heat, *needed(whole, probe))
    for i in range(3):
        one = Probe(classifier, batch[i : i + 1])
        single.update(heat[i : i + 1], *needed(single, one), ids=[i])
    assert single.per_image()[1] == pytest.approx(whole.per_image()[1], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_constant_maps_give_a_number_and_nan_is_refused(kind):
    probe, metric = Probe(dense(), images(2)), KINDS[kind]()
    size = (8, 8) if metric.protocol == "cells" else (16, 16)
    for constant in (0.0, 1.0):
        metric.update(torch.full((2, *size), constant, dtype=torch.float64), *needed(metric, probe))
    assert np.isfinite(metric.compute())
    bad = torch.zeros(2, *size)
    bad[1, 2, 2] = float("nan")
    with pytest.raises(ValueError, match=f"{metric.name}: a map contains NaN or infinity"):
        metric.update(bad, *needed(metric, probe))


def test_names_settings_and_protocols_tell_all_numbers_apart():
    every = [make() for make in KINDS.values()]
    assert all(metric.protocol in PROTOCOLS and metric.needs in ("probe", "method", "label") for metric in every)
    assert len({(metric.name, metric.setting) for metric in every}) == len(every)
    assert metrics.AverageDrop(0.5, protocol="score_cam").setting == metrics.AverageDrop(0.5, "mean", "score_cam").setting
    assert metrics.AverageDrop(0.5, "mean", "score_cam").setting == "50% mean fill score_cam"
    assert metrics.AverageDrop(0.5, "black", "score_cam").setting == "50% score_cam"
    for metric in every:
        hash(metric.shares)


HIDING = {name: kind for name, kind in KINDS.items()
          if not name.startswith(("insertion", "tied", "max_sens", "removal", "top-2", "average"))} | {
    f"{kind.name} {protocol}": (lambda k=kind, p=protocol: k(0.5, protocol=p))
    for kind in (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.AverageGain, metrics.MapMean)
    for protocol in ("score_cam", "adcc", "rise")
} | {"average_drop": metrics.AverageDrop, "map_mean": metrics.MapMean}  # fmt: skip


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("kind", HIDING)
def test_what_is_hidden_has_the_protocols_colour(kind, swapped, monkeypatch):
    """After normalisation the mean colour is 0; all the network sees while it is measured holds this one or black, and not the other.

    Swapped: where the protocol says the other colour, there is no second place that still says the first.
    """
    if swapped:
        own = PROTOCOLS[HIDING[kind]().protocol]
        other = {"mean": "black", "black": "mean"}.get(own.fill, own.fill)
        monkeypatch.setitem(PROTOCOLS, own.name, replace(own, fill=other))
    classifier, seen, metric = dense(), [], HIDING[kind]()
    probe = Probe(classifier, images(2))
    heat, _ = explain_for(metric)(probe), probe.logits
    classifier.trunk.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    metric.measure(heat, *needed(metric, probe))
    pixels = torch.cat(seen).movedim(1, 3).reshape(-1, 3)
    colours = {"mean": torch.zeros(3), "black": (-classifier.mean / classifier.std).flatten()}
    found = {name for name, colour in colours.items() if float((pixels - colour).abs().amax(1).min()) < 1e-9}
    assert found == {PROTOCOLS[metric.protocol].fill} - {"imputed"}


def test_a_protocol_without_a_fill_masks_nothing():
    with pytest.raises(ValueError, match="map_mean: the protocol 'energy' has no fill for masked pixels; pass fill="):
        metrics.MapMean(protocol="energy")


def test_score_cams_form_mutes_exactly_half_of_the_pixels():
    """On distinct values the lowest half, to the pixel, is what the network does not see; the others stay soft."""
    heat = (torch.randperm(256, generator=torch.Generator().manual_seed(0)) + 1).reshape(1, 16, 16).double() / 256
    classifier, batch = dense(), images(1)
    probe, metric = Probe(classifier, batch), metrics.AverageDrop(0.5, protocol="score_cam")
    rows = metric.measure(heat, probe)
    soft = torch.where(heat > 128 / 256, heat, 0.0)
    masked = classifier.normalize(batch) * soft[:, None]  # the normalised image times the map
    after = classifier.scores(masked).detach().softmax(1)[0, probe.targets[0]]
    assert float(rows[0, 1]) == pytest.approx(float(after), rel=1e-6)
    assert float(rows[0, 2]) == pytest.approx(float(soft.mean()))


def test_average_gain_of_the_nearly_certain():
    """1 - Y stays exact where float32 probabilities are 1; what cannot gain at all is left out; a fall is no gain."""
    gain = metrics.AverageGain()
    tiny = 2.0**-40
    gain.record(torch.tensor([[1 - tiny, 1 - tiny / 2, 0.1], [1.0, 1.0, 0.1], [0.5, 0.4, 0.1]], dtype=torch.float64))
    assert gain.compute() == pytest.approx(100 * (0.5 + 0) / 2)
    certain = metrics.AverageGain()
    certain.record(torch.tensor([[1.0, 0.3, 0.5]]))
    assert certain.compute() == 0


def test_wins_and_ties():
    first, second = metrics.AverageDrop(), metrics.AverageDrop()
    first.record(torch.tensor([[0.8, 0.4, 0], [0.5, 0.6, 0], [0.5, 0.1, 0], [0.6, 0.6, 0]]), [0, 1, 2, 3])
    second.record(torch.tensor([[0.8, 0.2, 0], [0.5, 0.9, 0], [0.5, 0.4, 0], [0.6, 0.3, 0], [0.9, 0.1, 0]]), [0, 1, 2, 3, 4])
    found = metrics.wins(first, second)
    assert (found.value, found.ties, found.n) == (50, 25, 4)  # smaller, both rise (a tie at 0), larger, smaller; the fifth is not shared
    assert (found.low, found.high) == pytest.approx(metrics.statistics.wilson(2, 4))
    other = metrics.wins(second, first)
    assert found.value + other.value + found.ties == 100
    with pytest.raises(ValueError, match="measured at 100% and the other at 50%"):
        metrics.wins(first, metrics.AverageDrop(0.5))


def test_finishings():
    raw = torch.rand(2, 4, 4, dtype=torch.float64)
    after = finish(raw, (16, 16), "bilinear_min_max")
    assert torch.equal(after, maps.min_max(maps.upsample(raw, (16, 16))))
    assert not torch.allclose(after, finish(raw, (16, 16), "min_max_bilinear"))
    assert finish(raw, (4, 4), "cells") is raw
    blocks = raw.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert torch.allclose(finish(blocks, (4, 4), "cells"), raw)
    with pytest.raises(ValueError, match="unknown finishing 'cubic'"):
        finish(raw, (4, 4), "cubic")
