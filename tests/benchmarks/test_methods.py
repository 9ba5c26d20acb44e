"""The benchmark of methods compares maps before it races, and compares every peer that it races."""

import pytest
import torch

from benchmarks import methods
from cam_core import load_classifier


def test_every_peer_that_is_raced_is_compared():
    raced = {name for contenders, _ in methods.groups().values() for name, (_, ours) in contenders.items() if not ours}
    assert raced - {"forward, as loaded"} == set(methods.PEERS)


def test_maps_are_compared_before_anything_is_timed(monkeypatch):
    done = []
    monkeypatch.setattr("sys.argv", ["methods", "--only", "Ablation"])
    monkeypatch.setattr(methods, "agreement", lambda raced: done.append(dict(raced)) or methods.pd.DataFrame())
    monkeypatch.setattr(methods, "race", lambda name, *_: done.append(name))
    monkeypatch.setattr(methods, "write", lambda *_args, **_kwargs: None)
    methods.main()
    assert done == [{"grad-cam: AblationCAM": "resnet18"}, "ResNet-18, batch 8, Ablation-CAM"]


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
    monkeypatch.setattr(methods, "images", lambda: torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


@pytest.mark.oracle
def test_a_deviation_is_told_and_explained_and_an_unexplained_one_stops_the_race(small, monkeypatch):
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed: make setup")
    raced = dict.fromkeys(("grad-cam: GradCAM", "grad-cam: HiResCAM", "grad-cam: GradCAMPlusPlus"), "resnet18")
    found = methods.agreement(raced).set_index("contender").correlation
    assert found["grad_cam beside grad-cam: GradCAM"] > 0.99999
    assert found["the same with 1e-6 added to a denominator of that size"] > max(
        0.999, found["grad_cam_pp beside grad-cam: GradCAMPlusPlus"]
    )
    monkeypatch.setitem(methods.PEERS, "grad-cam: GradCAM", "mean_activation")
    with pytest.raises(RuntimeError, match="mean_activation beside grad-cam: GradCAM: the maps correlate at"):
        methods.agreement({"grad-cam: GradCAM": "resnet18"})
