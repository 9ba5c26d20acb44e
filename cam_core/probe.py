"""A batch of images and what methods ask about it: activations, logits, gradients and masked scores, each computed at most once."""

from collections.abc import Callable, Hashable, Sequence
from functools import cache, cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from cam_core import maps
from cam_core.classifier import Classifier
from cam_core.options import one_of

Finish = Callable[[Tensor], Tensor]
Target = Callable[[Tensor], Tensor]  # logits [N,C] -> scores [N], row by row
Make = Callable[[Tensor, Tensor], Tensor]  # which image [n], which of its versions [n] -> the versions [n,3,H,W]
T = TypeVar("T")
PIXELS_PER_CHUNK = 8 * 224 * 224  # eight of 224 x 224, by any engine (benchmarks.engines); fixed, so that runs repeat to the bit


class Probe:
    """What a method can ask a classifier about images [B,3,H,W] in [0, 1], each with one target class.

    ``targets``: a LongTensor [B], a list of B classes or one class for all; defaults to the prediction. Or a function of logits [N,C] to
    scores [N], each of its own row: a difference of two classes, a similarity to an embedding. Methods then differentiate and compare its
    scores, also where they take a class's probability; what needs a class raises a ValueError. All results are detached, in the
    classifier's dtype (float32 for networks in float16 or bfloat16); the classifier is not changed. ``chunk``: how many masked images pass
    at once. ``autocast``: a dtype such as torch.bfloat16 in which masked images pass, for speed; nothing else changes. ValueError if a part
    of the classifier is in train mode, the images are no such tensor, lie on another device or leave [0, 1] by more than rounding (they
    were normalised already), or a target does not exist.

    On a GPU, making a probe and scoring selected masks synchronise with the CPU; nothing else here does.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor,
        targets: Tensor | Sequence[int] | int | Target | None = None,
        *,
        chunk: int | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        if not isinstance(classifier, Classifier):
            raise TypeError(f"a probe needs a Classifier, got {type(classifier).__name__}: Classifier.of(network) makes one of a network")
        training = [name or "the classifier" for name, module in classifier.named_modules() if module.training]
        if training:
            raise ValueError(f"{training[0]} is in train mode, BatchNorm and dropout would move: call classifier.eval() first")
        _refuse_other_images(images, classifier)
        _refuse_other_range(images)
        exact = torch.promote_types(classifier.precision, torch.float32)  # half precision is too coarse for sums and squares
        self.classifier, self.images, self._chunk, self._autocast = classifier, images.to(exact), chunk, autocast
        self._targets: Tensor | Target | None = None
        if callable(targets):
            self._targets = targets
            self.score(self.logits)  # ValueError if it gives something else than scores
        elif targets is not None:
            self._targets = _one_class_each(targets, images, classes=self.logits.shape[1])

    def pairs(self, index: Tensor, targets: Tensor | None = None) -> "Probe":
        """The probe of images ``index`` [N] with ``targets`` [N], by default their own; it shares this probe's pass through the trunk."""
        own = self._chosen if targets is None else targets.to(self.images.device)
        other = self._related(self.classifier, self.images[index], own if callable(own) or targets is not None else own[index])
        with torch.inference_mode(mode=False):  # else they would be tensors without gradients
            other._seen = self.activations[index], tuple(part[index] for part in self._seen[1])
            other.logits = self.logits[index]
        return other

    def like(self, images: Tensor) -> "Probe":
        """The probe of other images [B,3,H,W] with the same targets; perturbed images may leave [0, 1]."""
        _refuse_other_images(images, self.classifier)
        return self._related(self.classifier, images.to(self.images.dtype), self._chosen)

    def at(self, layer: str) -> "Probe":
        """The probe of the same images and targets at another cut of the network."""
        return self._related(self.classifier.at(layer), self.images, self._chosen)

    @property
    def _chosen(self) -> Tensor | Target:
        return self._targets if callable(self._targets) else self.targets

    def _related(self, classifier: Classifier, images: Tensor, targets: Tensor | Target) -> "Probe":
        other = Probe.__new__(Probe)
        other.classifier, other.images, other._targets = classifier, images, targets
        other._chunk, other._autocast = self._chunk, self._autocast
        return other

    def once(self, key: Hashable, ask: Callable[[], T]) -> T:
        """The result of ``ask()``, computed once per ``key``: for what does not depend on the map and all methods share."""
        if key not in self._answers:
            self._answers[key] = ask()
        answer: T = self._answers[key]
        return answer

    @cached_property
    def _answers(self) -> dict[Hashable, Any]:
        return {}

    @cached_property
    def _seen(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The activations, and what else the head needs (a transformer's class token, else nothing)."""
        with torch.inference_mode(mode=False), torch.no_grad():
            activations, beside = self.classifier.look(self.images)
            activations, beside = activations.to(self.images.dtype), tuple(part.to(self.images.dtype) for part in beside)
        if activations.ndim != 4:
            layer = self.classifier.layer or "this cut"
            raise ValueError(f"{layer} gives {tuple(activations.shape)}, which is no map [B, K, h, w]: explain a layer before it")
        return activations, beside

    @property
    def activations(self) -> Tensor:
        """[B,K,h,w], the output of the trunk."""
        return self._seen[0]

    @cached_property
    def logits(self) -> Tensor:
        """[B,C], the class scores of the unmasked images."""
        with torch.inference_mode(mode=False), torch.no_grad():
            return self._classify(self.activations, *self._seen[1])

    def _classify(self, activations: Tensor, *beside: Tensor, copy: bool = True) -> Tensor:
        """Logits; ``copy``: of a copy of the activations, because a user's head may change its input in place."""
        given = (part.to(self.classifier.precision, copy=copy) for part in (activations, *beside))
        return self.classifier.classify(*given).to(self.images.dtype)

    @property
    def inputs(self) -> Tensor:
        """[B,3,H,W], the images as the network gets them: normalised, 0 is the mean colour."""
        return self.classifier.normalize(self.images).to(self.images.dtype)

    @cached_property
    def probabilities(self) -> Tensor:
        """[B,C], in float64 (float32 saturates at 1 where Average Gain divides by 1 - p)."""
        return self.classifier.probabilities(self.logits.double())

    @cached_property
    def targets(self) -> Tensor:
        """[B], the explained class. ValueError if the target is a function."""
        if callable(self._targets):
            raise ValueError("the target is a function of the logits, and this needs a class: give one as targets")
        with torch.inference_mode(mode=False):  # autograd cannot save tensors made in inference mode, hence the copy
            return self.logits.argmax(1) if self._targets is None else self._targets.clone()

    def of_target(self, scores: Tensor, images: slice = slice(None)) -> Tensor:
        """What scores [B,...,C] say of each image's target class: [B,...]. ``images``: the scores are of some of the images only."""
        index = self.targets[images].reshape(-1, *[1] * (scores.ndim - 1)).expand(*scores.shape[:-1], 1)
        return scores.gather(-1, index)[..., 0]

    def score(self, logits: Tensor, images: slice = slice(None)) -> Tensor:
        """The score of each image's target [B,...] by logits [B,...,C]: the class's logit, or what the function gives."""
        if not callable(self._targets):
            return self.of_target(logits, images)
        scores: Any = self._targets(rows := logits.flatten(0, -2))
        if not isinstance(scores, Tensor) or scores.shape != rows.shape[:1]:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"the target makes {got} of logits {tuple(rows.shape)}, expected a score of each row, [{len(rows)}]")
        found: Tensor = scores.unflatten(0, logits.shape[:-1])
        return found if logits.requires_grad else found.detach()  # a function may have weights

    def probability(self, logits: Tensor) -> Tensor:
        """The probability of each image's target [B,...] by logits [B,...,C]; of a function, which has none, its score."""
        return self.score(logits) if callable(self._targets) else self.of_target(self.classifier.probabilities(logits))

    def gradients(self, of: str = "logit") -> Tensor:
        """[B,K,h,w]: d score of the target / d activations. ``of`` is "logit" or "probability"."""
        one_of("of", of, ("logit", "probability"))
        return self.once(("gradients", of), lambda: self._differentiate(probability=of == "probability"))

    def _differentiate(self, *, probability: bool) -> Tensor:
        with torch.inference_mode(mode=False), torch.enable_grad():
            activations = self.activations.detach().requires_grad_()
            logits = self._classify(activations, *self._seen[1])
            picked = self.probability(logits) if probability else self.score(logits)
            return torch.autograd.grad(picked.sum(), activations)[0]

    def second_order(self, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian times activations, [B,K,h,w] each, of ``score`` (logits [B,C] -> [B], curved), by the activations."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            activations = self.activations.detach().requires_grad_()
            logits = self._classify(activations, *self._seen[1])
            gradients = torch.autograd.grad(score(logits).sum(), activations, create_graph=True)[0]
            return gradients.detach(), torch.autograd.grad(gradients, activations, self.activations)[0]

    def pixel_gradients(self, inputs: Tensor) -> Tensor:
        """[B,3,H,W]: d logit of each image's target / d normalised image, at ``inputs`` [B,3,H,W] in place of the probe's own."""
        size = self._chunk_size(inputs.shape[-2:])
        gradients = []
        with torch.inference_mode(mode=False), torch.enable_grad():
            for some in (slice(first, first + size) for first in range(0, len(inputs), size)):
                x = inputs[some].detach().clone().requires_grad_()
                picked = self.score(self.classifier.scores(x.clone()), some)  # a leaf must not be changed in place by the network
                gradients.append(torch.autograd.grad(picked.sum(), x)[0])
        return torch.cat(gradients)

    def score_masked(
        self,
        masks: Tensor,
        fill: str | Tensor = "black",
        finish: Finish | None = None,
        *,
        select: Tensor | None = None,
        images: Tensor | None = None,
        adapt: Finish | None = None,
    ) -> Tensor:
        """Logits [B,M,C] of the images under ``masks`` [B,M,h,w], ``m·x + (1-m)·fill``, computed chunk by chunk.

        ``fill``: "black", "mean" (the mean colour: zero after normalisation) or a tensor that broadcasts to [B,3,H,W]. ``finish`` resizes a
        chunk of masks [n,h,w] to the image's size (default: bilinear). ``select`` [B,M] bool: only these are computed, the others are NaN.
        ``images`` [B,3,H',W'] replace the probe's own; ``adapt`` changes the masked images [n,3,H',W'] before the network.
        """
        images = self.images if images is None else images
        colour = self.colour(fill).expand_as(images)
        size = images.shape[-2:]

        def masked(image: Tensor, mask: Tensor) -> Tensor:
            weights = masks[image, mask]
            weights = finish(weights) if finish else maps.upsample(weights, size)
            shown = torch.lerp(colour[image], images[image], weights[:, None].to(images.dtype))
            return adapt(shown) if adapt else shown

        chosen = torch.ones(masks.shape[:2], dtype=torch.bool) if select is None else select
        return self.score_made(masked, chosen, adapt(images[:1]).shape[-2:] if adapt else size)

    def score_made(self, make: Make, chosen: Tensor, size: torch.Size | None = None) -> Tensor:
        """Logits [B,M,C] of M versions of each image, made chunk by chunk; NaN where ``chosen`` [B,M] bool is False.

        ``make(image [n], version [n])`` gives the versions [n,3,H',W'] in [0, 1]; ``size`` is (H', W'), by default the images'.
        """
        logits: Tensor | None = None
        where = chosen.nonzero().to(self.images.device, non_blocking=True)  # synchronises once, to get their number
        if self.classifier.engine is not None:
            self.classifier.engine.expect(len(where))
        for part in where.split(self._chunk_size(size or self.images.shape[-2:])):
            image, version = part.unbind(1)
            with torch.inference_mode(), torch.autocast(self.images.device.type, self._autocast, enabled=self._autocast is not None):
                scores = self.classifier(make(image, version)).to(self.images.dtype)
            if logits is None:
                logits = scores.new_full((*chosen.shape, scores.shape[1]), torch.nan).clone()
            logits[image, version] = scores
        return self.logits.new_full((*chosen.shape, self.logits.shape[1]), torch.nan) if logits is None else logits.clone()

    def score_channels(self, keep: Tensor) -> Tensor:
        """Logits [B,M,C] with the activations' channels multiplied by ``keep`` [B,M,K]; only the head runs."""
        return self.score_scaled(keep[..., None, None])

    def score_scaled(self, factors: Tensor) -> Tensor:
        """Logits [B,M,C] with the activations multiplied by ``factors`` [B,M,K or 1,h or 1,w or 1]; only the head runs."""
        batch, count = factors.shape[:2]
        logits = []
        index = torch.arange(batch * count, device=factors.device)
        for part in index.split(max(1, 2**24 // self.activations[0].numel())):
            image, mask = part // count, part % count
            with torch.inference_mode():
                beside = (part[image] for part in self._seen[1])
                logits.append(self._classify(self.activations[image] * factors[image, mask], *beside, copy=False))
        return torch.cat(logits).reshape(batch, count, -1).clone()

    def colour(self, fill: str | Tensor | None) -> Tensor:
        """What a masked pixel shows, for broadcasting to [B,3,H,W]: "black", "mean" (the mean colour) or a tensor that says it."""
        if isinstance(fill, Tensor):
            return fill.to(self.images)
        if fill == "black":
            return self.images.new_zeros(len(self.classifier.mean), 1, 1)
        if fill == "mean":
            return self.classifier.mean.to(self.images.dtype)
        raise ValueError(f'fill is "black", "mean" or a colour tensor, got {fill!r}')

    def _chunk_size(self, size: torch.Size) -> int:
        if self._chunk is not None:
            return self._chunk
        if self.images.is_cuda:
            return _fitting(self.images.device, size[0] * size[1])
        return max(1, min(256, PIXELS_PER_CHUNK // (size[0] * size[1])))


@cache
def _fitting(device: torch.device, pixels: int) -> int:
    """How many images of so many pixels pass a GPU at once: what an eighth of the free memory holds, at about 100 activations a pixel.

    A power of two, and what was free at the first asking counts: so CUDA graphs fit all later chunks, and a process repeats itself.
    """
    free, _ = torch.cuda.mem_get_info(device)
    return 1 << min(1024, max(8, free // 8 // (pixels * 400))).bit_length() - 1


def _refuse_other_images(images: Tensor, classifier: Classifier) -> None:
    channels, device = len(classifier.mean), classifier.mean.device
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be a tensor of floats in [0, 1], got {kind}: torchvision's to_dtype(..., scale=True) makes one")
    if images.ndim != 4:
        raise ValueError(f"images must be [B, {channels}, H, W] in [0, 1], got {tuple(images.shape)}: one image is image[None]")
    if images.shape[1] != channels:
        raise ValueError(
            f"images have {images.shape[1]} channels, the classifier has mean and std of {channels}: give both as the network was trained"
        )
    if images.device != device:
        raise ValueError(f"images are on {images.device}, the classifier on {device}: move one of them")


def _refuse_other_range(images: Tensor) -> None:
    low, high = torch.stack(images.aminmax()).tolist() if images.numel() else (0.0, 1.0)
    rounding = max(1e-3, torch.finfo(images.dtype).eps)
    if not -rounding <= low <= high <= 1 + rounding:
        raise ValueError(f"images reach from {low:.3g} to {high:.3g}: pass RGB in [0, 1], the classifier normalises them itself")


def _one_class_each(targets: Tensor | Sequence[int] | int, images: Tensor, classes: int) -> Tensor:
    """LongTensor [B] on the images' device. ValueError for another number of targets, or a class that does not exist."""
    found = torch.as_tensor([targets] * len(images) if isinstance(targets, int) else targets, device=images.device)
    if found.is_floating_point() or found.shape != images.shape[:1]:
        raise ValueError(f"targets must be one class per image [{len(images)}], got {tuple(found.shape)} of {found.dtype}")
    least, most = torch.stack(found.aminmax()).tolist() if found.numel() else (0, 0)
    if not 0 <= least <= most < classes:
        bad = most if least >= 0 else least
        raise ValueError(f"target {bad} is out of range: the classifier has {classes} classes (0..{classes - 1})")
    return found.long()
