"""torchvision's weights, or those of a local folder, checked against their network."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision

from cam_core.data import DataError, Dataset, ImageNet
from cam_core.pretrained import SUFFIXES, load_classifier, load_network
from data_scripts.get.download import download


def fetch(
    networks: Sequence[str], root: Path, source: str | None = None, *, data: str | None = None, classes: int = 1000, progress: bool = True
) -> Path:
    """Weights of ``networks`` into the folder ``root``; each is loaded into its network, which must have ``classes`` classes.

    ``source``: a folder with ``<network>*.safetensors`` or ``.pth`` instead of torchvision's addresses. ``data``: a data root whose first
    ImageNet images then give a top-1 figure. `DataError` or ValueError where a file is not what its name says.
    """
    if not networks:
        raise DataError("weights needs the names of networks, as in `python -m data_scripts get weights resnet50 vgg16`")
    for name in networks:
        url = _address(name)
        target = root / Path(url).name
        if source:
            target = _copied(name, Path(source), root)
        elif not target.is_file():
            digits = re.search(r"-([0-9a-f]{8,})\.", Path(url).name)
            download(url, target, {"sha256": digits[1]} if digits else {}, progress=progress)
        network, _ = load_network(name, target, classes)
        print(f"{name}: {target.name} fits, {sum(p.numel() for p in network.parameters()):,} parameters, {classes} classes")
        if data:
            images = ImageNet(data, "val", view="crop", limit=100)
            print(f"{name}: top-1 {100 * top_1(name, images, target):.1f} % on the first {len(images)} validation images")
    return root


def top_1(name: str, images: Dataset, weights: Path | str = "imagenet", device: str = "cpu") -> float:
    """The share of ``images`` whose label the network gives its highest logit, under the view that the images have."""
    classifier = load_classifier(name, weights, device=device)
    with torch.inference_mode():
        hits = [
            classifier(example.image[None].to(device)).argmax(1).item() == example.label
            for example in map(images.__getitem__, range(len(images)))
        ]
    return sum(hits) / len(hits)


def _address(name: str) -> str:
    try:
        choices = torchvision.models.get_model_weights(name)
    except ValueError:
        raise DataError(f"unknown network {name!r}: expected a name of torchvision.models.list_models(), as resnet50") from None
    return str(getattr(choices, "IMAGENET1K_V1", choices.DEFAULT).url)


def _copied(name: str, source: Path, root: Path) -> Path:
    files = [source] if source.is_file() else [path for path in sorted(source.glob(f"{name}*")) if path.suffix in SUFFIXES]
    if len(files) != 1:
        raise DataError(f"{source}: holds {len(files)} files called {name}*{' or '.join(SUFFIXES)}, expected one; give its path")
    root.mkdir(parents=True, exist_ok=True)
    if files[0].parent.resolve() != root.resolve():
        shutil.copy2(files[0], root / files[0].name)
    return root / files[0].name
