"""Plain training targets, decoding into memory."""

import numpy as np
import pytest
import torch

from cam_core.data import Dataset, Example
from cam_core.learned.plain import Plain, shapes, with_pooled_head
from tests import nets
from training.batches import batches, in_memory
from training.recipes import PLAIN


def test_losses():
    images, labels, targets = nets.images(3), torch.tensor([0, 2, 1]), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]]).double()
    classifier = with_pooled_head(nets.gap(), 3)
    logits = classifier(images).detach().numpy()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss, log = Plain(classifier).loss({"images": images, "labels": labels})
    assert loss.item() == pytest.approx(-np.mean(np.log(p[range(3), labels.numpy()])))
    assert log["accuracy"].item() == pytest.approx(100 * np.mean(logits.argmax(1) == labels.numpy()))
    q = 1 / (1 + np.exp(-logits))
    expected = -np.mean(targets.numpy() * np.log(q) + (1 - targets.numpy()) * np.log(1 - q))
    loss, _ = Plain(classifier, multi_label=True).loss({"images": images, "targets": targets})
    assert loss.item() == pytest.approx(expected)
    assert classifier.probabilities(classifier(images)).detach().numpy() == pytest.approx(q)


def test_shapes_leave_the_mode_alone():
    classifier = nets.gap(channels=6).train()
    assert shapes(classifier) == (6, 5)
    assert classifier.training


class Few(Dataset):
    """Nine images of 8-bit noise; every third has two classes."""

    def __init__(self, several: bool) -> None:
        self.classes, self.ids, self.several = ["a", "b", "c"], [str(i) for i in range(9)], several
        self.pixels = torch.randint(0, 256, (9, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def __getitem__(self, index: int) -> Example:
        image = self.pixels[index].float() / 255
        if not self.several:
            return Example(str(index), image, index % 3)
        return Example(str(index), image, -1, box_labels=torch.tensor([index % 3, 2]))


def test_in_memory_keeps_every_bit():
    data = in_memory(Few(several=False), progress=False)
    assert torch.equal(data["images"], Few(several=False).pixels)
    assert data["labels"].tolist() == [0, 1, 2] * 3
    assert "targets" not in data
    several = in_memory(Few(several=True), progress=False)
    assert several["targets"].tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 1]] * 3


def test_a_data_set_read_from_disk_gives_the_batches_of_memory(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # no worker processes
    recipe = PLAIN.shortened(1, batch=4, pad=1)
    memory = list(batches(in_memory(Few(several=False), progress=False), recipe, 0, 0, first=1))
    disk = list(batches(Few(several=False), recipe, 0, 0, first=1))
    assert len(memory) == len(disk) == 2
    for (index, batch), (same, other) in zip(memory, disk, strict=True):
        assert index == same
        assert torch.equal(batch["images"], other["images"])
        assert torch.equal(batch["labels"], other["labels"])
