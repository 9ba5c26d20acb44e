"""L-CAM (Gkartzonika et al., ECCVW 2022): one 1x1 convolution learns, for a frozen classifier, the map of every class.

A [N,K,h,w] are the classifier's activations, m = sigmoid(conv(A)) [N,C,h,w] the maps, y [N] the classes that the classifier itself
predicts ("model truth").
"""

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from cam_core import maps
from cam_core.classifier import Classifier
from cam_core.learned.batches import Tensors, center, features
from cam_core.learned.plain import Loss, shapes, share_correct
from cam_core.learned.recipes import Recipe
from cam_core.probe import Probe


class LCam(nn.Module):
    """L-CAM-Fm ("fm": the map multiplies the activations) and L-CAM-Img ("img": upsampled, it multiplies the image in [0, 1]).

    ``masks``: which maps area and variation are taken of. "batch", as released: for every image the maps of all N classes in the
    batch, N² in all, which makes the variation term N times as large; "own": each image's own class, where ``variation`` = 0.01 N
    restores the balance. ``cached``: train on activations of one centre view per image. ``dropout``: the classifier's dropout stays on
    in training, everything else of it in eval mode; by default for VGG, as released. Only ``attention`` is trained or kept.
    """

    def __init__(
        self,
        classifier: Classifier,
        variant: str = "fm",
        *,
        masks: str = "batch",
        entropy: float = 1.5,
        area: float = 2.0,
        variation: float = 0.01,
        power: float = 0.3,
        cached: bool = True,
        dropout: bool | None = None,
    ) -> None:
        super().__init__()
        if variant not in ("fm", "img") or masks not in ("batch", "own"):
            raise ValueError(f'L-CAM has variants "fm" and "img" and masks "batch" and "own", got {variant!r} and {masks!r}')
        self.name, self.variant, self.masks, self.cached = f"l_cam_{variant}", variant, masks, cached
        self.entropy, self.area, self.variation, self.power = entropy, area, variation, power
        self.dropout = classifier.name.startswith("vgg") if dropout is None else dropout
        self.classifier = classifier.eval().requires_grad_(requires_grad=False)
        self.attention = nn.Conv2d(*shapes(classifier), kernel_size=1).to(classifier.mean)

    def train(self, mode: bool = True) -> "LCam":
        """Training mode of the attention; the classifier stays in eval mode, but for its dropout where that is asked for."""
        super().train(mode)
        self.classifier.eval()
        for module in self.classifier.modules():
            if isinstance(module, nn.Dropout):
                module.train(mode and self.dropout)
        return self

    @property
    def bias(self) -> Tensor:
        """The attention's bias [C]."""
        assert self.attention.bias is not None
        return self.attention.bias

    @property
    def deviations(self) -> list[str]:
        """What differs from the release beyond the recipe."""
        own = ["masks: those of the image's own class instead of all classes of the batch"] if self.masks == "own" else []
        off = self.classifier.name.startswith("vgg") and not self.dropout
        return own + (["dropout of the frozen VGG: off instead of on"] if off else [])

    def extra_repr(self) -> str:
        """The options, for the digest under which a trained model is kept."""
        terms = f"entropy={self.entropy}, area={self.area}, variation={self.variation}, power={self.power}"
        return f"variant={self.variant}, masks={self.masks}, cached={self.cached}, dropout={self.dropout}, {terms}"

    def prepare(self, data: Tensors, recipe: Recipe, *, progress: bool = True) -> dict[str, Tensor]:
        """The training set with the classifier's predictions on centre views for labels and, if ``cached``, float16 activations."""
        images = center(data["images"], recipe.crop)
        activations, predicted = features(self.classifier, images, pool=not self.cached, half=True, progress=progress)
        if not self.cached:
            return {"images": data["images"], "labels": predicted}
        return {"activations": activations, "labels": predicted, **({"images": images} if self.variant == "img" else {})}

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """1.5 cross-entropy + 2 area + 0.01 variation (released weights); and its terms.

        The batch has ``labels`` [N], and ``activations`` [N,K,h,w] or ``images`` [N,3,H,W] in [0, 1], or both. Of several processes each
        has its share of the batch, but takes the maps of the whole batch's classes.
        """
        labels = batch["labels"]
        if "activations" in batch:
            activations = batch["activations"].to(self.attention.weight.dtype)
        else:
            with torch.no_grad():
                activations = self.classifier.activations(batch["images"])
        # only the rows of the classes in the batch: the other maps enter no term
        classes, first = gathered(labels)
        all_maps = F.conv2d(activations, self.attention.weight[classes], self.bias[classes]).sigmoid()  # [N,N,h,w]
        own = all_maps.diagonal(first).permute(2, 0, 1)[:, None]  # [N,1,h,w]
        logits = self._masked(own, activations, batch)
        chosen = all_maps if self.masks == "batch" else own
        terms = F.cross_entropy(logits, labels), area(chosen, self.power), total_variation(chosen)
        loss = self.entropy * terms[0] + self.area * terms[1] + self.variation * terms[2]
        logged = dict(zip(("entropy", "area", "variation"), (term.detach() for term in terms), strict=True))
        return loss, {"accuracy": share_correct(logits, labels), **logged}

    def _masked(self, own: Tensor, activations: Tensor, batch: dict[str, Tensor]) -> Tensor:
        if self.variant == "fm":
            logits: Tensor = self.classifier.head(own * activations)
        else:
            images = batch["images"]
            logits = self.classifier(maps.upsample(own, images.shape[-2:]) * images)  # black where masked, then normalised
        return logits

    @torch.no_grad()
    def explain(self, probe: Probe) -> Tensor:
        """The map of the target before the sigmoid, [B,h,w], signed (released read-out), from the probe's activations."""
        weight, bias = self.attention.weight[probe.targets, :, 0, 0], self.bias[probe.targets]
        return torch.einsum("bk,bkhw->bhw", weight, probe.activations) + bias[:, None, None]


def gathered(labels: Tensor) -> tuple[Tensor, int]:
    """The labels of all processes one after another, and where this one's begin; ``labels`` and 0 for a single process."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return labels, 0
    shares: list[list[int]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(shares, labels.tolist())  # shares of the last batch may differ in size
    return labels.new_tensor([label for share in shares for label in share]), sum(map(len, shares[: distributed.get_rank()]))


def area(masks: Tensor, power: float = 0.3) -> Tensor:
    """Mean of (m + 0.0005)^0.3 over all entries."""
    return (masks + 0.0005).pow(power).mean()


def total_variation(masks: Tensor) -> Tensor:
    """Of masks [N,M,h,w]: squared differences of neighbours + 0.3 x squared borders (corners twice), summed over all, / 2N."""
    inner = masks.diff(dim=2).square().sum() + masks.diff(dim=3).square().sum()
    border = masks[..., [0, -1], :].square().sum() + masks[..., [0, -1]].square().sum()
    return (inner + 0.3 * border) / (2 * len(masks))
