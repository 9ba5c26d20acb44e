"""What is counted equals what can be worked out by hand; what is timed does what its name says."""

import pandas as pd
import pytest
import torch

from benchmarks import training
from cam_core import METHODS, Probe
from cam_core.learned import LCam
from data_scripts.draw import draw
from reproduce import sources


def test_multiply_adds_are_those_of_the_layers():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5)
    )
    per_image = 8 * 8 * 8 * 3 * 9 + 8 * 5
    assert training.multiply_adds(network, torch.rand(4, 3, 16, 16)) * 1e9 == pytest.approx(per_image)


def test_fin_costs_what_its_convolutions_cost():
    adds = training.counted().set_index(["group", "contender"])["multiply_adds"]
    for name, channels in (("resnet18", 512), ("resnet50", 2048)):
        of = adds[f"multiply-adds, {name}, stem of stride 1"]
        summed = channels * 14**2  # the weighted sum of the channels
        assert of["lfi_cam, what it adds"] == pytest.approx((4 * 9 * channels**2 * 14**2 + summed) / 1e9, rel=1e-6)
        assert of["lfi_cam_1x1, what it adds"] == pytest.approx((4 * channels**2 * 14**2 + summed) / 1e9, rel=1e-6)
        assert of["lfi_cam"] == pytest.approx(of["plain"] + of["lfi_cam, what it adds"])
        stock = adds[f"multiply-adds, {name}, stem of stride 2"]
        assert of["plain"] == pytest.approx(4 * stock["plain"], rel=1e-3)  # four times the places, but one linear layer
        assert list(stock.index) == ["plain", "abn", "abn, what it adds"]


def test_the_ratio_is_first_over_second():
    frame = pd.DataFrame({"contender": ["slow", "fast"], "seconds": [6.0, 2.0]})
    assert training.ratio(frame, "slow", "fast") == 3


def test_both_ways_of_an_epoch_take_the_same_steps(monkeypatch):
    monkeypatch.setattr(training, "SIDE", 64)
    monkeypatch.delenv("CAM_WEIGHTS", raising=False)
    training.pixels.cache_clear()
    training.network.cache_clear()
    made = []

    def noted(*given, **more):
        torch.manual_seed(0)
        made.append(LCam(*given, **more))
        return made[-1]

    monkeypatch.setattr(training, "LCam", noted)
    histories = [training.epoch("resnet18", "6", way)()["history"] for way in ("trunk", "cached")]
    assert [model.cached for model in made] == [False, True]
    assert histories[0][0]["images"] == histories[1][0]["images"] == 6
    assert histories[0][0]["loss"] == pytest.approx(histories[1][0]["loss"], rel=1e-3)  # but for float16
    assert torch.allclose(made[0].attention.weight, made[1].attention.weight, atol=1e-4)
    filled = training.filling("resnet18", "6")()["activations"]
    assert (filled.shape, filled.dtype) == ((6, 512, 2, 2), torch.float16)
    training.pixels.cache_clear()
    training.network.cache_clear()


def test_the_loader_reads_everything(monkeypatch, tmp_path):
    root = draw(tmp_path / "drawn", small=True, progress=False)
    monkeypatch.delenv("CAM_DATA", raising=False)
    monkeypatch.setattr(sources, "DRAWN", root)
    seen = []
    read = training.batches

    def noting(*given):
        for index, batch in read(*given):
            seen.append(len(index))
            yield index, batch

    monkeypatch.setattr(training, "batches", noting)
    training.loader("0", "40")()
    assert seen == [32, 8]


def test_every_baseline_explains_the_stock_network(monkeypatch):
    """Whatever is raced exists; the cheap ones are called as they will be, and give the maps of the network that L-CAM explains."""
    monkeypatch.setattr(training, "SIDE", 64)
    monkeypatch.delenv("CAM_WEIGHTS", raising=False)
    training.pixels.cache_clear()
    training.network.cache_clear()
    assert {*training.BASELINES, *training.MANY_PASSES} < {*METHODS}
    probe = Probe(training.network("resnet18").frozen(), training.pixels(1) / 255)
    found = []
    monkeypatch.setattr(training, "METHODS", {"cam": lambda asked: found.append(METHODS["cam"](asked)) or found[-1]})
    training.explanation("l_cam_fm", "cam", "1")()
    torch.testing.assert_close(found[0], METHODS["cam"](probe), rtol=1e-4, atol=1e-5)
    training.pixels.cache_clear()
    training.network.cache_clear()


@pytest.mark.parametrize("model", training.MODELS)
def test_every_explanation_has_its_forward(model, monkeypatch):
    monkeypatch.setattr(training, "SIDE", 64)
    monkeypatch.delenv("CAM_WEIGHTS", raising=False)
    training.pixels.cache_clear()
    training.network.cache_clear()
    assert training.explanation(model, "forward", "2")().shape[0] == 2
    heat = training.explanation(model, "own", "2")()
    assert heat.ndim == 3
    training.pixels.cache_clear()
    training.network.cache_clear()
