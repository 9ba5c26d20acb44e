"""Metrics judged: tau against SciPy's, and an agreement whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from cam_core import metrics
from cam_core.evaluate import at_equal_mean, evaluate
from cam_core.methods import method
from cam_core.table import Table
from studies.judging import MEAN, DropAtEqualMean, agreement, bearing, kendall, maps_to_judge, numbers
from tests import nets
from tests.studies.test_lineage import Images


@pytest.mark.parametrize("seed", range(6))
def test_kendall_is_scipys_tau_b(seed):
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 5, (3, 9)).astype(float), random.normal(size=(3, 9)).round(1)
    assert kendall(a, b).tolist() == pytest.approx([kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)])
    assert kendall(np.ones(4), np.arange(4.0)) == 0
    assert kendall(1e8 + np.array([0.0, 1e-3, 2.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(kendalltau([0, 0, 2], [0, 1, 2]).statistic)


def table_of(worth, names, noise, seed=0):
    """Maps that are worth so much under the truth, under a metric where lower is better that agrees, and one that is noise."""
    random, table = np.random.default_rng(seed), Table(image_ids=[f"image {i}" for i in range(30)])
    for name, w in zip(names, worth, strict=True):
        around = w + noise * random.normal(size=30)
        table.metrics[name, "deletion", "step 896"] = metrics.Deletion(896)
        table.metrics[name, "deletion", "step 896"].record(torch.from_numpy(-around), range(30))
        table.metrics[name, "insertion", "step 896"] = metrics.Insertion(896)
        table.metrics[name, "insertion", "step 896"].record(torch.from_numpy(random.normal(size=30)), range(30))
        table.metrics[name, "coherency", ""] = metrics.SingleDeletion()
        table.metrics[name, "coherency", ""].record(torch.from_numpy(around)[:, None], range(30))
    return table


def test_a_metric_that_orders_as_the_truth_does_is_told_from_noise():
    names = [f"map {i}" for i in range(8)]
    tables = {"first": table_of(np.linspace(-0.5, 0.5, 8), names, 0.3), "second": table_of(np.linspace(0.5, -0.5, 8), names, 0.3, seed=1)}
    keys = [("deletion", "step 896"), ("insertion", "step 896")]
    found = agreement(tables, names, ("coherency", ""), keys, resamples=200).set_index(["network", "metric"])
    assert found.loc[("first", "deletion"), "kendall"] == 1
    assert found.loc[("all", "deletion"), ["kendall", "ci_low"]].tolist() == [1, 1]
    assert found.loc[("all", "insertion"), "ci_low"] < 0 < found.loc[("all", "insertion"), "ci_high"]
    each = found.loc[(["first", "second"], "insertion"), "kendall"]
    assert found.loc[("all", "insertion"), "kendall"] == pytest.approx(each.mean())
    assert set(found["n"]) == {30}
    told = numbers(tables, names, keys).set_index(["network", "method", "metric"])
    assert told.loc[("first", "map 3", "deletion"), "better"] == "lower"
    assert told.loc[("second", "map 3", "insertion"), "value"] == tables["second"].metrics["map 3", "insertion", "step 896"].compute()


def test_a_network_learns_to_bear_missing_cells(tmp_path, monkeypatch):
    from cam_core.learned import lfi_backbone
    from reproduce import jobs

    monkeypatch.setattr(jobs, "STORE", tmp_path)
    torch.manual_seed(0)
    network = lfi_backbone("resnet8", 3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randint(0, 256, (6, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    second = bearing(network, {"images": images, "labels": torch.tensor([0, 1, 2] * 2)}, epochs=1)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())  # the network itself stays
    probe = images.float() / 255
    with torch.no_grad():
        assert not torch.allclose(second(probe), network.eval()(probe), atol=1e-3)


def test_average_drop_at_equal_mean_is_that_of_the_evaluation():
    shown, own = Images(), list(map(method, ("grad_cam", "all_ones")))
    found = evaluate(nets.gap(), lambda _view: shown, own, [metrics.AverageDrop(), DropAtEqualMean()], progress=False).metrics
    want = at_equal_mean(nets.gap(), lambda _view: shown, own, MEAN, progress=False).set_index(["method", "metric"])["value"]
    assert found["grad_cam", "average_drop", "equal mean"].compute() == pytest.approx(want["grad_cam", "average_drop"])
    assert found["grad_cam", "average_drop", "equal mean"].compute() > 1


def test_every_map_to_judge_has_its_own_name():
    names = [one.name for one in maps_to_judge(leave_out=("cam",))]
    assert len(names) == len(set(names))
    assert "cam" not in names
    assert {"rise", "score_cam", "fake_cam", "grad_cam[power=2]", "all_ones"} <= set(names)
