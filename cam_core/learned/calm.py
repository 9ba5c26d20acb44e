"""CALM (Kim et al., ICCV 2021): the place z of the cue as a latent variable, p(y,z|x) = p(y|x,z) p(z|x).

Activations A [B,K,h,w] are read by two 1x1 convolutions: f [B,C,h,w] with p(y|x,z) = softmax of f over classes, and
a = ReLU(conv) [B,h,w] with p(z|x) = a / S, S = sum of a over z. All in log space.
"""

import math

import torch
from torch import Tensor, nn

from cam_core.classifier import Classifier, cut, load_classifier, load_network
from cam_core.learned.plain import Loss, shapes, share_correct
from cam_core.probe import Probe


class CalmHead(nn.Module):
    """Activations -> log p(y|x) [B,C], so that the softmax of these "logits" is the marginal itself.

    ``detach_scale``: S is a constant for the gradient, as released. An image whose a is zero everywhere has no p(z|x): ValueError, or,
    with ``uniform``, every place alike.
    """

    def __init__(self, channels: int, num_classes: int, *, detach_scale: bool = True, uniform: bool = False) -> None:
        super().__init__()
        self.class_head = nn.Conv2d(channels, num_classes, 1)
        self.location_head = nn.Conv2d(channels, 1, 1)
        self.detach_scale, self.uniform = detach_scale, uniform
        for head in (self.class_head, self.location_head):
            nn.init.xavier_uniform_(head.weight)
            nn.init.zeros_(head.get_parameter("bias"))

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
        return torch.log_softmax(self.class_head(activations), 1)

    def log_location(self, activations: Tensor) -> Tensor:
        """Log p(z|x) [B,h,w]; -inf where a is 0."""
        attention = self.location_head(activations).relu()[:, 0]
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
        seen = attention > 0  # log 0 has no gradient; ReLU gives those places none anyway
        logarithm: Tensor = torch.where(seen, torch.where(seen, attention, 1.0).log(), -math.inf) - scale.log()
        return logarithm


class Calm(nn.Module):
    """A trunk (modules shared with ``backbone``, whose head is dropped) under a `CalmHead`; prediction is the argmax of p(y|x).

    ``objective`` "ml": -log p(y*|x). "em": -sum_z q(z) log p(y*,z|x) with q = p(y*,z|x) / (p(y*|x) + ``epsilon``), detached, at the
    current parameters, as released. By Fisher's identity its gradient is the ML gradient times p/(p + epsilon), p = p(y*|x); only the
    value differs. ``epsilon`` is 1e-10 in the release. (Its clipping of p(z|x) at 1e-8 has no gradient and is left out.)
    """

    def __init__(
        self,
        backbone: Classifier,
        num_classes: int,
        objective: str = "em",
        *,
        detach_scale: bool = True,
        uniform: bool = False,
        epsilon: float = 1e-10,
    ) -> None:
        super().__init__()
        if objective not in ("em", "ml"):
            raise ValueError(f'CALM is trained by "em" or "ml", got {objective!r}')
        self.name, self.objective, self.epsilon = f"calm_{objective}", objective, epsilon
        head = CalmHead(shapes(backbone)[0], num_classes, detach_scale=detach_scale, uniform=uniform).to(backbone.mean)
        self.classifier = Classifier(backbone.trunk, head, name=backbone.name, layer=backbone.layer, weights=backbone.weights)
        self.classifier.mean, self.classifier.std = backbone.mean, backbone.std

    @property
    def head(self) -> CalmHead:
        """The two 1x1 convolutions and the probabilities they make."""
        head = self.classifier.head
        assert isinstance(head, CalmHead)
        return head

    @property
    def deviations(self) -> list[str]:
        """What differs from the release beyond the recipe."""
        return ["attention dead everywhere: every place alike instead of NaN"] if self.head.uniform else []

    def extra_repr(self) -> str:
        """The options, for the digest under which a trained model is kept."""
        return f"objective={self.objective}, epsilon={self.epsilon}"

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """The objective's mean over ``images`` [B,3,H,W] in [0, 1] and ``labels`` [B]; and what to log."""
        labels, activations = batch["labels"], self.classifier.activations(batch["images"])
        log_class, log_location = self.head.log_class(activations), self.head.log_location(activations)
        joint = log_class[torch.arange(len(labels)), labels].flatten(1) + log_location.flatten(1)  # [B,hw], class y* alone
        marginal = joint.logsumexp(1)
        with torch.no_grad():
            logits = (log_class.flatten(2) + log_location.flatten(1)[:, None]).logsumexp(2)
        log = {"accuracy": share_correct(logits, labels), "nll": -marginal.detach().mean()}
        if self.objective == "ml":
            return -marginal.mean(), log
        q = (joint - marginal[:, None]).exp() * (marginal.exp() / (marginal.exp() + self.epsilon))[:, None]
        q = q.detach()
        return -(q * torch.where(q > 0, joint, 0.0)).sum(1).mean(), log  # 0 log 0 = 0

    @torch.no_grad()
    def explain(self, probe: Probe, kind: str = "joint") -> Tensor:
        """A map [B,h,w] in [0, 1] of probabilities.

        "joint" (the paper's map): p(y=target, z|x). "posterior": p(z|x, y=target), sums to 1. "saliency": p(z|x), sums to 1, whatever
        the class.
        """
        if kind == "saliency":
            return self.head.log_location(probe.activations).exp()
        rows = torch.arange(len(probe.targets), device=probe.targets.device)
        joint = self.head.log_joint(probe.activations)[rows, probe.targets]
        if kind == "joint":
            return joint.exp()
        if kind == "posterior":
            return (joint - joint.flatten(1).logsumexp(1)[:, None, None]).exp()
        raise ValueError(f'CALM has maps "joint", "posterior" and "saliency", got {kind!r}')

    @torch.no_grad()
    def class_maps(self, probe: Probe) -> Tensor:
        """p(y,z|x) of all classes, [B,C,h,w]: counterfactual maps are differences of two of them."""
        return self.head.log_joint(probe.activations).exp()


def calm_trunk(name: str, weights: str | None = "imagenet", stride: int = 16) -> Classifier:
    """A pretrained ResNet with finer maps: ``stride`` 16 lets layer4 keep 14x14 at 224, 8 also layer3, 28x28 (the paper's "large").

    The once strided convolutions are used as they are, without dilation. Stride 32 is the stock network. ValueError for another
    family's name or another stride.
    """
    if stride == 32:
        return load_classifier(name, weights)
    stages = {16: ["layer4"], 8: ["layer3", "layer4"]}.get(stride)
    network, source = load_network(name, weights)
    if stages is None or not hasattr(network, "layer4"):
        raise ValueError(f"{name} with stride {stride}: expected a torchvision ResNet and a stride of 32, 16 or 8")
    for stage in stages:
        for module in network.get_submodule(f"{stage}.0").modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    trunk, head = cut(network, "layer4")
    return Classifier(trunk, head, name=name, layer="layer4", weights=source, network=network).eval()
