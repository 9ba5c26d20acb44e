"""Data x methods x metrics on drawn images: shared passes, targets, limits, and the same numbers as by hand."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from cam_core import METHODS, Probe, engine, maps, metrics
from cam_core.data import CUB200, VOC2007, ImageNet, inclusive_boxes
from cam_core.evaluate import at_equal_mean, evaluate
from cam_core.kept import Kept
from cam_core.learned import lfi_backbone
from cam_core.methods import Method, method
from cam_core.table import Table
from data_scripts.draw import draw
from reproduce.accuracy import Accuracy, MeanAveragePrecision, best_on_test, network_table
from tests import nets, second_device
from tests.metrics.test_pixels import official_pxap


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "drawn", small=True, progress=False)


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return lfi_backbone("resnet8", 8).eval()


def imagenet(root, limit=6):
    return lambda view: ImageNet(root, "val", view, 64, limit)


def test_the_table_holds_what_the_metrics_give_by_hand(root, classifier):
    measured = [metrics.AverageDrop(0.5), metrics.IncreaseInConfidence(0.5), metrics.EnergyPointingGame()]
    table = evaluate(classifier, imagenet(root), [METHODS["grad_cam"]], measured, batch_size=4, progress=False)
    records = table.records().set_index("metric")
    frozen = classifier.frozen()
    drops, energy = [], []
    for index in range(6):
        crop, squash = ImageNet(root, "val", "crop", 64)[index], ImageNet(root, "val", "squash", 64)[index]
        probe = Probe(frozen, crop.image[None])
        heat = maps.top_fraction(maps.upsample(maps.min_max(METHODS["grad_cam"](probe)), (64, 64)), 0.5)
        before = frozen(crop.image[None]).softmax(1)[0, probe.targets[0]]
        after = frozen(heat * crop.image[None]).softmax(1)[0, probe.targets[0]]
        drops.append(float((before - after).clamp(min=0) / before))
        heat = maps.upsample(maps.min_max(METHODS["grad_cam"](Probe(frozen, squash.image[None]))), (64, 64))[0]
        inside = torch.zeros(64, 64, dtype=torch.bool)
        for x0, y0, x1, y1 in inclusive_boxes(squash.boxes).tolist():
            inside[y0 : y1 + 1, x0 : x1 + 1] = True
        energy.append(float(heat[inside].sum() / heat.sum()))
    assert records.loc["average_drop", "value"] == pytest.approx(100 * sum(drops) / 6, rel=1e-3, abs=1e-4)
    assert records.loc["energy_pointing_game", "value"] == pytest.approx(100 * sum(energy) / 6, rel=1e-4)
    assert set(records["n"]) == {6}


def test_metrics_that_share_a_measure_share_the_masked_pass(root, classifier):
    passes = []

    def counting(fraction_metrics):
        passes.clear()
        original = Probe.score_masked

        def counted(self, *args, **options):
            passes.append(1)
            return original(self, *args, **options)

        Probe.score_masked = counted
        try:
            evaluate(classifier, imagenet(root, 4), [METHODS["grad_cam"]], fraction_metrics, batch_size=4, progress=False)
        finally:
            Probe.score_masked = original
        return len(passes)

    one = counting([metrics.AverageDrop(0.5)])
    three = counting([metrics.AverageDrop(0.5), metrics.IncreaseInConfidence(0.5), metrics.MapMean(0.5)])
    beside = counting([metrics.AverageDrop(0.5), metrics.CorrectUnderMask(0.5), metrics.CorrectUnderMask(0.5, 5)])
    assert one == three == beside == 1


def test_methods_of_one_target_share_one_gradient(root, classifier):
    """Three methods, two rules of the target: one backward pass through the head for each batch and its classes."""
    backward, differentiate = [], Probe._differentiate

    def counted(self, **options):
        backward.append(self.targets.tolist())
        return differentiate(self, **options)

    chosen = [METHODS[name] for name in ("grad_cam", "layer_cam", "hires_cam")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Probe, "_differentiate", counted)
        evaluate(classifier, imagenet(root), chosen, [metrics.AverageDrop()], batch_size=3, progress=False)
        assert len(backward) == 2
        backward.clear()
        measured = [metrics.EnergyPointingGame(), metrics.MaxBoxAccV2()]  # of the prediction, and of the label
        evaluate(classifier, imagenet(root), chosen, measured, batch_size=3, limits={"layer_cam": 4}, progress=False)
    labels = [item.label for item in imagenet(root)("squash").annotations]
    images = torch.stack([imagenet(root)("squash")[i].image for i in range(6)])
    said = Probe(classifier.frozen(), images).targets.tolist()
    asked = {(start, *targets[start:end]) for targets in (labels, said) for start, end in ((0, 3), (3, 6), (3, 4))}
    assert len(backward) == len(asked)  # the limited method sees one image of the second batch


def test_two_metrics_of_one_name_and_setting_are_refused(root, classifier):
    doubled = [metrics.EnergyPointingGame(), metrics.EnergyPointingGame("energy_present")]
    with pytest.raises(ValueError, match="2 metrics are called energy_pointing_game '', their rows would be mixed"):
        evaluate(classifier, imagenet(root), [METHODS["cam"]], doubled, progress=False)


def test_seconds_are_those_of_all_batches(root, classifier, monkeypatch):
    clock = iter([0, 4, 10, 12.5])  # four seconds for the two images of the first batch, two and a half for the one of the second
    monkeypatch.setattr("cam_core.evaluate.time.perf_counter", lambda: next(clock))
    table = evaluate(classifier, imagenet(root, 3), [METHODS["cam"]], [metrics.AverageDrop()], batch_size=2, progress=False)
    assert table.seconds == {"cam": 6.5 / 3}


@pytest.mark.parametrize("kind", [metrics.EnergyPointingGame, metrics.MaximumInBox, metrics.MaxBoxAcc, metrics.BoxIoU])
def test_a_batch_in_which_no_image_has_a_box_is_left_out(kind, root, classifier):
    def data(view):
        dataset = imagenet(root, 3)(view)
        for item in dataset.annotations[:2]:
            item.boxes, item.box_labels, item.official_boxes = item.boxes[:0], item.box_labels[:0], item.official_boxes[:0]
        return dataset

    table = evaluate(classifier, data, [METHODS["cam"]], [kind()], batch_size=2, progress=False)
    (metric,) = table.metrics.values()
    assert metric.per_image()[0].tolist() == [2]


def test_top_k_under_the_mask_gets_the_labels_of_the_examples(root, classifier):
    measured = [metrics.AverageDrop(), *(metrics.CorrectUnderMask(k=k) for k in (1, 3))]
    table = evaluate(classifier, imagenet(root), [METHODS["grad_cam"]], measured, batch_size=4, progress=False)
    data, places = imagenet(root)("crop"), []
    for i in range(len(data)):
        probe = Probe(classifier.frozen(), data[i].image[None])
        heat = maps.upsample(maps.min_max(METHODS["grad_cam"](probe)), (64, 64))
        order = probe.score_masked(heat[:, None])[0, 0].argsort(descending=True).tolist()
        places.append(order.index(data[i].label))
    for k in (1, 3):
        found = table.metrics["grad_cam", f"top_{k}_masked", "100%"]
        assert found.compute() == pytest.approx(100 * sum(place < k for place in places) / len(places))
        assert found.per_image()[1][:, 3].tolist() == places
    assert len(set(places)) > 1


def test_a_limited_method_runs_on_the_first_images_and_is_compared_there(root, classifier):
    chosen = [METHODS["grad_cam"], METHODS["score_cam"]]
    table = evaluate(classifier, imagenet(root), chosen, [metrics.AverageDrop()], limits={"score_cam": 3}, batch_size=2, progress=False)
    counts = table.records().query("metric == 'average_drop'").set_index("method")["n"]
    assert counts.to_dict() == {"grad_cam": 6, "score_cam": 3}
    assert table.difference("score_cam", "grad_cam", "average_drop", "100%").n == 3
    first = table.records(first=3).set_index("method")
    assert set(first["n"]) == {3}
    assert (
        first.loc["score_cam", "value"] == table.records().query("metric == 'average_drop'").set_index("method").loc["score_cam", "value"]
    )


def test_every_present_class_is_explained(root):
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", 6).eval()
    data = lambda view: VOC2007(root, "test", view, 64, 5)  # noqa: E731
    pairs = [(i, c) for i in range(5) for c in data("squash").present(i)]
    asked = []

    def spy(probe):
        asked.extend(probe.targets.tolist())
        return METHODS["grad_cam"](probe)

    measured = [metrics.PointingGame(), metrics.EnergyPointingGame("energy_present")]
    table = evaluate(classifier, data, [Method("spy", spy, "", 0, "1")], measured, batch_size=2, progress=False)
    assert asked == [c for _, c in pairs]
    assert set(table.records().query("metric != 'empty_maps'")["n"]) == {len(pairs)}
    ids, rows = table.metrics["spy", "pointing_game", "15px"].per_image()
    assert [(int(i) // 1000, int(r[0])) for i, r in zip(ids, rows, strict=True)] == pairs


def test_an_image_of_difficult_objects_alone_asks_nothing(root):
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", 6).eval()
    measured = [metrics.PointingGame(), metrics.EnergyPointingGame("energy_present"), metrics.AverageDrop()]

    def counts(hard, batch_size=1):
        def data(view):
            dataset = VOC2007(root, "test", view, 64, 4)
            for index in hard:
                dataset.annotations[index].difficult = torch.ones_like(dataset.annotations[index].difficult)
            return dataset

        records = evaluate(classifier, data, [METHODS["grad_cam"]], measured, batch_size=batch_size, progress=False).records()
        return data("squash"), records.query("metric != 'empty_maps'").set_index("metric")["n"].to_dict()

    for batch_size in (1, 2):
        dataset, n = counts([0, 3], batch_size)
        assert dataset.present(0) == []
        assert n == {
            "pointing_game": (left := len(dataset.present(1)) + len(dataset.present(2))),
            "energy_pointing_game": left,
            "average_drop": 4,
        }
    with pytest.warns(UserWarning, match="pointing_game is left out: VOC2007 test has no object that is not flagged difficult"):
        _, n = counts(range(4))
    assert n == {"average_drop": 4}


@pytest.mark.parametrize("name", ["ImageNet", "VOC2007", "CUB200"])
def test_on_another_device_nothing_meets_the_cpu_and_no_number_moves(name, root, monkeypatch):
    kind, split = {"ImageNet": (ImageNet, "val"), "VOC2007": (VOC2007, "test"), "CUB200": (CUB200, "test")}[name]
    data = lambda view: kind(root, split, view, 64, 3)  # noqa: E731
    measured = {
        "ImageNet": [
            *(metrics.AverageDrop(0.5), metrics.MapMean(protocol="score_cam"), metrics.Insertion(), metrics.Deletion()),
            *(metrics.TiedPixels(), metrics.RemoveAndClassify(), metrics.RoadCombined(), metrics.ADCC(), metrics.SensitivityN()),
            *(metrics.Infidelity(), metrics.MaxSensitivity(samples=1), metrics.EnergyPointingGame(), metrics.MaxBoxAccV2()),
            *(metrics.LocalizationError(0.2, top1=True), metrics.BoxIoU(0.2)),
        ],
        "VOC2007": [metrics.PointingGame(), metrics.EnergyPointingGame("energy_present")],
        "CUB200": [
            metrics.PxAP(),
            metrics.FalseActivation(0.5),
            metrics.CueLocalization([metrics.ClassPair(0, 1, frozenset({"head", "belly", "back"}))]),
        ],
    }[name]
    chosen = [METHODS[one] for one in ("grad_cam", "cam", "random_map", "center_gaussian", "saliency")] + [METHODS["grad_cam"].at_mean(0.3)]
    torch.manual_seed(0)
    network = lfi_backbone("resnet8", len(data("squash").classes)).eval()
    options = {"limits": {"cam": 2}, "batch_size": 2, "progress": False}
    want = evaluate(network, data, chosen, measured, **options).records()
    alone = network_table(network, data("squash")).records() if name == "ImageNet" else want
    with second_device.in_use(monkeypatch):
        there = second_device.moved(network)
        got = evaluate(there, data, chosen, measured, **options).records()
        also = network_table(there, data("squash")).records() if name == "ImageNet" else got
    for one, other in ((want, got), (alone, also)):
        assert one["value"].to_numpy() == pytest.approx(
            other["value"].to_numpy(), rel=1e-3, abs=0.1
        )  # two pixels of a map of 64 x 64 may tie
        assert one.drop(columns=["value", "ci_low", "ci_high"]).equals(other.drop(columns=["value", "ci_low", "ci_high"]))


def test_the_batch_size_moves_no_number(root, classifier):
    chosen, measured = [method("grad_cam"), method("random_map")], [metrics.MaxBoxAccV2(), metrics.AverageDrop()]
    one, four = (evaluate(classifier, imagenet(root), chosen, measured, batch_size=b, progress=False).records() for b in (1, 4))
    assert (one["value"] - four["value"]).abs().max() < 1e-3


def test_a_network_alone_is_recorded_with_its_interval(root, classifier, monkeypatch):
    whole = network_table(classifier, imagenet(root)("squash"))
    row = whole.records().iloc[0]
    assert row["metric"] == "accuracy"
    assert row["ci_low"] <= row["value"] <= row["ci_high"]
    monkeypatch.setattr("reproduce.accuracy.BLOCK", 3)  # decoded in parts, all the same
    in_parts = network_table(classifier, imagenet(root)("squash"))
    assert in_parts.records().iloc[0].equals(row)
    [some], [all_at_once] = in_parts.per_image(), whole.per_image()
    assert some.equals(all_at_once)
    with pytest.raises(ValueError, match="take VOC2007"):
        evaluate(classifier, imagenet(root), [METHODS["cam"]], [metrics.PointingGame()], progress=False)


def test_the_best_on_test_is_a_row_beside_the_accuracy_without_an_interval(root, classifier):
    rows = best_on_test("lfi_cam", {"best_on_test": {"epoch": 3, "accuracy": 87.5, "n": 40}})
    assert list(rows.columns) == list(network_table(classifier, imagenet(root)("squash")).records().columns)
    assert rows[["ci_low", "ci_high"]].isna().all(axis=None)
    (row,) = rows.drop(columns=["ci_low", "ci_high"]).to_dict("records")
    told = {"protocol": "network", "method": "lfi_cam", "metric": "accuracy", "setting": "best on test", "value": 87.5, "n": 40}
    assert row == told


def test_what_explains_again_gets_the_method_and_finished_maps(root, classifier):
    measured = [metrics.Coherency(), metrics.ADCC(), metrics.MaxSensitivity(samples=1), metrics.Infidelity(), metrics.SensitivityN()]
    chosen = [METHODS["grad_cam"], METHODS["center_gaussian"], METHODS["saliency"]]
    table = evaluate(classifier, imagenet(root, 2), chosen, measured, batch_size=2, progress=False)
    frozen, image = classifier.frozen(), ImageNet(root, "val", "crop", 64)[0].image[None]
    probe = Probe(frozen, image)
    explain = lambda p: maps.upsample(maps.min_max(METHODS["grad_cam"](p)), (64, 64))  # noqa: E731
    by_hand = metrics.Coherency().measure(explain(probe), probe, explain)
    assert table.metrics["grad_cam", "coherency", ""].per_image()[1][0] == pytest.approx(by_hand[0].numpy(), rel=1e-3, abs=1e-4)
    assert table.metrics["center_gaussian", "coherency", ""].compute() == pytest.approx(100)  # it never moves
    assert table.metrics["center_gaussian", "max_sensitivity", "radius 0.02 1 samples"].compute() == 0
    cells = METHODS["grad_cam"](probe)
    found = table.metrics["grad_cam", "infidelity", "scaled"].per_image()[1][0]
    assert found == pytest.approx(metrics.Infidelity().measure(cells, probe)[0].numpy(), rel=1e-2, abs=1e-6)
    assert len(table.records()) == 3 * (len(measured) + 2)  # and the counts of empty maps under two protocols


def test_what_no_map_changes_is_measured_once_for_all_methods(root, classifier):
    passes = []

    class Counting(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            passes.append(len(x))
            return self.inner(x)

    def images_passed(methods):
        passes.clear()
        counted = classifier.frozen()
        counted.trunk = Counting(counted.trunk).eval()
        counted.frozen = lambda: counted
        table = evaluate(counted, imagenet(root, 4), methods, [metrics.RemoveAndClassify(0.5)], batch_size=4, progress=False)
        return sum(passes), table

    one, _ = images_passed([METHODS["grad_cam"]])
    two, table = images_passed([METHODS["grad_cam"], METHODS["random_map"]])
    assert (one, two) == (4 + 4 + 4, 4 + 4 + 8)  # unmasked, random erasing, and one erasing a method
    first, second = (table.metrics[m, "remove_and_classify", "50%"].per_image()[1] for m in ("grad_cam", "random_map"))
    assert (first[:, 1] == second[:, 1]).all()


def energy(table, method, rows):
    """Rows (energy inside, energy in all) of one method in an invented table."""
    metric = metrics.EnergyPointingGame()
    metric.record(
        torch.stack([torch.as_tensor(rows, dtype=torch.float64), torch.ones(len(rows), dtype=torch.float64)], 1), range(len(rows))
    )
    table.metrics[method, metric.name, ""] = metric


def drops(table, method, after):
    """Rows of Average Drop and Increase in Confidence whose probability was one half."""
    after = torch.as_tensor(after, dtype=torch.float64)
    for metric in (metrics.AverageDrop(), metrics.IncreaseInConfidence(), metrics.AverageDrop(0.5)):
        metric.record(torch.stack([torch.full_like(after, 0.5), after, after], 1), range(len(after)))
        table.metrics[method, metric.name, metric.setting] = metric


def test_differences_have_exact_p_and_are_corrected_within_a_metric():
    rng, table = np.random.default_rng(0), Table()
    after = {name: rng.random(24) * scale for name, scale in (("cam", 0.9), ("grad_cam", 1.0), ("random_map", 0.6), ("rise", 0.8))}
    for name, values in after.items():
        drops(table, name, values)
    frame = table.differences("grad_cam", ("cam", "rise"))
    pairs = [("cam", "grad_cam"), ("random_map", "grad_cam"), ("rise", "grad_cam"), ("cam", "rise")]
    assert list(dict.fromkeys(zip(frame.method, frame.than, strict=True))) == pairs
    assert (frame.same_as == "").all()
    assert (frame.n == 24).all()
    for name, family in frame.groupby("metric"):
        assert len(family) == {"average_drop": 8, "increase_in_confidence": 4}[name]  # both settings of a metric are one family
        p = family.p.tolist()
        order = sorted(range(len(p)), key=p.__getitem__)
        expected = {i: min(1, max(p[j] * (len(p) - order.index(j)) for j in order[: order.index(i) + 1])) for i in order}
        assert family.p_holm.tolist() == pytest.approx([expected[i] for i in range(len(p))])
    for d in frame[frame.metric == "increase_in_confidence"].itertuples():
        more, less = (int((sign * (1.0 * (after[d.method] > 0.5) - (after[d.than] > 0.5)) > 0).sum()) for sign in (1, -1))
        tails = sum(math.comb(more + less, k) for k in range(max(more, less), more + less + 1))
        assert d.p == pytest.approx(min(1, 2 * tails / 2 ** (more + less)))  # McNemar, by counting
    drop = frame[(frame.metric == "average_drop") & (frame.method == "cam") & (frame.than == "grad_cam")].iloc[0]
    lost = {name: 100 * (1 - values / 0.5).clip(0) for name, values in after.items()}
    assert drop.value == pytest.approx((lost["cam"] - lost["grad_cam"]).mean())
    assert drop.ci_low < drop.value < drop.ci_high


def test_methods_that_are_one_on_a_network_count_once(root):
    """With average pooling and a linear head Grad-CAM is XGrad-CAM, and CAM is HiResCAM, neither with a ReLU."""
    classifier = nets.gap(classes=8).float()
    chosen = [method(name) for name in ("cam", "grad_cam", "xgrad_cam", "hires_cam", "layer_cam", "grad_cam[power=2]")]
    measured = [metrics.EnergyPointingGame(), metrics.MaxBoxAcc(), metrics.AverageDrop()]
    table = evaluate(classifier, imagenet(root), chosen, measured, progress=False)
    alone = {name: name for name in ("cam", "grad_cam", "layer_cam", "grad_cam[power=2]")}
    assert table.twins("grad_cam") == alone | {"xgrad_cam": "grad_cam", "hires_cam": "cam"}
    frame = table.differences("grad_cam", ("layer_cam", "cam"), ("layer_cam", "hires_cam"))
    out = frame[frame.same_as != ""]
    assert set(zip(out.method, out.than, out.same_as, strict=True)) == {
        ("xgrad_cam", "grad_cam", "grad_cam"),
        ("hires_cam", "grad_cam", "cam"),
        ("layer_cam", "hires_cam", "cam"),
    }
    assert out[["p", "p_holm"]].isna().all(None)
    counted = frame[frame.same_as == ""]
    assert counted.groupby("metric").size().tolist() == [4, 4, 4]
    assert counted[["p", "p_holm"]].notna().all(None)


def test_the_accuracy_of_two_networks_is_compared_and_makes_no_maps_the_same():
    table = Table()
    for name, right in (("plain", [1, 1, 0, 1, 1, 1]), ("lfi_cam", [1, 1, 0, 1, 1, 1])):
        metric = Accuracy()
        metric.record(torch.tensor(right, dtype=torch.float64)[:, None], range(6))
        table.metrics[name, "accuracy", ""] = metric
    energy(table, "lfi_cam", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    energy(table, "grad_cam", [0.6, 0.5, 0.4, 0.3, 0.2, 0.2])
    frame = table.differences("grad_cam", ("lfi_cam", "plain"))
    assert frame[["method", "than", "metric"]].to_numpy().tolist() == [
        ["lfi_cam", "grad_cam", "energy_pointing_game"],
        ["lfi_cam", "plain", "accuracy"],
    ]
    assert frame.p.tolist()[1] == 1
    assert (frame.same_as == "").all()


def test_mean_average_precision_of_a_network_is_that_of_all_its_rows():
    rng, metric = np.random.default_rng(0), MeanAveragePrecision()
    scores, there = rng.normal(size=(30, 4)), rng.random((30, 4)) < 0.4
    metric.record(torch.from_numpy(np.stack([scores, there.astype(float)], 1)), range(30))
    expected = []
    for s, t in zip(scores.T, there.T, strict=True):
        hits = t[np.argsort(-s)]
        expected.append((np.cumsum(hits) / np.arange(1, 31))[hits].mean())
    assert metric.compute() == pytest.approx(100 * np.mean(expected))
    low, high = metric.interval(resamples=50)
    assert low < metric.compute() < high


def test_wins_between_two_methods(root, classifier):
    chosen = [METHODS["all_ones"], METHODS["random_map"]]
    table = evaluate(classifier, imagenet(root, 4), chosen, [metrics.AverageDrop()], batch_size=4, progress=False)
    both = [table.wins(a, b) for a, b in (("all_ones", "random_map"), ("random_map", "all_ones"))]
    assert both[0].n == 4
    assert both[0].value + both[1].value + both[0].ties == 100


def test_localization_errors_know_whether_the_prediction_is_right(root, classifier):
    wanted = [metrics.LocalizationError(0.2), metrics.LocalizationError(0.2, top1=True), metrics.BoxIoU(0.2)]
    table = evaluate(classifier, imagenet(root), [METHODS["center_gaussian"]], wanted, progress=False)
    known = table.metrics["center_gaussian", "localization_error", "GT-known 20%"]
    top1 = table.metrics["center_gaussian", "localization_error", "top-1 20%"]
    data = imagenet(root)("squash")
    with torch.no_grad():
        predicted = classifier.frozen()(torch.stack([data[i].image for i in range(len(data))])).argmax(1).tolist()
    assert top1.per_image()[1][:, 1].tolist() == [float(p == data[i].label) for i, p in enumerate(predicted)]
    assert top1.compute() >= known.compute()


def test_pixels_are_compared_with_masks_as_the_benchmark_does(root):
    """Bicubic in float64, then min-max, for the label; against the released evaluator's histogram and loop. The mask itself scores 100."""
    torch.manual_seed(0)
    data = lambda view: CUB200(root, "test", view, 64, 5)  # noqa: E731
    opened = data("squash")
    classifier = lfi_backbone("resnet8", len(opened.classes)).eval()
    masks = torch.stack([opened[i].segmentation for i in range(5)])
    shown = iter(masks.double().split(2))
    exact = Method("masks", lambda _probe: next(shown), "", 0, "1", finished=True)
    table = evaluate(classifier, data, [METHODS["grad_cam"], exact], [metrics.PxAP(), metrics.MaxBoxAccV2()], batch_size=2, progress=False)
    frozen, heat = classifier.frozen(), []
    for i in range(5):
        raw = METHODS["grad_cam"](Probe(frozen, opened[i].image[None], torch.tensor([opened[i].label])))
        fine = torch.nn.functional.interpolate(raw[None].double(), (64, 64), mode="bicubic")[0, 0]
        heat.append((fine - fine.min()) / (fine.max() - fine.min()) if fine.max() > fine.min() else torch.zeros(64, 64))
    found = table.metrics["grad_cam", "pxap", ""]
    assert found.compute() == pytest.approx(official_pxap(torch.stack(heat).numpy(), masks.numpy()), rel=1e-4)
    assert found.per_image()[1].sum(1).tolist() == [64 * 64] * 5
    assert table.metrics["masks", "pxap", ""].compute() == 100
    records = table.records().query("metric == 'pxap'").set_index("method")
    assert set(records["n"]) == {5}
    assert (records.ci_low <= records.value).all()
    assert (records.value <= records.ci_high).all()
    written = pd.concat(table.per_image())
    assert set(written["metric"]) == {"max_box_acc_v2"}  # histograms of pixels are not written image by image
    assert written.image.tolist() == opened.ids * 2


def test_without_masks_what_needs_them_is_left_out_with_a_word(root, classifier):
    with pytest.warns(UserWarning, match="pxap is left out: ImageNet val has no segmentation masks; take a data set that has"):
        table = evaluate(classifier, imagenet(root, 2), [METHODS["cam"]], [metrics.PxAP(), metrics.AverageDrop()], progress=False)
    assert {name for _, name, _ in table.metrics} == {"average_drop"}
    assert set(table.records()["metric"]) == {"average_drop", "empty_maps"}


def test_shards_give_the_bytes_of_one_pass_and_a_killed_one_costs_its_own_blocks(tmp_path, monkeypatch, root):
    """Two views, images of several classes, long rows, a method on some images; 11 images in blocks of two batches of two."""
    data = lambda view: VOC2007(root, "test", view, 32, 11)  # noqa: E731
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", len(data("squash").classes)).eval()
    methods = [METHODS[name] for name in ("random_map", "grad_cam", "center_gaussian")]
    measured = [metrics.PixelPrecision("energy_present"), metrics.PointingGame(), metrics.MapMean(0.5), metrics.AverageDrop(0.5)]
    options = {"limits": {"grad_cam": 5}, "batch_size": 2, "progress": False}

    def written(table, folder):
        folder.mkdir()
        table.records().to_csv(folder / "metrics.csv")
        table.differences("random_map", ("grad_cam", "center_gaussian")).to_csv(folder / "differences.csv")
        pd.concat(table.per_image()).to_parquet(folder / "rows.parquet")
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    def kept(name, **which):
        return evaluate(classifier, data, methods, measured, kept=Kept(tmp_path / name, block=4, **which), **options)

    once = written(evaluate(classifier, data, methods, measured, **options), tmp_path / "a")
    for shard in (2, 0, 1):  # in any order; of three blocks, each has one
        assert not kept("three", shard=shard, of=3).metrics
    blocks = sorted((tmp_path / "three").iterdir())
    assert [file.name[-17:-4] for file in blocks] == ["000000-000004", "000004-000008", "000008-000011"]
    assert written(kept("one"), tmp_path / "b") == once
    made = []
    monkeypatch.setattr("cam_core.evaluate.write", lambda path, table: made.append(path.name))
    assert not kept("three", shard=2, of=7).metrics  # shards of another count find them, and the last of seven have none
    assert not kept("three", shard=6, of=7).metrics
    assert made == []
    monkeypatch.undo()
    blocks[1].unlink()  # the killed one
    blocks[2].write_bytes(blocks[2].read_bytes()[:-100])  # half a file
    times = {file: file.stat().st_mtime_ns for file in blocks[:1]}
    assert written(kept("three"), tmp_path / "c") == once
    assert times == {file: file.stat().st_mtime_ns for file in blocks[:1]}
    with pytest.raises(ValueError, match="no shard 3 of 3"):
        Kept(tmp_path, 3, 3)


def test_a_block_is_answered_by_the_same_engines_whatever_came_before_it(tmp_path, monkeypatch, root):
    """ONNX Runtime begins after so many images: in each block anew, not somewhere in the whole; it is made once."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(engine, "WORTH", 80 * 32 * 32)  # within the second batch of a block
    exported, export = [], engine._export
    monkeypatch.setattr(engine, "_export", lambda *given: exported.append(1) or export(*given))
    data = lambda view: VOC2007(root, "test", view, 32, 8)  # noqa: E731
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", len(data("squash").classes)).eval()

    def kept(name, **which):
        where = Kept(tmp_path / name, block=4, **which)
        table = evaluate(classifier, data, [METHODS["score_cam"]], [metrics.AverageDrop(0.5)], kept=where, batch_size=1, progress=False)
        return {file.name: np.load(file)["rows/0"].tolist() for file in (tmp_path / name).iterdir()} if which or table.metrics else {}

    once = kept("one")
    assert len(exported) == 1
    assert len(once) == 2
    kept("two", shard=1, of=2)
    assert kept("two", shard=0, of=2) == once
    assert len(exported) == 3
    monkeypatch.setattr("cam_core.evaluate.Kept", partial(Kept, block=4))  # where nothing is kept, it is measured in the same blocks
    table = evaluate(classifier, data, [METHODS["score_cam"]], [metrics.AverageDrop(0.5)], batch_size=1, progress=False)
    assert torch.cat(table.metrics["score_cam", "average_drop", "50%"].rows).tolist() == [
        row for name in sorted(once) for row in once[name]
    ]


def test_kept_rows_are_of_one_network_one_list_of_images_and_one_question(tmp_path, root, classifier):
    """What was measured of another network, of other images or for another method is not found."""
    torch.manual_seed(1)
    other, kept = lfi_backbone("resnet8", 8).eval(), Kept(tmp_path)
    ask = [(classifier, imagenet(root, 2), "cam"), (other, imagenet(root, 2), "cam"), (classifier, imagenet(root, 3), "cam")]
    for network, data, name in [*ask, (classifier, imagenet(root, 2), "grad_cam")]:
        own = [network, data, [METHODS[name]]]
        assert at_equal_mean(*own, progress=False, kept=kept).equals(at_equal_mean(*own, progress=False))
    assert len([*tmp_path.iterdir()]) == 4


def test_kept_rows_of_a_stranger_execute_nothing(tmp_path, root, classifier):
    """A pickle in the place of an array is not read: the rows are measured."""

    class Hostile:
        def __reduce__(self):
            return (tmp_path / "executed").write_text, ("",)

    ask = [classifier, imagenet(root, 2), [METHODS["cam"]], [metrics.MapMean()]]
    found = evaluate(*ask, progress=False, kept=Kept(tmp_path)).records()
    [file] = tmp_path.iterdir()
    np.savez(file, **{"ids/0": np.array([0, 1]), "rows/0": np.array([Hostile(), Hostile()], object)}, allow_pickle=True)
    assert evaluate(*ask, progress=False, kept=Kept(tmp_path)).records().equals(found)
    assert not (tmp_path / "executed").exists()
