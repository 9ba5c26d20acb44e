"""Pictures of one's own images: `python -m cam_core explain IMAGE... --model resnet50 --method grad_cam,increment_cam --out DIR`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from cam_core import figures, maps
from cam_core.data.example import DataError, read_image
from cam_core.data.transforms import view
from cam_core.files import write_json
from cam_core.methods import Method, method
from cam_core.pretrained import load_classifier
from cam_core.probe import Probe
from cam_core.provenance import versions

BATCH = 8


def explain(
    images: Sequence[Path],
    out: Path,
    *,
    model: str = "resnet50",
    methods: Sequence[str] = ("grad_cam",),
    weights: str = "imagenet",
    classes: Path | None = None,
    layer: str | None = None,
    target: str | None = None,
    crop: str = "squash",
    device: str = "cpu",
) -> tuple[list[Path], list[str]]:
    """Write ``<image>-<method>.png`` per image and method and one ``explained.json`` into ``out``; (pictures, what could not be read).

    ``classes``: a text file, one class a line, in the order of the network's outputs; without it ImageNet's names where they fit.
    ``target``: a class by name or number instead of the prediction. ``crop``: "squash" (whole image) or "crop" (middle of Resize 256).
    """
    names = None if classes is None else [line.strip() for line in classes.read_text(encoding="utf-8").splitlines() if line.strip()]
    classifier = load_classifier(model, weights, layer, None if names is None else len(names), device).frozen()
    chosen = [method(name) for name in methods]
    names = names or _imagenet_names(model)
    wanted = None if target is None else _class(target, names)
    loaded, problems = _loaded(images, crop)
    entries, pictures = list[dict[str, Any]](), list[Path]()
    for start in tqdm(range(0, len(loaded), BATCH), "explaining", unit="batch", disable=len(loaded) <= BATCH):
        part = loaded[start : start + BATCH]
        batch = torch.stack([image for _, image in part]).to(device)
        probe = Probe(classifier, batch, wanted)
        drawn = {one.name: _finished(one, probe) for one in chosen}
        for row, (path, image) in enumerate(part):
            files = {name: out / f"{path.stem}-{name}.png" for name in drawn}
            for name, file in files.items():
                _picture(file, image, drawn[name][row])
            pictures += files.values()
            empty = [name for name in drawn if bool(maps.is_empty(drawn[name][row]))]
            entries.append(
                {"image": path.name, **_answer(probe, row, names), "maps": {n: f.name for n, f in files.items()}, "empty": empty}
            )
    network = {"model": model, "layer": classifier.layer, "weights": classifier.weights, "view": crop}
    write_json(out / "explained.json", {**network, "images": entries, "not_read": problems, "versions": versions()})
    return pictures, problems


def _loaded(paths: Sequence[Path], crop: str) -> tuple[list[tuple[Path, Tensor]], list[str]]:
    stems = [path.stem for path in paths]
    if twice := {stem for stem in stems if stems.count(stem) > 1}:
        raise ValueError(f"two images are called {sorted(twice)[0]}: their pictures would overwrite each other, give them separately")
    transform, found, problems = view(crop, 224), list[tuple[Path, Tensor]](), list[str]()
    for path in paths:
        try:
            found.append((path, transform(read_image(path), None, None, None)[0].as_subclass(Tensor)))
        except DataError as error:
            problems.append(str(error))
    return found, problems


def _finished(one: Method, probe: Probe) -> Tensor:
    heat = one(probe)
    return heat if one.finished else maps.upsample(maps.min_max(heat), probe.images.shape[-2:])


def _answer(probe: Probe, row: int, names: Sequence[str]) -> dict[str, Any]:
    p = probe.probabilities[row]

    def named(index: int) -> dict[str, Any]:
        return {"class": index, "name": names[index] if index < len(names) else str(index), "probability": round(float(p[index]), 6)}

    return {"prediction": named(int(p.argmax())), "target": named(int(probe.targets[row]))}


def _class(wanted: str, names: Sequence[str]) -> int:
    if wanted.isdigit():
        return int(wanted)
    found = [index for index, name in enumerate(names) if name.lower() == wanted.lower()]
    if not found:
        near = [name for name in names if wanted.lower() in name.lower()][:5]
        raise ValueError(f"no class is called {wanted!r}" + (f": did you mean {', '.join(near)}?" if near else "; give its number"))
    return found[0]


def _imagenet_names(model: str) -> list[str]:
    try:
        return list(torchvision.models.get_model_weights(model).DEFAULT.meta["categories"])
    except ValueError:  # not one of torchvision's networks
        return []


def _picture(file: Path, image: Tensor, heat: Tensor) -> None:
    height, width = image.shape[-2:]
    figure = Figure(figsize=(width / 100, height / 100), dpi=200)
    figures.overlay(figure.add_axes((0, 0, 1, 1)), image, heat)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(file)
