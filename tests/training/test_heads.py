"""The multi-label head on frozen features, and average precision."""

import numpy as np
import pytest
import torch

from cam_core.classifier import linear_head
from tests import nets
from training.heads import mean_average_precision, multi_label_head


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
    assert torch.equal(classifier.probabilities(classifier(images)), classifier(images).sigmoid())
    assert not any(parameter is head.weight for parameter in backbone.parameters())
