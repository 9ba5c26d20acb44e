"""L-CAM (Gkartzonika et al., ECCVW 2022): one 1x1 convolution learns the map of every class of a frozen classifier.

A [N,K,h,w] are the classifier's activations, m = sigmoid(conv(A)) [N,C,h,w] the maps, y [N] the classes that the classifier itself
predicts ("model truth").
"""

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from cam_core import maps
from cam_core.classifier import Classifier
from cam_core.learned.plain import Loss, shapes, share_correct
from cam_core.options import one_of
from cam_core.probe import Probe

RELEASED = {"entropy": 1.5, "area": 2.0, "variation": 0.01, "power": 0.3}  # the loss: weights of its terms, exponent of the area
ENTROPY_ALONE = {"entropy": 1.0, "area": 0.0, "variation": 0.0}  # the paper's ablation, its rows marked with a star


class LCam(nn.Module):
    """L-CAM-Fm ("fm": the map multiplies the activations) and L-CAM-Img ("img": upsampled, it multiplies the image in [0, 1]).

    ``masks``: the maps of which area and variation are computed. "batch", as released: for every image the maps of all N classes in the
    batch, N² in all, which makes the variation term N times as large; "own": each image's own class, where ``variation`` = 0.01 N restores
    the balance. ``cached``: train on activations of the centre view, which pass the trunk once and are kept in a temporary file
    (`training.cached`). ``dropout``: the classifier's dropout is active in training, while the rest of it is in eval mode; by default for
    VGG, as released. ``raw``: the attention reads activations of the image in [0, 1], not normalised, in training and in `explain`. One
    released file does this, ResNet-50's Img by cross-entropy alone (a row with a star in the paper's table); by default it is normalised
    there too, as in all other files. Only ``attention`` is trained and stored; the ``classifier`` is put into eval mode and its parameters
    no longer require gradients.
    """

    def __init__(
        self,
        classifier: Classifier,
        variant: str = "fm",
        *,
        masks: str = "batch",
        entropy: float = RELEASED["entropy"],
        area: float = RELEASED["area"],
        variation: float = RELEASED["variation"],
        power: float = RELEASED["power"],
        cached: bool = True,
        dropout: bool | None = None,
        raw: bool = False,
    ) -> None:
        super().__init__()
        one_of("variant", variant, ("fm", "img"))
        one_of("masks", masks, ("batch", "own"))
        if raw and variant == "fm":
            raise ValueError('L-CAM-Fm masks the activations that it reads, so they are normalised: take raw=False, or the variant "img"')
        self.variant, self.masks, self.cached, self.raw = variant, masks, cached, raw
        self.entropy, self.area, self.variation, self.power = entropy, area, variation, power
        self.alone = area == variation == 0
        options = ",".join(["ce"] * self.alone + ["raw"] * raw)
        self.name = f"l_cam_{variant}" + (f"[{options}]" if options else "")
        self.dropout = classifier.name.startswith("vgg") if dropout is None else dropout
        self.classifier = classifier.eval().requires_grad_(requires_grad=False)
        self.attention = nn.Conv2d(*shapes(classifier), kernel_size=1).to(classifier.mean)

    def train(self, mode: bool = True) -> "LCam":
        """Training mode for the attention; the classifier stays in eval mode, except its dropout if ``dropout`` is set."""
        super().train(mode)
        self.classifier.eval()
        for module in self.classifier.modules():
            if isinstance(module, nn.Dropout):
                module.train(mode and self.dropout)
        return self

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """1.5 cross-entropy + 2 area + 0.01 variation (released weights); and its terms.

        The batch has ``labels`` [N], and ``activations`` [N,K,h,w] or ``images`` [N,3,H,W] in [0, 1], or both. With several processes each
        has its share of the batch, but uses the maps of all classes in the whole batch.
        """
        labels = batch["labels"]
        if "activations" in batch:
            activations = batch["activations"].to(self.attention.weight.dtype)
        else:
            with torch.no_grad():
                activations = self.read(self.classifier, batch["images"])
        # only the rows of the classes in the batch: the loss does not use the other maps
        classes, first = gathered(labels)
        all_maps = F.conv2d(activations, self.attention.weight[classes], self.bias[classes]).sigmoid()  # [N,N,h,w]
        own = all_maps.diagonal(first).permute(2, 0, 1)[:, None]  # [N,1,h,w]
        if self.variant == "fm":
            logits = self.classifier.classify(own * activations)
        else:  # black where masked, then normalised
            logits = self.classifier(maps.upsample(own, batch["images"].shape[-2:]) * batch["images"])
        chosen = all_maps if self.masks == "batch" else own
        entropy = F.nll_loss(self.classifier.log_probabilities(logits), labels)
        size, variation = area(chosen, self.power), total_variation(chosen)
        terms = {"entropy": entropy.detach(), "area": size.detach(), "variation": variation.detach()}
        loss = self.entropy * entropy + self.area * size + self.variation * variation
        return loss, {"accuracy": share_correct(logits, labels), **terms}

    def read(self, classifier: Classifier, images: Tensor) -> Tensor:
        """The activations [N,K,h,w] that the attention reads of images [N,3,H,W] in [0, 1]."""
        # the classifier's normalisation undoes this
        return classifier.activations(images * classifier.std + classifier.mean if self.raw else images)

    @property
    def bias(self) -> Tensor:
        """The attention's bias [C]."""
        assert self.attention.bias is not None
        return self.attention.bias

    @torch.no_grad()
    def explain(self, probe: Probe) -> Tensor:
        """The map of the target before the sigmoid, [B,h,w], signed (released read-out); with ``raw`` by another pass through the trunk."""
        activations = self.read(probe.classifier, probe.images) if self.raw else probe.activations
        weight, bias = (of[probe.targets].to(activations.dtype) for of in (self.attention.weight[:, :, 0, 0], self.bias))
        return torch.einsum("bk,bkhw->bhw", weight, activations) + bias[:, None, None]

    @property
    def deviations(self) -> list[str]:
        """What differs from the release beyond the recipe."""
        released = {**RELEASED, **(ENTROPY_ALONE if self.alone else {})}  # the paper's ablation has weights of its own
        sums = "own class instead of all N classes of the batch, whose variation is N times as large beside the other terms"
        own = [f"masks: those of the image's {sums}"] if self.masks == "own" and not self.alone else []
        weights = {name: getattr(self, name) for name in released}
        own += [f"{name}: {weight:g} instead of {released[name]:g}" for name, weight in weights.items() if weight != released[name]]
        vgg, seen = self.classifier.name.startswith("vgg"), ["normalised", "not normalised"]
        if self.raw != (self.alone and self.variant == "img" and not vgg):  # ResNet-50's file
            own.append(f"input of the attention's features: {seen[self.raw]} instead of {seen[not self.raw]}")
        return own + (["dropout of the frozen VGG: off instead of on"] if vgg and not self.dropout else [])

    def extra_repr(self) -> str:
        """The options, for the digest under which a trained model is kept."""
        terms = f"entropy={self.entropy}, area={self.area}, variation={self.variation}, power={self.power}"
        seen = f"cached={self.cached}, dropout={self.dropout}" + ", raw" * self.raw
        return f"variant={self.variant}, masks={self.masks}, {seen}, {terms}"


def area(masks: Tensor, power: float = 0.3) -> Tensor:
    """Mean of (m + 0.0005)^0.3 over all entries."""
    return (masks + 0.0005).pow(power).mean()


def total_variation(masks: Tensor) -> Tensor:
    """Of masks [N,M,h,w]: squared differences of neighbours + 0.3 x squared borders (corners twice), summed over all, / 2N."""
    inner = masks.diff(dim=2).square().sum() + masks.diff(dim=3).square().sum()
    border = masks[..., [0, -1], :].square().sum() + masks[..., [0, -1]].square().sum()
    return (inner + 0.3 * border) / (2 * len(masks))


def gathered(labels: Tensor) -> tuple[Tensor, int]:
    """The labels of all processes, concatenated, and where those of this process begin; ``labels`` and 0 for a single process."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return labels, 0
    shares: list[list[int]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(shares, labels.tolist())  # shares of the last batch may differ in size
    return labels.new_tensor([label for share in shares for label in share]), sum(map(len, shares[: distributed.get_rank()]))
