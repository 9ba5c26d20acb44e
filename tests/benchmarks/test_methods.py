"""The benchmark of methods compares maps before it races, and compares every peer that it races; its floor; what a run replaces."""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch

from benchmarks import methods, race
from cam_core import Probe, load_classifier, maps
from cam_core.methods import perturbation
from tests.test_networks import multiply_adds


def test_every_peer_that_is_raced_is_compared():
    raced = {name for contenders, _ in methods.groups().values() for name, (_, ours) in contenders.items() if not ours}
    assert raced - {"forward, as loaded", "torchray: rise"} == set(methods.PEERS)


def test_maps_are_compared_before_anything_is_timed(monkeypatch):
    done = []
    monkeypatch.setattr("sys.argv", ["methods", "--only", "Ablation"])
    monkeypatch.setattr(methods, "agreement", lambda raced: done.append(raced) or methods.pd.DataFrame())
    monkeypatch.setattr(methods, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))  # this process's `agreement`
    monkeypatch.setattr(methods, "race", lambda name, *_: done.append(name))
    monkeypatch.setattr(methods, "write", lambda *_args, **_kwargs: None)
    methods.main()
    assert done == [[("grad-cam: AblationCAM", "resnet18")], "ResNet-18, batch 8, Ablation-CAM"]


def test_a_single_round_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["methods", "--long-rounds", "1"])
    with pytest.raises(SystemExit):
        methods.main()
    assert "take two or more" in capsys.readouterr().err


@pytest.fixture
def small(monkeypatch):
    """A random ResNet-18 and two images of 64 x 64."""
    torch.manual_seed(0)
    classifier = load_classifier("resnet18", None, num_classes=10)
    monkeypatch.setattr(methods, "network", lambda _name: classifier)
    monkeypatch.setattr(methods, "images", lambda _side=64: torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


def test_a_floor_stands_for_the_passes_that_score_cam_needs(small):
    probe = Probe(methods.network(""), methods.images())
    living = sum(not bool(maps.is_empty(channel)) for channel in probe.activations[0])
    assert 0 < living < 512  # of so small an image some channels are dead
    by_hand = multiply_adds(probe.classifier._network[0], 64)
    total = methods.score_cam_multiply_adds("resnet18")
    assert total == pytest.approx((1 + living) * by_hand / 1e9)
    floor = "floor: its multiply-adds as one matrix product"
    raced = pd.DataFrame({"contender": ["score_cam", floor], "seconds": [5.0, 2.0], "cpu_seconds": [9.0, 4.0], "extra_mb": [7.0, 1.0]})
    found = methods.scaled(raced.assign(median_seconds=6.0), total).set_index("contender")
    assert found.seconds.tolist() == pytest.approx([5.0, 2.0 * total * 1e9 / methods.SIDE**3])
    assert found.extra_mb.notna().tolist() == [True, False]
    assert found.multiply_adds[floor] == total


def test_what_a_floor_times_is_the_work_that_it_is_counted_for(monkeypatch):
    monkeypatch.setattr(methods, "SIDE", 24)
    monkeypatch.setattr(methods, "CHANNELS", 4)
    convolved = methods.REPEATED * 8 * 14**2 * 9 * 4**2
    for call, work in ((methods.product(), 24**3), (methods.convolution(), convolved), (methods.convolution("bfloat16"), convolved)):
        with methods.torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
            call()
        assert counter.get_total_flops() == 2 * work


def test_a_contender_raced_alone_keeps_its_place_and_the_others_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(race, "HOME", tmp_path)
    (tmp_path / "results/benchmarks").mkdir(parents=True)
    path = tmp_path / "results/benchmarks/x.csv"

    def rows(**seconds):
        return pd.DataFrame({"group": [c[0] for c in seconds], "contender": list(seconds), "seconds": list(seconds.values())})

    def found():
        table = pd.read_csv(path, float_precision="round_trip")
        return dict(zip(table.contender, table.seconds, strict=True))

    race.write([rows(a1=0.1 + 0.2, a2=2.0, b1=3.0)], "x")
    before = path.read_text().splitlines()
    race.write([rows(a2=4.0, a3=5.0)], "x", replace="contender")
    assert list(found().items()) == [("a1", 0.1 + 0.2), ("a2", 4.0), ("b1", 3.0), ("a3", 5.0)]
    assert path.read_text().splitlines()[1] == before[1]
    race.write([rows(a1=6.0)], "x", replace="group")
    assert found() == {"b1": 3.0, "a1": 6.0}
    race.write([rows(c1=8.0)], "x", replace="group", known=["a", "c"])  # group b is no more
    assert found() == {"a1": 6.0, "c1": 8.0}
    race.write([rows(b2=7.0)], "x")
    assert found() == {"b2": 7.0}


def test_one_part_of_the_benchmark_can_be_chosen():
    score_cam = methods.SCORE_CAM["resnet18"]
    assert list(methods.wanted("Score-CAM, ResNet-18")) == [score_cam]
    assert len(methods.wanted("Score-CAM")[score_cam][0]) == 8
    assert list(methods.wanted("Score-CAM", "RISE")) == [*methods.SCORE_CAM.values(), *methods.RISE.values()]
    assert methods.wanted("floor")[score_cam][0].keys() == methods.FLOORS.keys()
    assert {name for contenders, _ in methods.wanted("grad-cam: ", "rise, ").values() for name in contenders} >= {"rise, as one writes it"}
    assert methods.wanted("") == methods.groups()
    assert methods.wanted("nothing of this name") == {}


def test_rise_written_plainly_and_torchrays_give_the_map_that_is_timed(small, monkeypatch):
    methods.same_rise("resnet18", 6)
    monkeypatch.setattr(methods, "rise", lambda probe, samples: 1.01 * perturbation.rise(probe, samples=samples))
    with pytest.raises(RuntimeError, match="plain_rise and our RISE give other maps"):
        methods.same_rise("resnet18", 6)


@pytest.mark.oracle
def test_a_deviation_is_told_and_explained_and_an_unexplained_one_stops_the_race(small, monkeypatch):
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed: make setup")
    raced = [(one, "resnet18") for one in ("grad-cam: GradCAM", "grad-cam: HiResCAM", "grad-cam: GradCAMPlusPlus")]
    found = methods.agreement(raced).set_index("contender").correlation
    assert found["grad_cam beside grad-cam: GradCAM"] > 0.99999
    assert found["the same with 1e-6 added to a denominator of that size"] > max(
        0.999, found["grad_cam_pp beside grad-cam: GradCAMPlusPlus"]
    )
    monkeypatch.setitem(methods.PEERS, "grad-cam: GradCAM", "mean_activation")
    with pytest.raises(RuntimeError, match="mean_activation beside grad-cam: GradCAM: the maps correlate at"):
        methods.agreement([("grad-cam: GradCAM", "resnet18")])
