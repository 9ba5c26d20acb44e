"""What all metrics share: ids, measures in common, refusal of NaN, torchmetrics' own calls, two processes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.multiprocessing

from cam_core import METHODS, metrics
from cam_core.data import ImageNet, inclusive_boxes
from cam_core.evaluate import evaluate
from cam_core.learned import lfi_backbone
from cam_core.metrics.metric import Annotated, Metric
from cam_core.probe import Probe
from data_scripts.draw import draw
from tests.nets import gap, images


def test_settings_share_a_measure_exactly_when_it_is_the_same():
    drop, gain, half = metrics.AverageDrop(), metrics.AverageGain(), metrics.AverageDrop(0.5)
    assert drop.shares == gain.shares != half.shares
    assert metrics.AverageDrop(fill="mean").shares != drop.shares
    assert (drop.setting, half.setting, metrics.MapMean(0.15, fill="mean").setting) == ("100%", "50%", "15% mean fill")
    assert metrics.PointingGame().shares == metrics.PointingGame(hard_only=True).shares
    assert metrics.MaxBoxAcc().shares != metrics.MaxBoxAccV2().shares


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_maps_that_are_not_finite_are_refused_in_one_sentence(bad):
    maps = torch.zeros(2, 8, 8)
    maps[1, 3, 3] = bad
    box = [torch.tensor([[0, 0, 1, 1]])] * 2
    for metric in (metrics.EnergyPointingGame(), metrics.MaxBoxAcc(), metrics.AverageDrop()):
        with pytest.raises(ValueError, match=f"{metric.name}: a map contains NaN or infinity"):
            metric.update(maps, box)
    with pytest.raises(ValueError, match="pointing_game: a map contains NaN"):
        metrics.PointingGame().update([maps[0], maps[1]], [metrics.Present(0, box[0])] * 2)


def test_without_ids_images_are_numbered_and_mixing_is_refused():
    metric = metrics.MapMean()
    rows = torch.rand(3, 3, dtype=torch.float64)
    metric.record(rows[:2])
    metric.record(rows[2:])
    assert metric.per_image()[0].tolist() == [0, 1, 2]
    assert metric.compute() == 100 * rows[:, 2].numpy().mean()
    metric.record(rows, [5, 6, 7])
    with pytest.raises(ValueError, match="always or never"):
        metric.compute()
    with pytest.raises(ValueError, match="ids must be one integer"):
        metric.record(rows, [1, 2])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_torchmetrics_forward_and_reset_keep_working():
    probe_images = images(4)
    probe, heat = Probe(gap(), probe_images), torch.rand(4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    one, forward = metrics.AverageDrop(), metrics.AverageDrop()
    one.update(heat, probe)
    halves = [
        forward(heat[i : i + 2], probe.pairs(torch.arange(i, i + 2), probe.targets[i : i + 2]), ids=torch.arange(i, i + 2)) for i in (0, 2)
    ]
    assert forward.compute() == one.compute()
    assert np.mean(halves) == pytest.approx(one.compute())
    forward.reset()
    with pytest.raises(ValueError, match="nothing was recorded"):
        forward.compute()


class Share(Annotated):
    """As CONTRIBUTING says: how much of the map is on the first box."""

    name = "share"
    protocol = "energy"
    higher_is_better = True
    needs = "a box"

    def truth(self, example, _target):
        return inclusive_boxes(example.boxes)[0].tolist() if len(example.boxes) else None

    def _measure(self, maps, truths):
        return torch.stack([heat[y0 : y1 + 1, x0 : x1 + 1].sum() / heat.sum() for heat, (x0, y0, x1, y1) in zip(maps, truths, strict=True)])


class Certainty(Metric):
    """As CONTRIBUTING says: what the network says of the target, twice."""

    name = "certainty"
    protocol = "l_cam"
    higher_is_better = None

    def _measure(self, _maps, probe):
        return probe.of_target(probe.probabilities)[:, None]

    def each(self, rows):
        return 2 * rows[:, 0]


def test_a_metric_written_as_contributing_says_is_evaluated(tmp_path):
    root = draw(tmp_path / "drawn", small=True, progress=False)
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", 8).eval()
    table = evaluate(
        classifier, lambda view: ImageNet(root, "val", view, 64, 3), [METHODS["all_ones"]], [Share(), Certainty()], progress=False
    )
    images = {view: [ImageNet(root, "val", view, 64, 3)[i] for i in range(3)] for view in ("crop", "squash")}
    boxes = [inclusive_boxes(example.boxes)[0] for example in images["squash"]]
    areas = [float((x1 - x0 + 1) * (y1 - y0 + 1)) / 64**2 for x0, y0, x1, y1 in boxes]
    said = classifier(torch.stack([example.image for example in images["crop"]])).softmax(1).amax(1).detach()
    assert table.metrics["all_ones", "share", ""].compute() == pytest.approx(100 * np.mean(areas))
    assert table.metrics["all_ones", "certainty", ""].compute() == pytest.approx(200 * float(said.mean()), rel=1e-5)
    assert (table.records().ci_low <= table.records().value).sum() == 2


RANK = """
import json, sys
import torch
from cam_core import metrics
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
metric = metrics.AverageDrop()
rows = torch.arange(15, dtype=torch.float64).reshape(5, 3) / 15
metric.record(rows[rank::2], torch.arange(5)[rank::2])
print(json.dumps([metric.compute(), metric.per_image()[1].tolist()]))
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_read_the_same_number(tmp_path):
    # Fresh interpreters: a fork of one whose thread pools are running can hang.
    command = [sys.executable, "-c", RANK]
    workers = [subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    answers = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    one = metrics.AverageDrop()
    one.record(torch.arange(15, dtype=torch.float64).reshape(5, 3) / 15, torch.arange(5))
    for value, rows in answers:
        assert value == one.compute()
        assert rows == one.per_image()[1].tolist()
