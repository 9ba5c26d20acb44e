"""Slow, literal float64 transcriptions of the papers' formulas, for one image; loops on purpose, nothing shared with cam_core's maths.

Each takes a classifier, one image [3,H,W], a class, and returns a numpy map [h,w].
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cam_core.classifier import Classifier

Map = NDArray[np.float64]


def _parts(classifier: Classifier, image: torch.Tensor, target: int) -> tuple[Map, Map]:
    """Activations and gradients of the logit, through the whole network and a backward pass."""
    kept = {}

    def keep(_module: object, _given: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept["a"] = output

    x = ((image - classifier.mean) / classifier.std)[None].requires_grad_()
    a = classifier.trunk(x)
    keep(None, None, a)
    classifier.head(a)[0, target].backward()
    classifier.zero_grad()
    return kept["a"].detach()[0].numpy(), kept["a"].grad[0].numpy()


def _probability(classifier: Classifier, normalised: torch.Tensor, target: int) -> float:
    with torch.no_grad():
        logits = classifier.head(classifier.trunk(normalised[None]))[0].numpy()
    e = np.exp(logits - logits.max())
    return float(e[target] / e.sum())


def grad_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        total += g[k].sum() / g[k].size * a[k]
    return np.maximum(total, 0)


def grad_cam_pp(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        weight = 0.0
        for i, j in np.ndindex(*a.shape[1:]):
            below = 2 * g[k, i, j] ** 2 + a[k].sum() * g[k, i, j] ** 3
            weight += g[k, i, j] ** 2 / (below if below != 0 else 1.0) * max(g[k, i, j], 0.0)
        total += weight * a[k]
    return np.maximum(total, 0)


def hires_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)
    return sum((g[k] * a[k] for k in range(len(a))), np.zeros(a.shape[1:]))


def layer_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)
    return np.maximum(sum((np.maximum(g[k], 0) * a[k] for k in range(len(a))), np.zeros(a.shape[1:])), 0)


def cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, _ = _parts(classifier, image, target)
    weight = classifier.head.fc.weight.detach().numpy()
    return sum((weight[target, k] * a[k] for k in range(len(a))), np.zeros(a.shape[1:]))


def score_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, _ = _parts(classifier, image, target)
    x = (image - classifier.mean) / classifier.std
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        mask = F.interpolate(torch.tensor(a[k])[None, None], image.shape[1:], mode="bilinear", align_corners=False)[0]
        if mask.max() == mask.min():
            continue
        total += _probability(classifier, x * (mask - mask.min()) / (mask.max() - mask.min()), target) * a[k]
    return np.maximum(total, 0)


def _unit(m: Map) -> Map:
    return (m - m.min()) / (m.max() - m.min()) if m.max() > m.min() else np.zeros_like(m)


def increment_cam(classifier: Classifier, image: torch.Tensor, target: int, resolution: int = 0) -> Map:
    a, g = _parts(classifier, image, target)
    first = grad_cam(classifier, image, target)
    x = (image - classifier.mean) / classifier.std
    h, w = a.shape[1:]
    small = torch.zeros(3, h, w, dtype=torch.float64)  # area averaging where the map's side divides the image's
    sy, sx = image.shape[1] // h, image.shape[2] // w
    for i, j in np.ndindex(h, w):
        small[:, i, j] = x[:, i * sy : (i + 1) * sy, j * sx : (j + 1) * sx].mean((1, 2))

    def score(z: torch.Tensor) -> float:
        if resolution:
            z = F.interpolate(z[None], (resolution, resolution), mode="bilinear", align_corners=False)[0]
        return _probability(classifier, z, target)

    second = np.zeros((h, w))
    for k in range(len(a)):
        if g[k].mean() > 0 and a[k].max() - a[k].min() > 1e-12:
            second += (score(small * torch.tensor(_unit(a[k]))) - score(torch.zeros_like(small))) * a[k]
    return _unit(np.maximum(0.5 * _unit(first) + 0.5 * _unit(np.maximum(second, 0)), 0))
