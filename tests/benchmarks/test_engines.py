"""The benchmark of engines: what it compares, what a row holds, and what the published table says."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import engines
from cam_core.learned import lfi_backbone

TABLE = Path(__file__).resolve().parents[2] / "results/benchmarks/engines.csv"


@pytest.fixture
def small(monkeypatch):
    """A tiny network and images in place of the large."""
    torch.manual_seed(0)
    network = lfi_backbone("resnet8", 4).eval()
    monkeypatch.setattr(engines, "classifier", lambda _name: network)
    monkeypatch.setattr(engines, "example", lambda batch=2: torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch)))


def test_a_contender_passes_as_many_images_as_it_is_asked_and_is_compared_with_float64(small, monkeypatch):
    passed = []
    plain = engines.classifier("").scores
    monkeypatch.setitem(engines.ENGINES, "PyTorch as loaded", lambda _name: lambda inputs: passed.append(len(inputs)) or plain(inputs) + 1)
    call = engines.prepare("resnet18", "0")
    assert call("3") == {}
    want = plain(engines.example(3)).detach()
    assert call("3", "error")["error"] == pytest.approx(1 / float(want.max() - want.min()), rel=1e-3)
    assert passed == [3, 3]
    assert engines.prepare("resnet18", "1")("2", "error")["error"] < 1e-5


def test_a_row_is_the_least_of_the_rounds_an_image(monkeypatch):
    seconds = iter([9.0, 4.0, 2.0, 6.0])

    class Fake:
        def __init__(self, *_args, **_options):
            pass

        def measure(self, batch, what="time"):
            return {"error": 1e-6, "seconds": next(seconds), "cpu": 8.0}

        def close(self):
            pass

    monkeypatch.setattr(engines, "Contender", Fake)
    [row] = engines.measured("resnet18", [4], 3, {"ONNX Runtime": 2}).to_dict("records")  # the first, slow call is the comparison
    assert (row["seconds"], row["cpu_seconds"], row["error"], row["contender"]) == (0.5, 2.0, 1e-6, "ONNX Runtime, batch 4")


@pytest.mark.skipif(not TABLE.exists(), reason="not measured yet: python -m benchmarks.engines")
def test_every_engine_of_the_table_gives_the_networks_logits():
    table = pd.read_csv(TABLE)
    assert table.error.max() < 1e-5
