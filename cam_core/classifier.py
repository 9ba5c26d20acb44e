"""A classifier is a trunk and a head: the network before and after the layer that is explained (`cutting`).

``logits = head(trunk(normalize(images)))`` holds exactly, so a gradient with respect to the activations needs the head alone.
"""

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from cam_core.cutting import abridged, cuts, split
from cam_core.networks import resnet_cifar

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The last rectified convolutional map. A name stands for the last operation below it, as in torchvision's feature extraction.
DEFAULT_LAYER = {
    "resnet": "layer4", "resnext": "layer4", "wide_resnet": "layer4", "densenet": "relu", "squeezenet": "features",
    "mobilenet": "features", "efficientnet": "features", "convnext": "features", "mnasnet": "layers", "shufflenet": "conv5",
    "vit_b": "encoder.layers.encoder_layer_10", "vit_l": "encoder.layers.encoder_layer_22",  # the last block's patches get no gradient
    "vit_h": "encoder.layers.encoder_layer_30", "maxvit": "blocks",
    "regnet": "trunk_output", "googlenet": "inception5b", "inception": "Mixed_7c", "alexnet": "features.11", "swin": "permute",
    "vgg11": "features.19", "vgg13": "features.23", "vgg16": "features.29", "vgg19": "features.35",
    "vgg11_bn": "features.27", "vgg13_bn": "features.33", "vgg16_bn": "features.42", "vgg19_bn": "features.51",
}  # fmt: skip


CIFAR_RESNETS = {f"resnet{depth}": depth for depth in (8, 14, 20, 32, 44, 56, 110)}


class Classifier(nn.Module):
    """``trunk`` [B,3,H,W] -> activations [B,K,h,w], ``head`` activations -> logits [B,C]; images come in [0, 1], un-normalised.

    Normalisation lives inside, so that a mask on the image is a mask on pixels. ``mean`` and ``std`` are per channel, in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Module,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        name: str = "",
        layer: str = "",
        weights: str = "",
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        self.register_buffer("mean", _per_channel(mean), persistent=False)
        self.register_buffer("std", _per_channel(std), persistent=False)
        self.name, self.layer, self.weights = name, layer, weights
        self._network = [network]  # in a list, so that its parameters are not registered a second time
        self._folded, self._cuts = False, dict[str, Classifier]()

    def normalize(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] in [0, 1] -> zero-mean, unit-variance input of the network."""
        return (images - self.mean) / self.std

    def look(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images [B,3,H,W] in [0, 1] -> activations [B,K,h,w] and what the head needs beside them: nothing, or a class token."""
        return _apart(self.trunk(self.normalize(images)))

    def activations(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] in [0, 1] -> activations [B,K,h,w] of the explained layer."""
        return self.look(images)[0]

    def scores(self, inputs: Tensor) -> Tensor:
        """Normalised images [B,3,H,W] -> logits [B,C]."""
        activations, beside = _apart(self.trunk(inputs))
        logits: Tensor = self.head(activations, *beside)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] in [0, 1] -> logits [B,C]."""
        return self.scores(self.normalize(images))

    @property
    def whole(self) -> bool:
        """Whether the network it was cut from is at hand, so that it can be cut elsewhere (`at`)."""
        return self._network[0] is not None

    def at(self, layer: str) -> "Classifier":
        """The same network cut at another layer, weights shared. ValueError if the layer is no cut."""
        network = self._network[0]
        if network is None:
            raise ValueError("a classifier handed over as (trunk, head) has one cut only; hand it over cut at the layer you want")
        if layer not in self._cuts:
            trunk, head = split(network, layer)
            other = Classifier(trunk, head, name=self.name, layer=layer, weights=self.weights, network=network)
            other.mean, other.std = self.mean, self.std
            self._cuts[layer] = other.frozen() if self._folded else other
        return self._cuts[layer].to(self.mean.device).train(self.training)

    def frozen(self) -> "Classifier":
        """A copy for measuring: eval mode, BatchNorm folded into the convolutions, channels_last, no parameter gradients.

        Logits agree with the original to float32 rounding. Never make it of a network that still changes.
        """

        def fixed(part: nn.Module) -> nn.Module:
            part = copy.deepcopy(part).eval()
            part = fuse(part) if isinstance(part, fx.GraphModule) else part
            return part.to(memory_format=torch.channels_last)

        trunk, head = fixed(self.trunk), fixed(self.head)
        other = Classifier(trunk, head, name=self.name, layer=self.layer, weights=self.weights, network=self._network[0])
        other.mean, other.std, other._folded = self.mean, self.std, True
        return other.eval().requires_grad_(requires_grad=False)

    def digest(self) -> str:
        """sha256 over all tensors of the state dict, for provenance."""
        total = hashlib.sha256()
        for key, value in sorted(self.state_dict().items()):
            total.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.get_default_dtype()).view(3, 1, 1)  # 0 and 1 as whole numbers would make images whole


def _apart(seen: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    return (seen, ()) if isinstance(seen, Tensor) else (seen[0], tuple(seen[1:]))


def load_classifier(
    name: str,
    weights: str | Path | None = "imagenet",
    layer: str | None = None,
    num_classes: int | None = None,
    device: str | torch.device = "cpu",
) -> Classifier:
    """A torchvision classification network, or ``resnet<depth>`` of `networks.resnet_cifar`, cut at ``layer``, in eval mode.

    ``weights``: "imagenet" takes the one ``<name>*.safetensors`` in the folder ``CAM_WEIGHTS`` if there is one, else torchvision's
    IMAGENET1K_V1; a path takes that file; None leaves the random initialisation. What was taken stands in ``classifier.weights``.
    """
    network, source = load_network(name, weights, num_classes)
    layer = layer or default_layer(name, network)
    trunk, head = split(network, layer)
    return Classifier(trunk, head, name=name, layer=layer, weights=source, network=network).eval().to(device)


def load_network(name: str, weights: str | Path | None, num_classes: int | None = None) -> tuple[nn.Module, str]:
    """The bare network and the name of the weights it holds. Raises ValueError / FileNotFoundError with what to do."""
    classes = {} if num_classes is None else {"num_classes": num_classes}
    if name in CIFAR_RESNETS:
        network: nn.Module = resnet_cifar(CIFAR_RESNETS[name], **classes)
    elif name in torchvision.models.list_models(module=torchvision.models):
        extra = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        network = torchvision.models.get_model(name, weights=None, **classes, **extra)
    else:
        known = ", ".join([*CIFAR_RESNETS, "resnet18", "resnet50", "vgg16", "mobilenet_v2"])
        raise ValueError(f"unknown network {name!r}: expected one of torchvision.models.list_models() or {known}, ...")
    if weights is None:
        return network, "random"
    if weights == "imagenet":
        file = _local_weights(name)
        if file is None:
            try:
                pretrained = torchvision.models.get_model(name, weights="IMAGENET1K_V1")
            except OSError as error:
                raise FileNotFoundError(
                    f"{name}: no download of IMAGENET1K_V1 ({error}); put {name}*.safetensors into a folder and set CAM_WEIGHTS to it"
                ) from error
            return pretrained, "IMAGENET1K_V1"
        if hasattr(network, "transform_input"):  # GoogLeNet and Inception: these weights were trained on another scale
            network.transform_input = True  # type: ignore[assignment]
    else:
        file = Path(weights)
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such weights file; give a .safetensors state dict of torchvision's {name}")
    _load_state(network, load_file(file), file)
    return network, file.stem


def _local_weights(name: str) -> Path | None:
    folder = os.environ.get("CAM_WEIGHTS")
    if not folder:
        return None
    found = [file for file in sorted(Path(folder).glob(f"{name}*.safetensors")) if _architecture(file) in (name, None)]
    if len(found) > 1:
        raise ValueError(f"{folder} holds {len(found)} files for {name} ({', '.join(f.name for f in found)}): keep one, or pass its path")
    return found[0] if found else None


def _architecture(file: Path) -> str | None:
    with safe_open(file, framework="pt") as content:
        arch = (content.metadata() or {}).get("arch")
    return arch.rsplit(".", 1)[-1] if arch else None


def _load_state(network: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    expected = network.state_dict()
    wrong = [k for k in state if k not in expected or state[k].shape != expected[k].shape]
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    if wrong or missing:
        key = (wrong or missing)[0]
        got = tuple(state[key].shape) if key in state else "nothing"
        want = tuple(expected[key].shape) if key in expected else "nothing"
        raise ValueError(
            f"{file.name} does not fit the network: {key} has {got}, expected {want} ({len(wrong)} wrong, {len(missing)} missing keys)"
        )
    network.load_state_dict(state, strict=False)


def default_layer(name: str, network: nn.Module) -> str:
    """The layer explained when none is named. ValueError for a family that `DEFAULT_LAYER` does not hold: no graph tells where maps end."""
    if name in CIFAR_RESNETS:
        return "layer3"
    family = max((key for key in DEFAULT_LAYER if name.startswith(key)), key=len, default=None)
    if family is None:
        raise ValueError(f"which layer of {name} is explained is not known: pass layer=, one of its cuts {abridged(cuts(network))}")
    return DEFAULT_LAYER[family]


def linear_head(classifier: Classifier, channels: int) -> nn.Linear:
    """The head's linear layer, if the head is global average pooling followed by it (dropout aside); ValueError if not."""
    linear = [module for module in classifier.head.modules() if isinstance(module, nn.Linear)]
    if len(linear) == 1 and linear[0].in_features == channels and not any(_has_other_weights(classifier.head, linear[0])):
        probe = torch.linspace(0, 1, channels * 6, device=linear[0].weight.device, dtype=linear[0].weight.dtype).view(1, channels, 2, 3)
        with torch.no_grad():
            if torch.allclose(classifier.head(probe), linear[0](probe.mean((2, 3))), rtol=1e-4, atol=1e-5):
                return linear[0]
    raise ValueError(
        f"CAM needs a head of global average pooling and one linear layer; {classifier.name or 'this network'} cut at "
        f"{classifier.layer!r} has another one: use grad_cam, which equals CAM where both exist"
    )


def _has_other_weights(head: nn.Module, linear: nn.Linear) -> Iterator[bool]:
    own = {id(p) for p in linear.parameters()}
    return (id(p) not in own for p in head.parameters())
