"""How many parameters LFI-CAM's importance network and ABN's branch add to the networks that the papers train.

    python -m studies.parameters

results/studies/parameters.csv, one row per number; nothing is trained and no weights are loaded. ``part``: the "plain" network, and the
additions: "fin_3x3" (as released), "fin_1x1" (ours: 1x1 of the same widths), "abn_branch".
"""

import pandas as pd
import torch
from torch import nn

from cam_core.learned import Abn, LfiCam, lfi_backbone
from reproduce import sources
from reproduce.files import write_table
from studies.ablations import OneByOne

OUT = sources.HOME / "results/studies/parameters.csv"
# network -> classes of the data that the papers train it on: CIFAR-10, Cat & Dog, ImageNet
NETWORKS = {"resnet110_bottleneck": 10, "densenet100_12": 10, "resnext29_8x64d": 10, "resnet18": 2, "resnet50": 1000}


def parameter_counts(name: str, num_classes: int) -> dict[str, int]:
    """Parameters of a plain network, of FIN with 3x3 and 1x1 convolutions, and of ABN's branch, each without the network it joins.

    LFI-CAM's claim of fewer parameters than ABN is false for FIN with 3x3 convolutions; with 1x1 it holds for all networks but the
    DenseNet.
    """
    with torch.device("meta"):
        backbone = lfi_backbone(name, num_classes)
        models = {"fin_3x3": LfiCam(backbone), "fin_1x1": OneByOne(backbone), "abn_branch": Abn(backbone)}
        plain = _parameters(backbone)
        return {"plain": plain, **{key: _parameters(model) - plain for key, model in models.items()}}


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def counts() -> pd.DataFrame:
    """Network x part -> number of parameters."""
    found = [(name, classes, part, n) for name, classes in NETWORKS.items() for part, n in parameter_counts(name, classes).items()]
    return pd.DataFrame(found, columns=["backbone", "classes", "part", "value"])


def main() -> None:
    """Count, write."""
    frame = counts()
    write_table(OUT, frame)
    print(frame.pivot_table(index="backbone", columns="part", values="value", sort=False).to_string())


if __name__ == "__main__":
    main()
