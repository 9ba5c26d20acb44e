"""Which methods need the host while a map is made: those that say so, and no other."""

from contextlib import nullcontext

import pytest
import torch

from cam_core.methods import ASKS_THE_HOST, METHODS
from cam_core.probe import Probe
from tests import nets, second_device
from tests.test_methods import FUSED

# cuSOLVER's verdict on an eigenvalue problem is read by torch, not by us
CHECKED_BY_TORCH = ("eigen_cam", "eigen_cam[centred]")


def elsewhere(classifier, images, targets, device):
    """The probe of what lies on a device, without the questions that the making of a probe asks."""
    probe = Probe(classifier, images, targets, chunk=16)
    moved = Probe.__new__(Probe)
    vars(moved).update({**vars(probe), "classifier": classifier.to(device), "images": images.to(device), "_targets": targets.to(device)})
    del moved.__dict__["logits"], moved.__dict__["_seen"]
    return moved


@pytest.mark.parametrize("name", METHODS)
def test_without_a_value_at_hand_only_those_that_ask_the_host_cannot_go_on(name, monkeypatch):
    # A tensor on the meta device has a shape and no values: whatever looks at one fails, as what copies to the host would wait on a GPU.
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_kwargs: nullcontext())  # it knows no such device
    probe = elsewhere(nets.gap(), nets.images(2), torch.tensor([0, 1]), "meta")
    method = FUSED if name == FUSED.name else METHODS[name]
    if name in ASKS_THE_HOST:
        with pytest.raises((RuntimeError, NotImplementedError), match=r"meta tensor|torch\.nonzero"):
            method(probe)
    else:
        heat = method(probe)
        assert heat.is_meta
        assert len(heat) == 2


# what these make of a list, the second device of the tests cannot hold
@pytest.mark.parametrize(
    "name", [name for name in METHODS if not name.startswith(("score_cam[budget", "score_cam[until", "rise", "ss_cam"))]
)
def test_on_another_device_nothing_meets_the_cpu_and_the_map_is_the_same(name, monkeypatch):
    method = FUSED if name == FUSED.name else METHODS[name]
    want = method(Probe(nets.gap(), nets.images(2), torch.tensor([0, 1]), chunk=16))
    with second_device.in_use(monkeypatch):
        there = Probe(
            second_device.moved(nets.gap()),
            nets.images(2).to(second_device.DEVICE),
            torch.tensor([0, 1]).to(second_device.DEVICE),
            chunk=16,
        )
        got = method(there.pairs(torch.tensor([1, 0]), torch.tensor([1, 0])))
        assert isinstance(got, second_device.There)
        torch.testing.assert_close(got.cpu(), want[[1, 0]])


@pytest.mark.cuda
@pytest.mark.parametrize("name", [name for name in METHODS if name not in (*ASKS_THE_HOST, *CHECKED_BY_TORCH)])
def test_on_a_gpu_nothing_waits_for_the_host(name):
    probe = Probe(nets.gap().float().cuda(), nets.images(2).float().cuda(), torch.tensor([0, 1]).cuda(), chunk=16)
    want = METHODS[name](probe)  # libraries start up
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = METHODS[name](probe.pairs(torch.arange(2, device="cuda"), probe.targets))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(again, want)


def test_every_reason_names_a_method():
    assert set(ASKS_THE_HOST) <= set(METHODS)
