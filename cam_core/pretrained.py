"""Networks by name, with their pretrained weights, cut at the layer that is explained by default."""

import os
from pathlib import Path

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from cam_core.classifier import Classifier
from cam_core.cutting import abridged, cuts, split
from cam_core.networks import resnet_cifar

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
    if not isinstance(name, str):
        raise TypeError(f"load_classifier takes a name, got {type(name).__name__}: a network of your own goes into Classifier.of")
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
