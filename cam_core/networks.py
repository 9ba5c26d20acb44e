"""Small residual networks for small images: the CIFAR family of He et al. (CVPR 2016, section 4.2)."""

from collections import OrderedDict

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut, rectified at the end."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or given != width:
            self.downsample = nn.Sequential(nn.Conv2d(given, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B,given,h,w] -> [B,width,h/stride,w/stride], at least 0."""
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        rectified: Tensor = self.relu(out + self.downsample(x))
        return rectified


def resnet_cifar(depth: int = 8, num_classes: int = 10, stem_stride: int = 2, width: int = 16) -> nn.Sequential:
    """ResNet of 6n + 2 layers: stages of ``width``, 2x and 4x channels at strides 1, 2, 2, then average pooling and a linear layer.

    The paper's has ``stem_stride`` 1 for 32 x 32 images; 2 makes 14 x 14 maps of 112 x 112 images at about 40 M multiply-adds (depth 8).
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth {depth} is not 6n + 2: take 8, 14, 20, 32, 44, 56 or 110")

    def stage(given: int, wide: int, stride: int) -> nn.Sequential:
        blocks = [Block(given if i == 0 else wide, wide, stride if i == 0 else 1) for i in range((depth - 2) // 6)]
        return nn.Sequential(*blocks)

    network = nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(3, width, 3, stem_stride, padding=1, bias=False),
            bn1=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            layer1=stage(width, width, 1),
            layer2=stage(width, 2 * width, 2),
            layer3=stage(2 * width, 4 * width, 2),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(1),
            fc=nn.Linear(4 * width, num_classes),
        )
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
