"""Small networks for small images: the CIFAR families.

They have a stem of one 3x3 convolution with ``stem_stride``, three stages of torchvision's blocks at strides 1, 2, 2, average
pooling and a linear layer. The papers' stem has stride 1 for 32 x 32 images; 2 makes 14 x 14 maps of 112 x 112 images.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import nn
from torchvision.models.densenet import _DenseBlock
from torchvision.models.resnet import BasicBlock, Bottleneck

Network = TypeVar("Network", bound=nn.Module)


def resnet_cifar(
    depth: int = 8, num_classes: int = 10, stem_stride: int = 2, width: int = 16, *, block: type[BasicBlock | Bottleneck] = BasicBlock
) -> nn.Sequential:
    """ResNet of He et al. (CVPR 2016, section 4.2): stages of ``width``, 2x and 4x ``width`` channels, (depth - 2) / 6 blocks each.

    With ``block`` `Bottleneck`: as many blocks of three convolutions, with four times as many output channels: LFI-CAM's and ABN's
    "ResNet-110" (256 channels, really 164 layers). Depth 8 with stem stride 2 costs about 40 M multiply-adds on 112 x 112 images.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth {depth} is not 6n + 2: take 8, 14, 20, 32, 44, 56 or 110")
    return _residual(block, (depth - 2) // 6, width, stem_stride, num_classes)


def resnext_cifar(depth: int = 29, num_classes: int = 10, stem_stride: int = 2, *, cardinality: int = 8, base: int = 64) -> nn.Sequential:
    """ResNeXt of Xie et al. (CVPR 2017, section 5.3): depth 29, 8x64d; stages of 4, 8 and 16 ``base`` channels.

    The linear layer is drawn as in LFI-CAM's and ABN's release: normal, variance 2 / its inputs, bias 0.
    """
    if depth < 11 or (depth - 2) % 9:
        raise ValueError(f"depth {depth} is not 9n + 2: take 29")
    network = _residual(Bottleneck, (depth - 2) // 9, base, stem_stride, num_classes, groups=cardinality)
    nn.init.kaiming_normal_(network.get_parameter("fc.weight"))
    nn.init.zeros_(network.get_parameter("fc.bias"))
    return network


def _residual(
    block: type[BasicBlock | Bottleneck], count: int, width: int, stem_stride: int, num_classes: int, groups: int = 1
) -> nn.Sequential:
    """Three stages of ``count`` of torchvision's blocks, ``width``, 2x and 4x channels inside (times ``groups``)."""
    stages, given = OrderedDict[str, nn.Module](), width
    for number, stride in enumerate((1, 2, 2), start=1):
        planes = width * 2 ** (number - 1)
        wide, blocks = planes * block.expansion, []
        for step in (stride, *[1] * (count - 1)):
            changes = step != 1 or given != wide
            shortcut = nn.Sequential(nn.Conv2d(given, wide, 1, step, bias=False), nn.BatchNorm2d(wide)) if changes else None
            blocks.append(block(given, planes, step, shortcut, groups))
            given = wide
        stages[f"layer{number}"] = nn.Sequential(*blocks)
    return _network(width, stem_stride, stages, given, num_classes)


def densenet_cifar(depth: int = 100, num_classes: int = 10, stem_stride: int = 2, *, growth: int = 12) -> nn.Sequential:
    """DenseNet-BC of Huang et al. (CVPR 2017): depth 100, growth 12, compression by half; 342 channels after the third block.

    ``dense3`` is the stage before the final BatchNorm and ReLU (both signs), ``relu`` the one after (at least 0).
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth {depth} is not 6n + 4: take 40 or 100")
    stages, given, layers = OrderedDict[str, nn.Module](), 2 * growth, (depth - 4) // 6
    for number in (1, 2, 3):
        stages[f"dense{number}"], given = _DenseBlock(layers, given, 4, growth, 0.0), given + layers * growth
        if number < 3:
            halved = nn.Conv2d(given, given // 2, 1, bias=False)
            stages[f"trans{number}"] = nn.Sequential(nn.BatchNorm2d(given), nn.ReLU(inplace=True), halved, nn.AvgPool2d(2))
            given //= 2
    stages |= {"norm": nn.BatchNorm2d(given), "relu": nn.ReLU(inplace=True)}
    return _network(2 * growth, stem_stride, stages, given, num_classes, rectified_stem=False)


def _network(
    width: int, stride: int, stages: OrderedDict[str, nn.Module], channels: int, num_classes: int, *, rectified_stem: bool = True
) -> nn.Sequential:
    network = nn.Sequential(OrderedDict[str, nn.Module](conv1=nn.Conv2d(3, width, 3, stride, padding=1, bias=False)))
    stem = {"bn1": nn.BatchNorm2d(width), "relu": nn.ReLU(inplace=True)} if rectified_stem else {}
    ending = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1), "fc": nn.Linear(channels, num_classes)}
    for name, module in {**stem, **stages, **ending}.items():
        network.add_module(name, module)
    return initialised(network)


def initialised(network: Network) -> Network:
    """The network with every convolution initialised again: normal, variance 2 / (kernel size x output channels) (He et al., ICCV 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


# By name: called with num_classes and stem_stride. The last three are LFI-CAM's and ABN's networks for CIFAR. Their release makes blocks of
# three convolutions ("_bottleneck") from depth 44 on.
CIFAR: dict[str, Callable[..., nn.Sequential]] = {
    **{f"resnet{depth}": partial(resnet_cifar, depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}_bottleneck": partial(resnet_cifar, depth, block=Bottleneck) for depth in (44, 56, 110)},
    "densenet100_12": partial(densenet_cifar, 100),
    "resnext29_8x64d": partial(resnext_cifar, 29),
}


def unstrided(stage: nn.Module) -> None:
    """Set the stride of every convolution of a stage to 1; the weights stay."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
