"""CALM (Kim et al., ICCV 2021): the position z of the cue as a latent variable, p(y,z|x) = p(y|x,z) p(z|x).

Activations A [B,K,h,w] are read by two 1x1 convolutions: f [B,C,h,w] with p(y|x,z) = softmax of f over classes, and a = ReLU(conv) [B,h,w]
with p(z|x) = a / S, S = sum of a over z. All in log space. `studies.em_ml` tries other ways to train it.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from cam_core import maps
from cam_core.classifier import Classifier, linear_head
from cam_core.learned.plain import Loss, shapes, share_correct, start_as_released
from cam_core.options import one_of
from cam_core.probe import Probe


def ml_loss(joint: Tensor) -> Tensor:
    """CALM-ML: ``-log p(y*|x) = -log sum_z p(y*,z|x)``, mean over the batch; ``joint``: log p(y*,z|x) [B,hw] of the label y*."""
    return -joint.logsumexp(1).mean()


def em_loss(joint: Tensor, q: Tensor) -> Tensor:
    """CALM-EM: ``-sum_z q(z) log p(y*,z|x)``, mean over the batch; ``q`` [B,hw] as `posterior` gives it, a constant for the gradient.

    With q at the current parameters the gradient is that of `ml_loss` (Fisher's identity); only the value differs.
    """
    return -(q * torch.where(q > 0, joint, 0.0)).sum(1).mean()  # 0 log 0 = 0


def posterior(joint: Tensor, epsilon: float = 0.0) -> Tensor:
    """``q(z) = p(z|x,y*)`` [B,hw]; as released p(y*,z|x) / (p(y*|x) + ``epsilon``), which ignores images with p(y*|x) far below."""
    marginal = joint.logsumexp(1, keepdim=True)
    q = (joint - marginal).exp()
    return q * (marginal.exp() / (marginal.exp() + epsilon)) if epsilon else q  # p underflows long before its logarithm


def of_class(log_class: Tensor, log_location: Tensor, labels: Tensor) -> Tensor:
    """Log p(y*,z|x) [B,hw] of the labels' classes y* alone, from log p(y|x,z) [B,C,h,w] and log p(z|x) [B,h,w]."""
    return log_class[torch.arange(len(labels)), labels].flatten(1) + log_location.flatten(1)


EPSILON, PATCH = 1e-10, 1e-8  # released


class CalmHead(nn.Module):
    """Activations -> log p(y|x) [B,C], so that the softmax of these "logits" is the marginal itself.

    ``detach_scale``: S is a constant for the gradient, as released. If a is zero everywhere in an image, p(z|x) is undefined: ValueError
    or, with ``uniform``, a uniform p(z|x). ``name``: of the network, which decides the released initialisation.
    """

    def __init__(self, channels: int, num_classes: int, *, detach_scale: bool = True, uniform: bool = False, name: str = "") -> None:
        super().__init__()
        self.class_head = nn.Conv2d(channels, num_classes, 1)
        self.location_head = nn.Conv2d(channels, 1, 1)
        self.detach_scale, self.uniform = detach_scale, uniform
        for head in (self.class_head, self.location_head):
            start_as_released(head, name)

    def extra_repr(self) -> str:
        """The options, for the digest under which a trained model is kept."""
        return f"detach_scale={self.detach_scale}, uniform={self.uniform}"

    def forward(self, activations: Tensor) -> Tensor:
        """Activations [B,K,h,w] -> log p(y|x) [B,C]."""
        return self.log_joint(activations).flatten(2).logsumexp(2)

    def log_joint(self, activations: Tensor) -> Tensor:
        """Log p(y,z|x) [B,C,h,w]; -inf where a is 0."""
        joint: Tensor = self.log_class(activations) + self.log_location(activations)[:, None]
        return joint

    def log_class(self, activations: Tensor) -> Tensor:
        """Log p(y|x,z) [B,C,h,w]."""
        return torch.log_softmax(_single(self.class_head(activations)), 1)

    def log_location(self, activations: Tensor) -> Tensor:
        """Log p(z|x) [B,h,w]; -inf where a is 0."""
        attention = _single(self.location_head(activations)).relu()[:, 0]
        scale = attention.sum((1, 2), keepdim=True)
        dead = scale == 0
        if bool(dead.any()):
            if not self.uniform:
                raise ValueError(
                    f"CALM's attention is zero everywhere in {int(dead.sum())} of {len(dead)} images, so p(z|x) does not exist there: "
                    "train from another seed, or take uniform=True, which looks at every place alike"
                )
            attention = torch.where(dead, 1.0, attention)
            scale = torch.where(dead, float(attention[0].numel()), scale)
        scale = scale.detach() if self.detach_scale else scale
        seen = attention > 0  # log 0 has no gradient; nor has the ReLU at those positions
        logarithm: Tensor = torch.where(seen, torch.where(seen, attention, 1.0).log(), -math.inf) - scale.log()
        return logarithm


def _single(values: Tensor) -> Tensor:
    """Half precision, which a convolution has under autocast, to float32: probabilities must sum to 1."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


class Calm(nn.Module):
    """A `CalmHead` on a trunk (modules shared with ``backbone``, whose head is not used); the prediction is the argmax of p(y|x).

    ``objective``: "ml" (`ml_loss`) or "em" (`em_loss`). The released arithmetic of "em" adds ``epsilon`` to p(y*|x) in the posterior, and
    ``patch`` (the release: 1e-8) to the p(z|x) below it before the logarithm: the loss changes by less than ``patch`` p(y*|x,z) / p(y*|x)
    per position, but this suppresses gradients of a where the attention is near zero.
    """

    def __init__(
        self,
        backbone: Classifier,
        num_classes: int,
        objective: str = "em",
        *,
        detach_scale: bool = True,
        uniform: bool = False,
        epsilon: float = EPSILON,
        patch: float = 0.0,
    ) -> None:
        super().__init__()
        one_of("objective", objective, ("em", "ml"))
        self.name, self.objective, self.epsilon, self.patch = f"calm_{objective}", objective, epsilon, patch
        options: Any = {"detach_scale": detach_scale, "uniform": uniform, "name": backbone.name}
        head = CalmHead(shapes(backbone)[0], num_classes, **options).to(backbone.mean)
        self.classifier = backbone.with_parts(backbone.trunk, head, output=None, activation="softmax")

    @property
    def head(self) -> CalmHead:
        """The two 1x1 convolutions and the probabilities they make."""
        head = self.classifier.head
        assert isinstance(head, CalmHead)
        return head

    @property
    def deviations(self) -> list[str]:
        """What differs from the release beyond the recipe."""
        uniform = ["attention dead everywhere: every place alike instead of NaN"] if self.head.uniform else []
        scale = [] if self.head.detach_scale else ["S: part of the gradient instead of a constant"]
        numbers = [("epsilon", self.epsilon, EPSILON), ("added to p(z|x) where it is less", self.patch, PATCH)] * (self.objective == "em")
        return uniform + scale + [f"{what}: {mine:g} instead of {released:g}" for what, mine, released in numbers if mine != released]

    def extra_repr(self) -> str:
        """The options, for the digest under which a trained model is kept."""
        return f"objective={self.objective}, epsilon={self.epsilon}, patch={self.patch}"

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """The objective's mean over ``images`` [B,3,H,W] in [0, 1] and ``labels`` [B]; and what to log."""
        activations, labels = self.classifier.activations(batch["images"]), batch["labels"]
        log_class, log_location = self.head.log_class(activations), self.head.log_location(activations)
        with torch.no_grad():
            logits = (log_class.flatten(2) + log_location.flatten(1)[:, None]).logsumexp(2)
            log = {"accuracy": share_correct(logits, labels), "nll": ml_loss(of_class(log_class, log_location, labels))}
        return self.criterion(log_class, log_location, batch), log

    def criterion(self, log_class: Tensor, log_location: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The objective from log p(y|x,z) [B,C,h,w] and log p(z|x) [B,h,w]."""
        joint = of_class(log_class, log_location, batch["labels"])
        if self.objective == "ml":
            return ml_loss(joint)
        q = posterior(joint.detach(), self.epsilon)
        if self.patch:
            patched = (log_location.exp() + self.patch).log()
            joint = of_class(log_class, torch.where(log_location < math.log(self.patch), patched, log_location), batch["labels"])
        return em_loss(joint, q)

    @torch.no_grad()
    def explain(self, probe: Probe, kind: str = "joint") -> Tensor:
        """A map [B,h,w] in [0, 1] of probabilities.

        "joint" (the paper's map): p(y=target, z|x). "posterior": p(z|x, y=target), sums to 1. "saliency": p(z|x), sums to 1, the same for
        every class.
        """
        if kind == "saliency":
            return self.head.log_location(probe.activations).exp()
        return self._maps(probe, probe.targets[:, None], kind)[:, 0]

    @torch.no_grad()
    def superclass(self, probe: Probe, members: Tensor, kind: str = "joint", *, mean: bool = False) -> Tensor:
        """Sum of the maps of all classes in S(target), [B,h,w]: "where is a dog" (release: jointll-superclass, gtcond-superclass).

        ``members``: bool [C,C], row y for S(y). "joint": in [0, 1], and p(z|x) where S is all classes. "posterior": the posterior of each
        class sums to 1, so that the map sums to |S|. ``mean``: over |S| (release: -mean).
        """
        weights = members.to(probe.activations)[probe.targets]
        heat = torch.einsum("bc,bchw->bhw", weights, self.class_maps(probe, kind))
        return heat / weights.sum(1)[:, None, None] if mean else heat

    @torch.no_grad()
    def class_maps(self, probe: Probe, kind: str = "joint") -> Tensor:
        """The "joint" p(y,z|x) or "posterior" p(z|x,y) of all classes, [B,C,h,w]."""
        everything = torch.arange(probe.logits.shape[1], device=probe.targets.device)
        return self._maps(probe, everything.expand(len(probe.targets), -1), kind)

    def _maps(self, probe: Probe, classes: Tensor, kind: str) -> Tensor:
        """Maps [B,n,h,w] of the classes [B,n]."""
        one_of("kind", kind, ("joint", "posterior"))
        joint = self.head.log_joint(probe.activations)[torch.arange(len(classes), device=classes.device)[:, None], classes]
        return (joint if kind == "joint" else joint - joint.flatten(2).logsumexp(2)[..., None, None]).exp()


@torch.no_grad()
def vanilla_superclass(probe: Probe, members: Tensor | None = None) -> Tensor:
    """CALM's baseline: the CAMs [B,h,w] of all classes in S(target), each min-maxed, summed (release: vanilla-superclass).

    ``members`` as in `Calm.superclass`; none: all classes, whatever the target (vanilla-saliency). ValueError if the head is not global
    average pooling and one linear layer.
    """
    weights = linear_head(probe.classifier, probe.activations.shape[1]).weight
    cams = maps.min_max(torch.einsum("ck,bkhw->bchw", weights, probe.activations))
    return cams.sum(1) if members is None else torch.einsum("bc,bchw->bhw", members.to(cams)[probe.targets], cams)
