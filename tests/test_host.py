"""A map is made on the probe's device without asking the host, but for the methods that say here what they have to ask."""

import functools

import pytest
import torch

from cam_core.methods import METHODS
from cam_core.methods.perturbation import rise, ss_cam
from cam_core.probe import Probe
from tests import nets, second_device
from tests.test_methods import CNNS, JOINED

NUMBER = "how many masks pass: constant or unselected channels and groups do not"
CHOICE = "which channel is least certain, one after the other"
SEED = "the image's content, whose checksum seeds its noise, so that batches and devices do not matter"
ASK_THE_HOST = {  # a method whose name begins so, and what it asks; the first that fits
    "score_cam[budget": CHOICE, "score_cam[until": CHOICE,
    "score_cam": NUMBER, "ss_cam": NUMBER, "is_cam": NUMBER, "group_cam": NUMBER, "increment_cam": NUMBER,
    "grad_pp_score_cam": NUMBER, "fusion_cam": NUMBER,
    "smooth_grad": SEED, "var_grad": SEED, "random_map": SEED, "expected_grad_cam": SEED,
    "cam": "whether the head is pooling and one linear layer",
}  # fmt: skip
FASTER = {"rise": functools.partial(rise, samples=100), "ss_cam": functools.partial(ss_cam, samples=2)}
# cuSOLVER's verdict on an eigenvalue problem is read by torch, not by us
CHECKED_BY_TORCH = ("eigen_cam", "eigen_cam[centred]", "kpca_cam", "eigen_grad_cam", "seg_eigen_cam")


def asks(name):
    return next((why for start, why in ASK_THE_HOST.items() if name.startswith(start)), None)


@pytest.mark.parametrize("name", CNNS)
def test_on_another_device_nothing_meets_the_cpu_the_map_is_the_same_and_only_those_named_ask_the_host(name, monkeypatch):
    function = {**METHODS, **JOINED, **FASTER}[name]
    want = function(Probe(nets.gap(), nets.images(2), torch.tensor([0, 1]), chunk=16))
    with second_device.in_use(monkeypatch) as asked:
        images, targets = nets.images(2).to(second_device.DEVICE), torch.tensor([0, 1]).to(second_device.DEVICE)
        probe = Probe(second_device.moved(nets.gap()), images, targets, chunk=16)
        probe = probe.pairs(torch.tensor([1, 0]), torch.tensor([1, 0]))  # making a probe asks what its images and targets are
        asked.clear()
        got = function(probe)
        assert bool(asked) == bool(asks(name)), asked
        assert isinstance(got, second_device.There)
        torch.testing.assert_close(got.cpu(), want[[1, 0]])


@pytest.mark.cuda
@pytest.mark.parametrize("name", [name for name in CNNS if not asks(name) and name not in CHECKED_BY_TORCH])
def test_on_a_gpu_nothing_waits_for_the_host(name):
    function = {**METHODS, **JOINED}[name]
    probe = Probe(nets.gap().float().cuda(), nets.images(2).float().cuda(), torch.tensor([0, 1]).cuda(), chunk=16)
    want = function(probe)  # libraries start up
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = function(probe.pairs(torch.arange(2, device="cuda"), probe.targets))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(again, want)


def test_every_reason_names_a_method():
    assert {asks(name) for name in METHODS} - {None} == {*ASK_THE_HOST.values()}
