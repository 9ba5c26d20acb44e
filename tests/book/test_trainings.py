"""The learned models' tables say what the files say: a seed's value, what did not run, a floor beside its number."""

import experiments
import trainings

from .conftest import write_study


def test_what_is_not_there_was_not_run(tmp_path):
    told = {kind: experiments.study(tmp_path, kind) for kind in trainings.KINDS}
    assert told["shortcut"] == "*Not run yet: a planted mark.*\n"
    scratch = experiments.study(tmp_path, "scratch-cifar10-resnet20")
    assert scratch == "*Not run yet: trainings from scratch, CIFAR-10 (subset), ResNet-20.*\n"


def marks(seeds):
    facts = {"backbone": "resnet8", "label": "striped fish", "n": 9, "ci_low": 1, "ci_high": 3}
    for seed in seeds:
        for trained in ("with", "without"):
            base = facts | {"seed": seed, "trained": trained, "method": "plain"}
            yield base | {"metric": "accuracy", "shown": "without", "value": 90 + seed}
            for shown in ("with", "without"):
                yield base | {"metric": "called_so", "shown": shown, "value": 40}
                for metric in ("energy_pointing_game", "maximum_in_box"):
                    yield base | {"metric": metric, "shown": shown, "method": "grad_cam", "value": 20 + seed}
        for metric in ("energy_pointing_game", "maximum_in_box"):
            yield facts | {"seed": seed, "trained": "difference", "shown": "with", "metric": metric, "method": "grad_cam", "value": -7}


def test_every_seed_of_the_mark_has_its_own_interval_and_ten_have_one_together(tmp_path):
    text = write_study(tmp_path, "shortcut", list(marks([0])))
    assert "90.0 [1.0,\N{NO-BREAK SPACE}3.0]" in text
    assert "-7.0 [1.0" in text
    text = write_study(tmp_path, "shortcut", list(marks([0, 1])))
    assert "90.0 [1.0, 3.0]\\\n    91.0 [1.0, 3.0]\n" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "one value a seed [95 % interval over the images of that seed], 2 seeds" in text
    text = write_study(tmp_path, "shortcut", list(marks(range(10))))
    assert "  - 24.5 [22.3,\N{NO-BREAK SPACE}26.7]\n" in text  # 24.5 ± 2.262 · 3.028 / √10
    assert "mean of 10 seeds [its 95 % interval over the seeds]" in text


def test_features_stand_under_their_head(tmp_path):
    facts = {"backbone": "resnet8", "dataset": "drawn_imagenet", "ci_low": 1, "ci_high": 3, "seed": 0, "than": ""}
    rows = [
        facts | {"trunk": trunk, "head": head, "method": method, "metric": metric, "value": value}
        for trunk, head, value in (("plain", "own", 50), ("plain", "probe", 51), ("lfi_cam", "own", 60), ("lfi_cam", "attended", 62))
        for method, metric in (("network", "accuracy"), ("cam", "energy_pointing_game"))
    ]
    rows.append(
        {**facts, "than": "plain", "trunk": "lfi_cam", "head": "own", "method": "cam", "metric": "energy_pointing_game", "value": 10}
    )
    text = write_study(tmp_path, "lfi_features", rows)
    accuracy = text.split(":::")[1]
    assert accuracy.index("50.0") < accuracy.index("51.0") < accuracy.index("60.0") < accuracy.index("62.0")
    assert "10.0 [1.0" in text.split(":::")[-2]


def test_ways_of_leaving_ml(tmp_path):
    facts = {"backbone": "resnet8", "images": 80, "epochs": 2, "tested": 20}
    rows = [facts | {"part": "steps", "way": "ML, other batches", "update": u, "value": v} for u, v in ((1, 0.0312), (300, 0.9))]
    rows += [facts | {"part": "steps", "way": "EM, float64", "update": 1, "value": 1e-12}]
    rows += [
        facts | {"part": "end", "way": "ML, other batches", "metric": m, "value": v} for m, v in (("accuracy", 61.5), ("nll", 0.98765))
    ]
    rows += [
        facts
        | {"part": "spread", "way": "calm_em minus calm_ml", "metric": m, "value": 0.25, "deviation": 1.5, "least": -2, "most": 3, "n": 10}
        | ({"ci_low": -1, "ci_high": 1.25} if m == "accuracy" else {})
        for m in ("accuracy", "nll")
    ]
    text = write_study(tmp_path, "em_ml", rows)
    assert "- 3e-02\n  - 9e-01\n  - 61.5\n  - 0.9877" in text
    assert "- EM, float64\n  - 1e-12\n  - –" in text
    assert "CALM-EM − CALM-ML\n  - 0.2 [-1.0,\N{NO-BREAK SPACE}1.2]\n  - 1.5\n  - -2.0 to 3.0" in text
    assert "10 seeds" in text


def test_parameters_stand_in_millions(tmp_path):
    facts = {"backbone": "resnet50", "classes": 1000}
    parts = {"plain": 25557032, "fin_3x3": 151011328, "fin_1x1": 16793600, "abn_branch": 18027834}
    text = write_study(tmp_path, "parameters", [facts | {"part": part, "value": value} for part, value in parts.items()])
    assert "ResNet-50, 1000 classes\n  - 25.56\n  - 151.01\n  - 16.79\n  - 18.03" in text


def test_half_a_plan_is_told_as_half(tmp_path):
    facts = {"dataset": "cifar10", "backbone": "resnet20", "epochs": 12, "images": 100}
    rows = [
        facts | {"role": "training", "model": model, "setting": setting, "seed": 0, "metric": metric, "state": state, "value": value}
        for model, setting, metric, state, value in (
            ("plain", 0, "accuracy", "done", 73.2),
            ("lfi_cam", 0, "accuracy", "done", 70.1),
            ("lfi_cam", 0, "effective_channels", "done", 57.2),
            ("plain", 1, "accuracy", "not run", ""),
            ("lfi_cam", 1, "accuracy", "failed", ""),
        )
    ]
    text = write_study(tmp_path, "scratch-cifar10-resnet20", rows)
    assert "learning rate 0.1, batch 128, weight decay 0.0001; seed 0\n  - 73.2\n  - 70.1\n  - 57.2" in text
    assert "learning rate 0.05, batch 128, weight decay 0.0005; seed 0\n  - not run\n  - failed\n  - –" in text
    assert "*Trainings under two settings: not run yet.*" in text
    rows += [
        facts
        | {"role": "mean", "model": "lfi_cam", "method": "lfi_cam: cam", "differs": "settings", "metric": metric, "of": of}
        | {"value": value, "least": value - 0.5, "most": value + 1, "n": 3, "planned": 10}
        for metric, of, value in (
            ("stability_iou", "pair", 54.04),
            ("stability_iou", "shuffled", 40.4),
            ("stability_correlation", "pair", 0.719),
            ("stability_correlation", "shuffled", -0.001),
        )
    ]
    text = write_study(tmp_path, "scratch-cifar10-resnet20", rows)
    cells = ("54.0 (40.4)", "53.5 to 55.0", "0.72 (0.00)", "0.22 to 1.72")
    whole, its_range, half, half_range = (cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in cells)
    told = f"- LFI-CAM: CAM\n  - {whole}\\\n    {its_range}\n  - {half}\\\n    {half_range}\n  - 3 of 10"
    assert told in text
    assert "beneath it least to most over the pairs" in text
    for row in rows:
        row |= {"n": 1} if row["role"] == "mean" else {}
    text = write_study(tmp_path, "scratch-cifar10-resnet20", rows)
    assert "- LFI-CAM: CAM\n  - 54.0 (40.4)\n  - 0.72 (0.00)\n  - 1 of 10" in text
    assert "least to most" not in text


def test_a_table_of_the_earlier_script_says_so(tmp_path):
    facts = {"dataset": "cifar10", "backbone": "resnet20", "epochs": 12, "images": 100, "seed": 0}
    rows = [facts | {"role": "training", "model": "abn", "setting": s, "metric": "accuracy", "state": "done", "value": 70} for s in (0, 1)]
    mean = {**facts, "role": "mean", "method": "abn", "differs": "settings", "n": 1, "planned": 1}
    means = [
        {**mean, "metric": metric, "of": of, "value": value, "least": value, "most": value}
        for metric, value in (("stability_iou_script", 46.3), ("stability_dice_script", 71.5))
        for of in ("pair", "shuffled")
    ]
    earlier, whole = (write_study(tmp_path, "scratch-cifar10-resnet20", rows + own) for own in (means[:2], means))
    assert "The IoU by LFI-CAM's script has an earlier form here" in earlier
    assert "earlier form" not in whole
    assert earlier.startswith(whole)  # and Dice makes no column
    assert "earlier form" not in write_study(tmp_path, "scratch-cifar10-resnet20", rows)


def test_every_importance_network_says_how_many_channels_it_chooses(tmp_path):
    facts = {"dataset": "drawn_imagenet", "backbone": "resnet8", "epochs": 8, "images": 200, "role": "training", "state": "done"}
    found = (
        ("lfi_cam", "accuracy", 60), ("lfi_cam", "effective_channels", 50),
        ("lfi_cam[uniform]", "accuracy", 61), ("lfi_cam[kernel=1]", "accuracy", 62), ("lfi_cam[kernel=1]", "effective_channels", 7),
        ("lfi_cam", "empty_maps", 0), ("lfi_cam[uniform]", "empty_maps", 50),
    )  # fmt: skip
    rows = [{**facts, "setting": 0, "seed": 1, "model": model, "metric": metric, "value": value} for model, metric, value in found]
    text = write_study(tmp_path, "scratch-drawn_imagenet-resnet8-ablations", rows)
    rows += [{**row, "seed": 2, "state": "not run", "value": ""} for row in rows]
    text = write_study(tmp_path, "scratch-drawn_imagenet-resnet8-ablations", rows)
    lines = [cells.split("\n  - ") for cells in text.split(":::")[1].split("\n* - ")[1:]]
    assert [(line[0], line[1].strip(), line[2].strip()) for line in lines] == [
        ("network", "seed 1", "seed 2"),
        ("LFI-CAM: accuracy\N{NO-BREAK SPACE}↑", "60.0", "not run"),
        ("LFI-CAM, equal weights: accuracy\N{NO-BREAK SPACE}↑", "61.0", "not run"),
        ("LFI-CAM, 1×1 importance network: accuracy\N{NO-BREAK SPACE}↑", "62.0", "not run"),
        ("LFI-CAM: effective channels", "50.0", "not run"),
        ("LFI-CAM, 1×1 importance network: effective channels", "7.0", "not run"),
        ("LFI-CAM, equal weights: empty maps", "50", "not run"),
    ]
    assert "LFI-CAM: empty" not in text


def test_promises_explanations_and_counts(tmp_path):
    machine = {"machine": "2 cores", "packages": "torch 2", "device": "cpu"}
    timed = machine | {"cpu_seconds": 1, "extra_mb": 1, "rounds": 3.0}
    rows = [machine | {"group": "what was promised", "contender": "a over b", "asked": "at most 1.1", "found": 1.034}]
    rows += [
        timed | {"group": f"one explanation, abn, batch {b}", "contender": c, "seconds": s}
        for b, c, s in ((1, "forward", 0.02), (1, "abn", 0.03), (8, "forward", 0.1), (8, "abn", 0.11))
    ]
    many = {"group": "one explanation, many passes, batch 1"}
    rows += [timed | many | {"contender": c, "seconds": s} for c, s in (("forward", 0.02), ("rise", 50))]
    rows += [timed | {"group": "one update", "contender": c, "seconds": s} for c, s in (("cam", 2), ("calm_em", 2.1))]
    rows += [timed | {"group": "decode", "contender": f"{w} workers", "seconds": 4 / (w + 1), "images": 256} for w in (0, 2)]
    rows += [machine | {"group": "multiply-adds, resnet50, stem of stride 1", "contender": "lfi_cam, what it adds", "multiply_adds": 29.59}]
    text = write_study(tmp_path, "training", rows)
    assert "a over b\n  - at most 1.1\n  - 1.03" in text
    assert "ABN\n  - 20 ms\n  - 1.50\n  - 100 ms\n  - 1.10" in text
    assert "RISE\n  - 20 ms\n  - 2500.00\n  - –\n  - –" in text
    assert "CALM-EM\n  - 2.10 s\n  - 1.05" in text
    assert "0 workers: 64 images a second. 2 workers: 192 images a second." in text
    assert "one update; 3 rounds in turn" in text
    assert "ResNet-50\n  - 1\n  - LFI-CAM, what it adds\n  - 29.6" in text
