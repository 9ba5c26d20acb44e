"""Slow, literal float64 transcriptions of the papers' formulas, for one image; loops on purpose, nothing shared with cam_core's maths.

Each takes a classifier, one image [3,H,W], a class, and returns a numpy map [h,w].
"""

import zlib
from collections.abc import Callable

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


def cam_calm(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return cam(classifier, image, target) + float(classifier.head.fc.bias[target])


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


# --- further activation and gradient methods ---------------------------------------------------------------------------------------------


def _weighted(weights: Map, a: Map) -> Map:
    return np.maximum(sum((w * one for w, one in zip(weights, a, strict=True)), np.zeros(a.shape[1:])), 0)


def eigen_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, _ = _parts(classifier, image, target)
    matrix = a.reshape(len(a), -1).T
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    projected = left[:, 0] * values[0]
    return (projected * np.sign(projected.sum())).reshape(a.shape[1:])


def eigen_cam_centred(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, _ = _parts(classifier, image, target)
    matrix = a.reshape(len(a), -1).T
    matrix = matrix - matrix.mean(0)
    _, _, right = np.linalg.svd(matrix, full_matrices=False)
    projected = matrix @ right[0]
    return (projected if projected.max() > -projected.min() else -projected).reshape(a.shape[1:])


def xgrad_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)
    return _weighted(np.array([(g[k] * a[k]).sum() / a[k].sum() if a[k].sum() else 0.0 for k in range(len(a))]), a)


def grad_cam_pp_authors(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)
    weights = []
    for k in range(len(a)):
        alpha = np.zeros(a.shape[1:])
        for i, j in np.ndindex(*alpha.shape):
            below = 2 * g[k, i, j] ** 2 + g[k, i, j] ** 3 * a[k].sum()
            alpha[i, j] = g[k, i, j] ** 2 / (below if below else 1.0)
        total = sum(alpha[i, j] for i, j in np.ndindex(*alpha.shape) if g[k, i, j] > 0)
        weights.append((alpha / (total if total else 1.0) * np.maximum(g[k], 0)).sum())
    return _weighted(np.array(weights), a)


def grad_cam_pp_l_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a = classifier.trunk(((image - classifier.mean) / classifier.std)[None]).detach().requires_grad_()
    classifier.head(a).softmax(1)[0, target].backward()
    a, g = a.detach()[0].numpy(), a.grad[0].numpy()
    weights = []
    for k in range(len(a)):
        below = 2 * g[k] ** 2 + (a[k] * g[k] ** 3).sum()
        weights.append((g[k] ** 2 / (np.where(below == 0, 1.0, below) + 1e-7) * np.maximum(g[k], 0)).sum())
    return _weighted(np.array(weights), a)


def fused_layer_cam(classifier: Classifier, image: torch.Tensor, target: int, layers: tuple[str, ...]) -> Map:
    """Layers from shallow to deep, activations and gradients kept by hooks on the whole network."""
    import copy

    network, kept = copy.deepcopy(classifier._network[0]), []

    def keep(_module: torch.nn.Module, _given: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    for layer in layers:
        network.get_submodule(layer).register_forward_hook(keep)
    network(((image - classifier.mean) / classifier.std)[None])[0, target].backward()
    found = []
    for output in kept:
        a, g = output.detach()[0].numpy(), output.grad[0].numpy()
        m = np.zeros(a.shape[1:])
        for k in range(len(a)):
            m += np.maximum(g[k], 0) * a[k]
        found.append(np.maximum(m, 0) / m.max())
    large = [np.tanh(2 * m) for m in found[:-1]] + [found[-1]]
    size = max((m.shape for m in found), key=lambda shape: shape[0] * shape[1])
    return np.maximum.reduce([_large(m, torch.Size(size)) for m in large])


# --- masked images -----------------------------------------------------------------------------------------------------------------------


def _large(m: Map, size: torch.Size) -> Map:
    return F.interpolate(torch.tensor(m)[None, None], tuple(size), mode="bilinear", align_corners=False)[0, 0].numpy()


def _logit(classifier: Classifier, normalised: torch.Tensor, target: int) -> float:
    with torch.no_grad():
        return float(classifier.head(classifier.trunk(normalised[None]))[0, target])


def _softmax(scores: list[float]) -> Map:
    e = np.exp(np.array(scores) - max(scores))
    return e / e.sum()


def _over_channels(classifier: Classifier, image: torch.Tensor, target: int, changes: list) -> Map:
    a, _ = _parts(classifier, image, target)
    x = (image - classifier.mean) / classifier.std
    kept = [k for k in range(len(a)) if a[k].max() > a[k].min()]
    masks = {k: _unit(_large(a[k], image.shape[1:])) for k in kept}
    scores = [sum(_logit(classifier, x * torch.tensor(change(masks[k])), target) for change in changes) / len(changes) for k in kept]
    return _weighted(_softmax(scores), a[kept])


def score_cam_softmax(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return _over_channels(classifier, image, target, [lambda m: m])


def score_cam_l_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, _ = _parts(classifier, image, target)
    x = (image - classifier.mean) / classifier.std
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        large = _large(np.maximum(a[k], 0), image.shape[1:])
        span = large.max() - large.min()
        if span > 0:
            total += _probability(classifier, x * torch.tensor(large / span), target) * a[k] / span
    return np.maximum(total, 0)


def is_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return _over_channels(classifier, image, target, [lambda m, i=i: (i + 1) / 10 * m for i in range(10)])


def is_cam_cumulative(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return _over_channels(classifier, image, target, [lambda m, i=i: sum(range(1, i + 2)) / 10 * m for i in range(10)])


def ss_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    generator = torch.Generator().manual_seed(0)
    noise = [2.0 * torch.randn(image.shape[1:], generator=generator, dtype=torch.float64).numpy() for _ in range(35)]
    return _over_channels(classifier, image, target, [lambda m, n=n: m + n for n in noise])


def ablation_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, _ = _parts(classifier, image, target)

    def logit(features: Map) -> float:
        with torch.no_grad():
            return float(classifier.head(torch.tensor(features)[None])[0, target])

    weights = []
    for k in range(len(a)):
        without = a.copy()
        without[k] = 0
        weights.append((logit(a) - logit(without)) / abs(logit(a)))
    return _weighted(np.array(weights), a)


def fd_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)

    def logit(keep: Map) -> float:
        with torch.no_grad():
            return float(classifier.head(torch.tensor(a * keep[:, None, None])[None])[0, target])

    flat = a.reshape(len(a), -1)
    scores = []
    for k in range(len(a)):
        norms = [np.linalg.norm(flat[k]) * np.linalg.norm(flat[j]) for j in range(len(a))]
        cosine = np.array([flat[k] @ flat[j] / norms[j] if norms[j] else 0.0 for j in range(len(a))])
        group = (cosine > np.quantile(cosine, 0.95)).astype(float)
        scores.append(logit(group) + logit(np.ones(len(a))) - logit(1 - group))
    return _weighted(np.exp(_unit(np.array(scores))) * _unit(g.mean((1, 2))) - 0.5, a)


def _group_cam(classifier: Classifier, image: torch.Tensor, target: int, *, latest: bool) -> Map:
    from torchvision.transforms.functional import gaussian_blur

    a, g = _parts(classifier, image, target)
    side = 2 * ((min(image.shape[1:]) - 1) // 2) + 1
    blurred = gaussian_blur(image[None], [min(51, side)] * 2, [50.0, 50.0])[0]
    per = -(-len(a) // 32)
    base = _probability(classifier, (blurred - classifier.mean) / classifier.std, target)
    total = np.zeros(image.shape[1:])
    for first in range(0, len(a), per):
        m = np.maximum(sum(g[k].mean() * a[k] for k in range(first, min(first + per, len(a)))), 0)
        if not latest:
            m = np.where(m > np.quantile(m, 0.7), m, 0.0)
        if m.max() == m.min():
            continue
        h = torch.tensor(_unit(_large(m, image.shape[1:])))
        gain = _probability(classifier, (image * h + blurred * (1 - h) - classifier.mean) / classifier.std, target) - base
        total += max(gain, 0.0) * _large(m, image.shape[1:]) if latest else gain * h.numpy()
    return np.maximum(total, 0)


def group_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return _group_cam(classifier, image, target, latest=False)


def group_cam_head(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return _group_cam(classifier, image, target, latest=True)


def rise(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    """Given the masks, whose making has tests of its own."""
    from cam_core.methods.perturbation import rise_masks

    x = (image - classifier.mean) / classifier.std
    masks = torch.cat(list(rise_masks(image.shape[1:], 4000))).double()
    with torch.no_grad():
        logits = classifier.head(classifier.trunk(x * masks[:, None])).numpy()
    total = np.zeros(image.shape[1:])
    for scores, mask in zip(logits, masks.numpy(), strict=True):
        total += _softmax(scores)[target] * mask
    return total / (4000 * 0.5)


def opti_cam(classifier: Classifier, image: torch.Tensor, target: int, steps: int = 50, lr: float = 0.1) -> Map:
    """Adam written out (Kingma & Ba, algorithm 1); its gradient by autograd."""
    a, _ = _parts(classifier, image, target)
    a = torch.tensor(np.maximum(a, 0))
    u, m, v = torch.full((len(a),), 0.5, dtype=torch.float64), torch.zeros(len(a)), torch.zeros(len(a))
    for t in range(1, steps + 1):
        u = u.detach().requires_grad_()
        shown = F.interpolate((u.softmax(0)[:, None, None] * a).sum(0)[None, None], image.shape[1:], mode="bilinear")[0, 0]
        shown = (shown - shown.min()) / (shown.max() - shown.min())
        loss = -classifier((shown * image)[None])[0, target]
        loss.backward()
        m, v = 0.9 * m + 0.1 * u.grad, 0.999 * v + 0.001 * u.grad**2
        u = u.detach() - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return (u.softmax(0)[:, None, None] * a).sum(0).numpy()


# --- pixels ------------------------------------------------------------------------------------------------------------------------------


def _pixel_gradient(classifier: Classifier, normalised: torch.Tensor, target: int) -> Map:
    x = normalised[None].clone().requires_grad_()
    classifier.head(classifier.trunk(x))[0, target].backward()
    classifier.zero_grad()
    return x.grad[0].numpy()


def _normalised(classifier: Classifier, image: torch.Tensor) -> torch.Tensor:
    return (image - classifier.mean) / classifier.std


def saliency(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return np.abs(_pixel_gradient(classifier, _normalised(classifier, image), target)).max(0)


def integrated_gradients(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    """From the mean colour; the nodes of Gauss and Legendre as Golub and Welsch find them, from the recurrence's matrix."""
    x = _normalised(classifier, image)
    beside = np.array([k / np.sqrt(4 * k**2 - 1) for k in range(1, 50)])
    nodes, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
    total = np.zeros(x.shape)
    for node, weight in zip(nodes, 2 * vectors[0] ** 2, strict=True):
        total += weight / 2 * _pixel_gradient(classifier, (node + 1) / 2 * x, target)
    return (total * x.numpy()).sum(0)


def guided_backprop(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    """R = 1[A > 0] 1[R > 0] R behind every ReLU, layer by layer from the logit down; the trunks here are convolutions and ReLUs."""
    names = [name for name in ("conv", "relu", "conv1", "relu1", "conv2", "relu2") if hasattr(classifier.trunk, name)]
    layers, seen = [getattr(classifier.trunk, name) for name in names], [_normalised(classifier, image)[None]]
    with torch.no_grad():
        for layer in layers:
            seen.append(layer(seen[-1].clone()))
    last = seen[-1].requires_grad_()
    relevance = torch.autograd.grad(classifier.head(last)[0, target], last)[0]
    for layer, given, made in zip(layers[::-1], seen[-2::-1], seen[:0:-1], strict=True):
        if isinstance(layer, torch.nn.ReLU):
            relevance = (made > 0) * (relevance > 0) * relevance
        else:
            relevance = torch.nn.grad.conv2d_input(given.shape, layer.weight, relevance, layer.stride, layer.padding)
    return relevance[0].detach().abs().numpy().max(0)


def integrated_gradients_calm(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    x = _normalised(classifier, image)
    return sum(np.abs(_pixel_gradient(classifier, x * (s / 50), target)).max(0) for s in range(51)) / 50


def _under_noise(classifier: Classifier, image: torch.Tensor, target: int, samples: int, spread: float) -> list[Map]:
    import zlib

    x = _normalised(classifier, image)
    sigma = spread * (x.max() - x.min())
    generator = torch.Generator().manual_seed(zlib.crc32(image.numpy().tobytes(), 0))
    noise = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for _ in range(samples)]
    return [_pixel_gradient(classifier, x + sigma * one, target) for one in noise]


def smooth_grad(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return np.abs(np.mean(_under_noise(classifier, image, target, 25, 0.15), 0)).max(0)


def var_grad(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    found = np.array(_under_noise(classifier, image, target, 25, 0.15))
    return ((found**2).mean(0) - found.mean(0) ** 2).max(0)


def smooth_grad_calm(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return np.mean([np.abs(g).max(0) for g in _under_noise(classifier, image, target, 50, 0.25)], 0)


def smooth_grad_squared_calm(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return np.mean([np.abs(g).max(0) ** 2 for g in _under_noise(classifier, image, target, 50, 0.25)], 0)


def var_grad_calm(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    found = np.array([np.abs(g).max(0) for g in _under_noise(classifier, image, target, 50, 0.25)])
    return (found**2).mean(0) - found.mean(0) ** 2


# --- the methods since --------------------------------------------------------------------------------------------------------------------


def kpca_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, _ = _parts(classifier, image, target)
    x = np.array([[channel[i, j] - channel.mean() for channel in a] for i, j in np.ndindex(*a.shape[1:])])
    kernel = np.array([[np.tanh(np.dot(p, q) / len(a) + 1) for q in x] for p in x])
    centring = np.eye(len(x)) - 1 / len(x)
    left, values, _ = np.linalg.svd(centring @ kernel @ centring, hermitian=True)  # the kernel is positive where it matters
    component = left[:, 0] * np.sqrt(values[0])
    return (component if component.max() > -component.min() else -component).reshape(a.shape[1:])


def fem(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, _ = _parts(classifier, image, target)
    total = np.zeros(a.shape[1:])
    for channel in a:
        mean = channel.sum() / channel.size
        spread = np.sqrt(((channel - mean) ** 2).sum() / channel.size)
        for i, j in np.ndindex(*channel.shape):
            total[i, j] += mean if channel[i, j] > mean + 2 * spread else 0.0
    return total


def fem_activations(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, _ = _parts(classifier, image, target)
    total = np.zeros(a.shape[1:])
    for channel in a:
        strong = sum(value > channel.mean() + 2 * channel.std() for value in channel.flatten())
        total += strong / channel.size * channel
    return total


def grad_cam_elementwise(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)
    return sum((np.maximum(g[k] * a[k], 0) for k in range(len(a))), np.zeros(a.shape[1:]))


def _first(matrix: Map, size: tuple[int, ...]) -> Map:
    matrix = matrix - matrix.mean(0)
    projected = matrix @ np.linalg.svd(matrix, full_matrices=False)[2][0]
    return (projected if projected.max() > -projected.min() else -projected).reshape(size)


def eigen_grad_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)
    return _first((g * a).reshape(len(a), -1).T, a.shape[1:])


def seg_eigen_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a, g = _parts(classifier, image, target)
    return _first((np.abs(g) * a).reshape(len(a), -1).T, a.shape[1:])


def _logits(classifier: Classifier, image: torch.Tensor) -> Map:
    with torch.no_grad():
        return classifier.head(classifier.trunk(((image - classifier.mean) / classifier.std)[None]))[0].numpy()


def _grad_cam_of(classifier: Classifier, image: torch.Tensor, score: Callable[[torch.Tensor], torch.Tensor]) -> Map:
    """Grad-CAM of any score of the logits [C], by autograd."""
    a = classifier.trunk(((image - classifier.mean) / classifier.std)[None]).detach().requires_grad_()
    g = torch.autograd.grad(score(classifier.head(a.clone())[0]), a)[0][0].numpy()
    return _weighted(g.mean((1, 2)), a.detach()[0].numpy())


def finer_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    y = _logits(classifier, image)
    near = sorted((c for c in range(len(y)) if c != target), key=lambda c: abs(y[c] - y[target]))[:3]
    return _grad_cam_of(classifier, image, lambda z: z[target] - 0.6 * (z[near[0]] + z[near[1]] + z[near[2]]) / 3)


def finer_cam_softmax(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    y = _logits(classifier, image)
    near = sorted((c for c in range(len(y)) if c != target), key=lambda c: abs(y[c] - y[target]))[:3]

    def score(z: torch.Tensor) -> torch.Tensor:
        p = z.softmax(0)
        return sum(p[c] * (z[target] - z[c]) for c in near) / sum(p[c] for c in near)

    return _grad_cam_of(classifier, image, score)


def shapley_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    a = classifier.trunk(((image - classifier.mean) / classifier.std)[None]).detach()

    def rest(flat: torch.Tensor) -> torch.Tensor:
        z = classifier.head(flat.reshape(a.shape))[0]
        return z[target] + torch.log(z[target].exp() / z.exp().sum())

    flat = a.flatten()
    g = torch.autograd.functional.jacobian(rest, flat)
    h = torch.autograd.functional.hessian(rest, flat)
    weights = (g - h @ flat / 2).reshape(a.shape[1:]).mean((1, 2)).numpy()
    return _weighted(weights, a[0].numpy())


def expected_grad_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    generator = torch.Generator().manual_seed(zlib.crc32(image.numpy().tobytes(), 0))
    order = torch.randperm(10, generator=generator).tolist()
    a, _ = _parts(classifier, image, target)
    weights = np.zeros(len(a))
    for turn in order:
        colour = torch.rand(3, 1, 1, generator=generator, dtype=torch.float64)
        noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        t = (turn + 0.5) / 10
        point = (1 - t) * colour + t * image + 0.15 * (image.max() - image.min()) * noise
        start, _ = _parts(classifier, colour.expand(image.shape), target)
        _, g = _parts(classifier, point, target)
        weights += (g * (a - start)).sum((1, 2)) / 10
    return _weighted(weights, a)


def refine_cam(classifier: Classifier, image: torch.Tensor, target: int, layers: tuple[str, ...] = ()) -> Map:
    found = [_unit(grad_cam_pp(classifier.at(layer), image, target)) for layer in layers]
    size = max((m.shape for m in found), key=lambda s: s[0] * s[1])
    product = np.ones(size)
    for m in found:
        product *= F.interpolate(torch.tensor(m)[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()
    return product


def poly_cam(classifier: Classifier, image: torch.Tensor, target: int, layers: tuple[str, ...] = (), gain: str = "both") -> Map:
    x, coarser = (image - classifier.mean) / classifier.std, np.ones((1, 1))
    for depth, layer in enumerate(reversed(layers)):
        with torch.no_grad():
            a = classifier.at(layer).trunk(x[None])[0].numpy()
        m = np.zeros(a.shape[1:])
        for k in range(len(a)):
            low, high = np.percentile(a[k], 0.1), np.percentile(a[k], 99.9)
            mask = _large(np.clip((a[k] - low) / max(high, 1e-12), 0, 1), x.shape[1:])
            with_it = _probability(classifier, x * torch.tensor(mask), target)
            lost = _probability(classifier, x, target) - _probability(classifier, x * torch.tensor(1 - mask), target)
            m += {"plus": with_it, "minus": max(lost, 0), "both": max(with_it + lost, 0)}[gain] * a[k]
        m = np.maximum(m, 0)
        local = np.ones(m.shape) if depth == 0 else np.maximum(_large(_large(m, coarser.shape), m.shape), 1e-12)
        coarser = m / local * _large(coarser, m.shape)
    return coarser


def recipro_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    with torch.no_grad():
        a = classifier.trunk(((image - classifier.mean) / classifier.std)[None])
        heat = np.zeros(a.shape[2:])
        for i, j in np.ndindex(*heat.shape):
            alone = torch.zeros_like(a)
            alone[0, :, i, j] = a[0, :, i, j]
            e = np.exp(classifier.head(alone)[0].numpy())
            heat[i, j] = e[target] / e.sum()
    return heat


def _large(m: Map, size: tuple[int, ...]) -> Map:
    return F.interpolate(torch.tensor(m)[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()


def grad_pp_score_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    first, second = (_unit(_large(form(classifier, image, target), image.shape[1:])) for form in (grad_cam_pp, score_cam))
    return 0.5 * first + 0.5 * second


def fusion_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    size, x = image.shape[1:], (image - classifier.mean) / classifier.std

    def p(mask: Map) -> float:
        return _probability(classifier, x * torch.tensor(mask), target)

    d, r = (_unit(_large(form(classifier, image, target), size)) for form in (grad_cam, score_cam_softmax))
    d = _unit(np.where(d < np.percentile(d, 10), 0, d))
    black = p(np.zeros(size))
    gain_d, gain_r = p(d) - black, p(r) - black
    share_d, share_r = gain_d / (gain_d + gain_r + 1e-8), gain_r / (gain_d + gain_r + 1e-8)
    union = _unit(share_d * d + share_r * r)
    gain = p(union) - black
    one, two = gain / (gain + share_r + 1e-8) * union, share_r / (gain + share_r + 1e-8) * r
    fused = np.zeros(size)
    for i, j in np.ndindex(*size):
        alike = min(max(1 - abs(one[i, j] - two[i, j]), 0), 1)
        fused[i, j] = alike * max(one[i, j], two[i, j]) + (1 - alike) * (one[i, j] + two[i, j]) / 2
    return _unit(fused)


def guided_grad_cam(classifier: Classifier, image: torch.Tensor, target: int) -> Map:
    return guided_backprop(classifier, image, target) * _large(grad_cam(classifier, image, target), image.shape[1:])
