"""Plain training targets, the multi-label head on frozen features, average precision, decoding into memory."""

import numpy as np
import pytest
import torch

from cam_core.classifier import linear_head
from cam_core.data import Dataset, Example
from cam_core.learned.batches import batches, in_memory
from cam_core.learned.plain import Plain, mean_average_precision, multi_label_head, shapes, with_pooled_head
from cam_core.learned.recipes import PLAIN
from tests import nets


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the positives, by falling score, of the precision there."""
    order = np.argsort(-scores)
    hits, precisions = 0, []
    for rank, index in enumerate(order, start=1):
        if truth[index]:
            hits += 1
            precisions.append(hits / rank)
    return float(np.mean(precisions))


def test_mean_average_precision_by_hand():
    generator = np.random.default_rng(0)
    scores, truth = generator.normal(size=(40, 4)), generator.integers(0, 2, (40, 4))
    truth[:, 2] = 0  # a class that never occurs is left out
    expected = np.mean([average_precision(scores[:, c], truth[:, c]) for c in (0, 1, 3)]) * 100
    assert mean_average_precision(torch.from_numpy(scores), torch.from_numpy(truth)) == pytest.approx(expected, rel=1e-6)


def test_multi_label_head_is_the_optimum_of_a_regression_per_class():
    """At the optimum the gradient is zero: mean (sigmoid - target)·z + decay·w on standardised inputs z; biases have no decay."""
    backbone = nets.gap(channels=6)
    generator = torch.Generator().manual_seed(0)
    pooled = torch.rand(60, 6, generator=generator) * torch.arange(1, 7) + 2
    targets = (pooled @ torch.randn(6, 3, generator=generator) > torch.rand(60, 3, generator=generator)).float()
    targets[:30] = (torch.rand(30, 3, generator=generator) > 0.5).float()
    classifier, summary = multi_label_head(backbone, pooled, targets, decays=(1e-2, 1e-1))
    assert float(max(summary["tried"], key=summary["tried"].__getitem__)) == summary["weight_decay"]
    head = classifier.head[2]
    z = ((pooled - pooled.mean(0)) / pooled.std(0)).double()
    residual = (pooled.double() @ head.weight.T + head.bias).sigmoid() - targets
    weight = head.weight * pooled.std(0)
    assert (residual.T @ z / 60 + summary["weight_decay"] * weight).abs().max() < 1e-4
    assert residual.mean(0).abs().max() < 1e-4
    images = nets.images(2)
    torch.testing.assert_close(classifier.activations(images), backbone.activations(images))
    assert linear_head(classifier, 6) is head  # CAM works on it
    assert not any(parameter is head.weight for parameter in backbone.parameters())


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
