"""The tables of studies and benchmarks say what the files say, and that nothing ran where there is no file."""

import experiments
import pandas as pd
import registry

from .conftest import BOOK, write_study

PAGE = BOOK / "protocol.md"


def test_what_is_not_there_was_not_run(tmp_path):
    assert experiments.study(tmp_path, "forms-resnet18") == "*Not run yet: forms of one method, ResNet-18.*\n"


def test_what_a_peer_does_otherwise_stands_below_the_forms_of_our_own(tmp_path):
    facts = {"form": "hires_cam", "correlation": 0.98, "ci_low": 0.97, "ci_high": 0.99, "worst": 0.9, "energy": 61, "energy_other": 68.25}
    facts |= {"n": 40, "backbone": "resnet18", "weights": "w"}
    rows = [facts | {"other": "hires_cam[x]", "otherwise": ""}, facts | {"other": "grad-cam: HiResCAM", "otherwise": "a ReLU"}]
    text = write_study(tmp_path, "forms-resnet18", rows)
    assert text.index("* - `hires_cam`\n  - `hires_cam[x]`\n  - –\n  - 0.980 [0.970") < text.index("  - grad-cam: HiResCAM\n")
    assert "* - `hires_cam`\n  - grad-cam: HiResCAM\n  - a ReLU\n  - 0.980 [0.970" in text
    assert text.count(" (0.900)\n  - 61.0 / 68.2\n  - 40\n  - ResNet-18") == 2
    write_study(tmp_path, "forms-resnet50", [rows[0] | {"backbone": "resnet50"}])
    both = experiments.study(tmp_path, "forms")
    assert "ResNet-18 (`w`), ResNet-50 (`w`), ImageNet" in both
    assert both.count("list-table") == 1
    assert both.index("  - ResNet-18\n") < both.index("  - ResNet-50\n")
    write_study(tmp_path, "forms-resnet18", rows[:1])
    assert "HiResCAM" not in experiments.study(tmp_path, "forms-resnet18")


def test_a_race_is_told_as_ratios_to_its_first_contender(tmp_path):
    base = {"group": "g", "cpu_seconds": 4, "extra_mb": 10, "rounds": 3, "machine": "2 cores", "packages": "torch 2"}
    rows = [base | {"contender": "forward", "seconds": 2}, base | {"contender": "slow", "seconds": 5, "cpu_seconds": 12}]
    rows.append({"group": "agreement", "contender": "a beside b", "correlation": 0.99987})
    text = write_study(tmp_path, "methods", rows)
    assert "  - 2.50\n  - 3.00" in text
    assert "0.99987" in text


def test_a_floor_says_how_much_any_implementation_could_win(tmp_path):
    facts = {"group": "g", "cpu_seconds": 4, "extra_mb": 10, "rounds": 3, "machine": "2 cores", "packages": "torch 2", "multiply_adds": ""}
    times = {"score_cam": 75, "grad-cam: ScoreCAM": 100, "torchcam: ScoreCAM": 110}
    rows = [facts | {"contender": contender, "seconds": seconds} for contender, seconds in times.items()]
    write_study(tmp_path, "methods", rows)
    assert "multiply-adds" not in experiments.study(tmp_path, "methods")
    floor = {"extra_mb": "", "multiply_adds": 7345.2}
    rows += [facts | floor | {"contender": f"floor: {kind}", "seconds": s} for kind, s in (("product", 80), ("convolution", 60))]
    text = write_study(tmp_path, "methods", rows)
    assert "floor: convolution\n  - 60.00 s\n  - 0.80\n  - 1.00\n  - –" in text
    assert "(grad-cam: ScoreCAM) takes 100.0 s, ours 75.0 s" in text
    assert "7.3·10¹² multiply-adds, which take 60.0 s" in text
    assert "more than 1.67 times" in text
    assert "ours is 1.33 times as fast, and 80 % of its time" in text
    assert "bfloat16" not in text
    half = {"score_cam, bfloat16": 40, "bfloat16 floor: convolution": 32}
    text = write_study(tmp_path, "methods", [*rows, *(facts | {"contender": contender, "seconds": s} for contender, s in half.items())])
    assert "In bfloat16 they take 32.0 s, 3.12 times less than the peer in float32; ours then takes 2.50 times less." in text


def test_engines_stand_beside_the_frozen_network_in_pytorch(tmp_path):
    facts = {"group": "resnet18", "batch": 8, "machine": "2 cores", "error": 1e-7}
    engines = {"PyTorch as loaded": (0.03, 0.06), "PyTorch frozen": (0.02, 0.04), "ONNX Runtime": (0.01, 0.03)}
    rows = [facts | {"contender": e, "engine": e, "seconds": s, "cpu_seconds": cpu} for e, (s, cpu) in engines.items()]
    text = write_study(tmp_path, "engines", [*rows, *(row | {"batch": 1, "cpu_seconds": 0.04} for row in rows)])
    assert "* - ResNet-18, 8\n  - 30.0 ms (1.50)\n  - 20.0 ms (1.00)\n  - 10.0 ms (0.75)" in text
    assert "* - ResNet-18, 1\n  - 30.0 ms (1.00)" in text
    assert text.index("ResNet-18, 1\n") < text.index("ResNet-18, 8\n"), "by batch, in whatever order they were measured"


def test_what_the_default_engine_gains_is_told_in_a_sentence(tmp_path):
    facts = {"group": "resnet18", "batch": 8, "machine": "2 cores", "error": 1e-7, "cpu_seconds": 1}
    times = {"PyTorch as loaded": 0.03, "PyTorch frozen": 0.024, "ONNX Runtime": 0.02, "OpenVINO": 0.019, "torch.compile, freezing": 0.021}
    rows = [facts | {"contender": e, "engine": e, "seconds": s} for e, s in times.items()]
    rows += [rows[3] | {"group": "vgg16", "seconds": 0.022}, rows[2] | {"group": "vgg16"}, rows[0] | {"group": "vgg16"}]
    rows += [rows[1] | {"group": "vgg16"}, rows[2] | {"batch": 1, "seconds": 0.016}, rows[1] | {"batch": 1}]
    text = write_study(tmp_path, "engines", rows)
    assert "on the frozen network): ResNet-18 1.50 (1.20), VGG-16 1.50 (1.20)." in text
    assert "Of the batches from 1 to 8, 8 takes at most 25 % longer an image than the fastest" in text
    assert "OpenVINO takes 0.95 to 1.10 times as long as the default. torch.compile, freezing takes 1.05 to 1.05" in text


def test_a_goal_is_reached_missed_or_not_measured(tmp_path):
    asked = {"ratio": "at least 1.5", "time": "at most 1.3"}
    found = [("ratio", 1.5, "p"), ("ratio", 1.4996, "p"), ("time", 1.3, "p"), ("time", 1.31, "p"), ("ratio", "", "")]
    rows = [{"contender": f"goal {n}", "asked": asked[kind], "found": f, "beside": b} for n, (kind, f, b) in enumerate(found)]
    text = write_study(tmp_path, "goals", [row | {"cpu": row["found"], "most": "", "machine": "2 cores"} for row in rows])
    states = ["reached", "not reached", "reached", "not reached", "not measured"]
    for number, state in enumerate(states):
        value = f", {rows[number]['found']:.2f} (CPU time {rows[number]['found']:.2f}) beside p" if number < 4 else ""
        assert f"- goal {number}, {rows[number]['asked']}: **{state}**{value}.\n" in text
    facts = {"machine": "2 cores", "cpu_seconds": 9}
    runs = [facts | {"group": "a run", "contender": c, "seconds": s} for c, s in (("with the engine", 20), ("PyTorch alone", 30))]
    assert "PyTorch alone 30 s (1.50, CPU 9 s)" in write_study(tmp_path, "whole", runs)


def test_bfloat16_is_told_by_processor(tmp_path):
    facts = {"group": "bfloat16, ResNet-18", "cpu_seconds": 4, "extra_mb": 1, "rounds": 3, "machine": "a processor", "packages": "torch 2"}
    times = {"float32": 10, "bfloat16": 5.5, "float32, as if": 12, "bfloat16, as if": 24}
    text = write_study(tmp_path, "methods", [facts | {"contender": c, "seconds": s} for c, s in times.items()])
    assert "on a processor a masked pass in bfloat16 takes 0.55 of its time in float32; 2.00 of its time in float32, as if." in text


def test_a_gpu_has_a_table_or_was_not_measured(tmp_path):
    assert experiments.study(tmp_path, "gpu") == "*Not measured yet: speed of the methods on a GPU.*\n"
    facts = {"group": "resnet50", "device": "a card"}
    rows = [
        facts | {"contender": m + w, "method": m, "way": w, "images_per_second": r}
        for m, w, r in (("grad_cam", "float32", 512.04), ("score_cam", "float32", 1.5), ("score_cam", "bfloat16", 2.5))
    ]
    text = write_study(tmp_path, "gpu", rows)
    assert "* - ResNet-50, Grad-CAM\n  - 512.0\n  - –" in text
    assert "* - ResNet-50, Score-CAM\n  - 1.5\n  - 2.5" in text


def test_what_was_counted_stands_below_the_race(tmp_path):
    times = {"group": "g", "seconds": 1, "cpu_seconds": 1, "extra_mb": 1, "rounds": 3, "machine": "2 cores", "packages": "torch 2"}
    counts = [{"group": "passes", "contender": "one method", "count": 12.0}, {"group": "passes", "contender": "none", "count": 0.0}]
    text = write_study(tmp_path, "metrics", [times | {"contender": "trees"}, *counts])
    assert text.index("trees") < text.index("one method\n  - 12") < text.index("none\n  - 0")


def test_a_budget_has_a_column_for_every_number_of_passes(tmp_path):
    facts = {"n": 12, "backbone": "resnet18", "weights": "w", "ci_low": -1, "ci_high": 2}
    rows = []
    for way, m in (("exact", 512), ("equal weights", 0), ("predicted, variance", 32), ("predicted, variance", 64)):
        row = facts | {"way": way, "m": m}
        rows += [row | {"metric": "correlation", "value": 0.98, "worst": 0.9}, row | {"metric": "passes", "value": m}]
        rows.append(row | {"metric": "average_drop", "setting": "50%", "value": 40 + m, "difference": m / 8})
        if "predicted" in way:
            rows += [row | {"metric": metric, "value": 0.25} for metric in ("promised", "promise_off", "reaches")]
    text = write_study(tmp_path, "score_cam_budget-x", rows)
    assert text.count("0.980 (0.900)") == 4  # the floor stands in every column
    assert "12 images" in text
    assert "predicted, variance, 64\n  - 64\n  - 0.980\n  - 25 %\n  - 0.250\n  - +8.0 [-1.0" in text
    assert "exact, its value\n  - –\n  - –\n  - –\n  - –\n  - 552.0" in text


def test_shares_of_the_map_stand_side_by_side_a_table_a_network(tmp_path):
    def row(backbone, method, metric, setting, value):
        return {"backbone": backbone, "weights": "w", "n": 50, "method": method, "metric": metric, "setting": setting, "value": value}

    rows = [
        row(b, m, "average_drop", s, v)
        for b in ("resnet18", "resnet50")
        for m, v in (("random_map", 40), ("grad_cam[no relu]", 20))
        for s in ("100%", "50%")
    ]
    text = write_study(tmp_path, "published_gap", [*rows, row("resnet50", "random_map", "map_mean", "100%", 51)])
    assert text.count("list-table") == 1
    assert "ResNet-18 (`w`), ResNet-50 (`w`), 50 ImageNet validation images" in text
    assert text.index("* - Grad-CAM without ReLU\n  - 20.0\n  - 20.0") < text.index("* - control: random map\n  - 40.0\n  - 40.0")
    assert text.rstrip().endswith("  - 40.0\n  - 40.0\n  - –\n  - –\n  - 51.0\n  - ResNet-50\n:::")


def test_all_networks_of_the_study_stand_in_one_table(tmp_path):
    assert experiments.study(tmp_path, "increment_cam") == "*Not run yet: Increment-CAM.*\n"
    facts = {"role": "difference", "method": "increment_cam", "than": "grad_cam", "metric": "pixel_precision", "setting": "", "n": 50}
    for backbone, value in (("resnet18", -2), ("mobilenet_v2", 3)):
        rows = pd.DataFrame([facts | {"dataset": "imagenet", "backbone": backbone, "value": value}])
        rows.to_csv(tmp_path / f"increment_cam-imagenet-{backbone}.csv")
    text = experiments.study(tmp_path, "increment_cam")
    assert text.index("MobileNetV2") < text.index("+3.0") < text.index("ResNet-18") < text.index("-2.0")
    assert text.count("\n* - ") == 1 + 2 * 3


def test_the_registry_is_told_whole():
    from cam_core.methods import METHODS

    text = registry.methods()
    assert text.count("\n* - ") == len(METHODS) + 1
    assert all(f"`{name}`" in text for name in METHODS)
    assert "The same for every class." in text
    assert "partial(" not in text
    assert "passes = 64" in text


def test_calibration_prints_how_far_each_method_moves(tmp_path):
    facts = {"network": "plain", "method": "cam", "n": 9, "pairs": 4, "dataset": "drawn_cub", "backbone": "resnet8", "accuracy": 90}
    ways = [("even", "min_max", 20), ("even", "max", 26), ("log", "min_max", 12)]
    rows = [facts | {"thresholds": t, "calibration": c, "variant": "zeros kept", "value": v} for t, c, v in ways]
    rows += [facts | {"thresholds": "log", "calibration": "min_max", "variant": "per pair", "value": 50}]
    text = write_study(tmp_path, "calibration-drawn_cub-resnet8", rows)
    assert "  - 20.0\n  - 26.0\n  - 12.0\n  - 14.0\n  - 38.0" in text
    assert "plain network 90.0" in text


def test_what_an_interval_misses_stands_out(tmp_path):
    rows = [{"case": "c", "n": n, "coverage": v, "repetitions": 9, "resamples": 5} for n, v in ((30, 91.26), (128, 93), (300, 97.04))]
    write_study(tmp_path, "coverage", rows)
    assert "* - c\n  - **91.3**\n  - 93.0\n  - **97.0**" in experiments.study(tmp_path, "coverage")


def test_every_metric_is_told_with_its_protocol():
    from cam_core import metrics
    from cam_core.protocol import PROTOCOLS

    text = registry.metrics()
    classes = [k for k in metrics.__all__ if isinstance(getattr(metrics, k), type) and issubclass(getattr(metrics, k), metrics.Metric)]
    assert all(f"* - `{key}`\n" in text for key in classes if key != "Metric")
    assert text.count("\n* - ") == len(classes) + len(registry.MEASURES)
    assert all(f"`{protocol}`" in text for protocol in PROTOCOLS if protocol not in ("energy_present", "score_cam"))
    assert "* - `AverageDrop`\n  - Mean of max(0, Y - O) / Y in percent" in text


def test_every_protocol_is_in_the_table_and_on_the_page():
    from cam_core.protocol import PROTOCOLS

    text = registry.protocols()
    assert text.count("\n* - ") == 1 + len(PROTOCOLS)
    row = "* - `score_cam`\n  - squash to 224 × 224\n  - prediction\n  - bilinear, then min-max\n  - mean colour\n"
    assert row in text
    assert all(f"* - `{key}`\n" in text for key in PROTOCOLS)
    page = PAGE.read_text(encoding="utf-8")
    assert "\n% protocols\n" in page
    assert [key for key in PROTOCOLS if f"`{key}`" not in page] == []


def test_every_metric_is_on_the_page_of_the_protocols():
    from cam_core import metrics

    told = [k for k in metrics.__all__ if isinstance(getattr(metrics, k), type) and issubclass(getattr(metrics, k), metrics.Metric)]
    page = PAGE.read_text(encoding="utf-8")
    assert [key for key in (*told, *registry.MEASURES) if f"`{key}`" not in page and key != "Metric"] == []
