"""The GPU's benchmark, tried on a CPU: which ways it measures, and what it says it left out."""

import sys

import torch

from benchmarks import gpu
from cam_core.learned import lfi_backbone

compiled = []


def run(monkeypatch, *words):
    torch.manual_seed(0)
    written = []
    network = lfi_backbone("resnet8", 4).eval()
    monkeypatch.setattr(gpu, "load_classifier", lambda *_args, **_options: network)
    compiled.clear()
    monkeypatch.setattr(torch, "compile", lambda scores, **_options: compiled.append(scores) or scores)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    monkeypatch.setattr(gpu, "write", lambda frames, name: written.append((name, frames[0])))
    monkeypatch.setattr(sys, "argv", ["gpu", "--networks", "tiny", "--device", "cpu", "--size", "32", *words])
    gpu.main()
    return written


def test_cheap_methods_are_measured_once_and_those_of_many_passes_in_every_way(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "batch_of", lambda cost: 2 if cost < gpu.MANY else 1)
    [(name, table)] = run(monkeypatch, "--methods", "score_cam", "grad_cam")
    assert name == "gpu"
    assert table.contender.tolist() == ["grad_cam, float32", *(f"score_cam, {way}" for way in gpu.WAYS)]
    assert (table.images_per_second > 0).all()
    assert table.images.tolist() == [2, 1, 1, 1, 1]


def test_a_network_is_compiled_once_for_each_precision(monkeypatch):
    monkeypatch.setattr(gpu, "batch_of", lambda cost: 1)
    [(_, table)] = run(monkeypatch, "--methods", "score_cam", "score_cam[softmax]")
    assert len(table) == 2 * len(gpu.WAYS)
    assert len(compiled) == 2


def test_what_there_is_no_time_for_is_named_and_a_dry_run_writes_nothing(monkeypatch, capsys):
    assert run(monkeypatch, "--methods", "grad_cam", "--minutes", "-1", "--dry") == []
    assert "tiny, grad_cam, float32: no time" in capsys.readouterr().out


def test_a_call_explains_about_4000_passes():
    assert [gpu.batch_of(cost) for cost in (0, 1, 512, 2049, 70_000)] == [64, 64, 7, 1, 1]
