"""Pretrained networks that a training starts from, changed so that their last map is finer: CALM's, and on CUB LFI-CAM's and ABN's."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from cam_core.classifier import Classifier
from cam_core.cutting import cut
from cam_core.learned.plain import pooled_head
from cam_core.networks import initialised, unstrided
from cam_core.pretrained import LITE, default_layer, load_classifier, load_network, preprocessing


def calm_trunk(name: str, weights: str | None = "imagenet", stride: int = 16, *, wsol: bool = False) -> Classifier:
    """A pretrained network with finer maps: ``stride`` 16 gives 14x14 at 224, 8 gives 28x28 (the paper's "large").

    A torchvision ResNet lets layer4, or layer3 and layer4, keep their resolution, the once strided convolutions used as they are, without
    dilation; EfficientNet-Lite0 its last one or two stages that step. VGG (vgg16, vgg16_bn) and inception_v3 lose poolings and strides and
    end in new convolutions of 1024 channels (`finer_vgg`, `finer_inception`), under a new pooled head. Stride 32 is the stock network.
    ``wsol``: Inception as the WSOL benchmark has it; the other networks are the same in both.
    """
    if stride == 32:
        return load_classifier(name, weights)
    network, source = load_network(name, weights)
    stepping = hasattr(network, "layer4") or name == LITE
    if stride not in (16, 8) or not (stepping or name.startswith("vgg") or name == "inception_v3"):
        raise ValueError(
            f"{name} with stride {stride}: expected a torchvision ResNet, VGG or inception_v3, or {LITE}, and a stride of 32, 16 or 8"
        )
    if stepping:
        layer = default_layer(name, network)
        trunk, head = cut(finer(network, stride), layer)
        colour = preprocessing(name, network)
        return Classifier(trunk, head, name=name, layer=layer, weights=source, network=network, **colour).eval()
    trunk = finer_vgg(network, stride) if name.startswith("vgg") else finer_inception(network, stride, wsol=wsol)
    return Classifier(trunk, pooled_head(1024, 1000), name=name, layer=f"stride {stride}", weights=source).eval()


def fine_tuned(name: str, num_classes: int, weights: str | None = "imagenet") -> Classifier:
    """A pretrained torchvision ResNet or EfficientNet-Lite0 with a new linear layer and a last stage of stride 1: 14x14 maps at 224.

    A whole network, unlike `calm_trunk` under a new head, because ABN takes its parts by name.
    """
    network, source = load_network(name, weights)
    last = "classifier" if name == LITE else "fc"
    linear = getattr(network, last, None)
    if not isinstance(linear, nn.Linear) or not (name == LITE or hasattr(network, "layer4")):
        raise ValueError(f"LFI-CAM and ABN are fine-tuned on torchvision's ResNets and {LITE}, got {name}: take resnet18 or resnet50")
    network.add_module(last, nn.Linear(linear.in_features, num_classes))
    layer = default_layer(name, network)
    trunk, head = cut(finer(network, 16), layer)
    return Classifier(trunk, head, name=name, layer=layer, weights=source, network=network, **preprocessing(name, network))


def finer(network: nn.Module, stride: int) -> nn.Module:
    """A torchvision ResNet or EfficientNet whose last stage that steps (``stride`` 16), or last two (8), no longer do; changed in place."""
    stages = ("layer3", "layer4") if hasattr(network, "layer4") else ("blocks.3", "blocks.5")
    for stage in stages[-1:] if stride == 16 else stages:
        unstrided(network.get_submodule(stage))
    return network


def finer_vgg(network: nn.Module, stride: int) -> nn.Sequential:
    """CALM's VGG: torchvision's convolutions without the last pooling (``stride`` 16) or the last two (8), then conv6, 1024 channels.

    conv6 is 3x3, new, with BatchNorm where the network has it, rectified: 14x14 or 28x28 maps at 224.
    """
    features = list(network.get_submodule("features").named_children())
    pools = [name for name, module in features if isinstance(module, nn.MaxPool2d)]
    removed = set(pools[{16: -1, 8: -2}[stride] :])
    norm = any(isinstance(module, nn.BatchNorm2d) for _, module in features)
    conv6 = initialised(nn.Conv2d(512, 1024, 3, padding=1))
    nn.init.zeros_(conv6.get_parameter("bias"))
    parts = OrderedDict[str, nn.Module](features=nn.Sequential(OrderedDict((n, m) for n, m in features if n not in removed)), conv6=conv6)
    return nn.Sequential(parts | ({"bn6": nn.BatchNorm2d(1024)} if norm else {}) | {"relu6": nn.ReLU(inplace=True)})


class Mixed6a(nn.Module):
    """Inception's grid reduction that reduces nothing: torchvision's three branches (shared) at stride 1 with padding."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.branch3x3 = stock.get_submodule("branch3x3")
        self.branch3x3dbl_1, self.branch3x3dbl_2 = stock.get_submodule("branch3x3dbl_1"), stock.get_submodule("branch3x3dbl_2")
        self.branch3x3dbl_3 = stock.get_submodule("branch3x3dbl_3")
        for branch in (self.branch3x3, self.branch3x3dbl_3):
            convolution = branch.get_submodule("conv")
            convolution.stride, convolution.padding = (1, 1), (1, 1)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """[B,288,h,w] -> [B,768,h,w], at least 0."""
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), twice, F.max_pool2d(x, 3, stride=1, padding=1)], 1)


def finer_inception(network: nn.Module, stride: int, *, wsol: bool = False) -> nn.Sequential:
    """CALM's Inception-v3 for input of 224: torchvision's up to Mixed_6e, then two new 3x3 convolutions of 1024 channels (A3_1b, A3_2b).

    28x28 maps (``stride`` 8), or 14x14 with one more pooling before Mixed_6a (16). Mixed_6e is read, as in the WSOL benchmark; the release
    computes it and then reads Mixed_6d. The input is normalised like every network's: torchvision's rescaling to what these weights were
    trained on (transform_input) is no part of the benchmark's network. By default BatchNorm follows the new convolutions (the release's
    use_bn); ``wsol``: the benchmark's network, without it and with dropout of 0.5 before each of them and before the head.
    """
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"]
    parts = {name: network.get_submodule(name) for name in [*stem, "Mixed_5b", "Mixed_5c", "Mixed_5d"]}
    parts["Conv2d_1a_3x3"].get_submodule("conv").padding = (1, 1)  # type: ignore[assignment]
    parts |= {name: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True) for name in ("maxpool1", "maxpool2")}
    if stride == 16:
        parts["maxpool3"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    parts["Mixed_6a"] = Mixed6a(network.get_submodule("Mixed_6a"))
    parts |= {name: network.get_submodule(name) for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")}
    for name, given in (("A3_1b", 768), ("A3_2b", 1024)):
        if wsol:
            parts[f"dropout_{name}"] = nn.Dropout()
        parts[name] = Conv2dNormActivation(given, 1024, 3, norm_layer=None if wsol else nn.BatchNorm2d, bias=True)
        nn.init.xavier_uniform_(parts[name].get_parameter("0.weight"))
        nn.init.zeros_(parts[name].get_parameter("0.bias"))
    if wsol:
        parts["dropout"] = nn.Dropout()
    return nn.Sequential(OrderedDict[str, nn.Module](parts))
