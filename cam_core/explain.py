"""Heat maps of a user's own images: `python -m cam_core explain IMAGE... --method grad_cam,increment_cam,l_cam_fm --out DIR`."""

import contextlib
import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale
from tqdm import tqdm

from cam_core import class_names, figures, maps
from cam_core.classifier import Classifier
from cam_core.data import transforms
from cam_core.data.example import DataError, images_in, read_image, skipped_words
from cam_core.environment import versions
from cam_core.files import replacing, write_json
from cam_core.learned import shipped
from cam_core.methods import Method, method
from cam_core.pretrained import LITE, load_classifier
from cam_core.probe import Probe

VIEWS = ("keep", "squash", "crop")
EVERY = 8  # images between two writings of explained.json
LONGEST = 900  # pixels of a picture's longer side


def explain(
    images: Sequence[Path],
    out: Path,
    *,
    model: str = LITE,
    methods: Sequence[str] = ("grad_cam",),
    weights: str = "imagenet",
    classes: Path | None = None,
    layer: str | None = None,
    target: str | Callable[[Tensor], Tensor] | None = None,
    view: str = "keep",
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    activation: str = "softmax",
    save_maps: bool = False,
    device: str = "cpu",
) -> tuple[list[Path], list[str]]:
    """Write ``<image>-<method>.png`` per image and method and one ``explained.json`` into ``out``; (pictures, what could not be explained).

    ``images``: files, or folders for the images in them; turned upright. ``classes``: a UTF-8 text file, one class a line, in the order of
    the network's outputs; without it ImageNet's names where they fit. ``target``: instead of the prediction a class by name or number, or a
    function of the logits as `Probe` takes it. ``view``: "keep" (the whole image in its shape, the shorter side ``size`` long and the
    longer one by whole steps of the network's stride), "squash" (the whole image as a square of ``size``) or "crop" (the middle, as in
    torchvision's evaluation); a network that takes squares only squashes instead of keeping. ``mean``, ``std``: the network's
    normalisation, of RGB in [0, 1], or of grey: one value each. ``activation``: "sigmoid" for a network of several labels or one logit.
    ``save_maps``: also ``<image>.npz``, the raw maps by method, float32 at their own resolution. ValueError before anything is explained if
    these do not fit.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: --out takes the folder for the pictures")
    wished = list(dict.fromkeys(name.strip() for name in methods if name.strip()))
    ready = {name: method(name) for name in wished if name not in shipped.NAMES}  # a wrong name is refused before anything is loaded
    if not wished:
        raise ValueError("no method is named: --method takes one or several, grad_cam,increment_cam")
    _refuse_other_units(mean=mean, std=std)
    count = None if classes is None else len(class_names.read(classes))
    classifier = load_classifier(model, weights, layer, count, device, activation, mean, std).frozen()
    chosen = [ready[name] if name in ready else shipped.learned_method(name, classifier) for name in wished]
    size = classifier.size if size is None else size
    trial = _trial(classifier, size)
    names = class_names.of_network(model, trial.logits.shape[1], classes)
    wanted = class_names.number_of(target, names) if isinstance(target, str) else target
    step = 2 ** round(math.log2(size / trial.activations.shape[-1]))
    if view == "keep" and not _takes(classifier, size, size + step):
        _say(f"{model} takes squares only: the images are squashed to {size} x {size} (--view crop takes their middle instead)")
        view = "squash"

    paths, not_read = _paths(images)
    labels = _labels(paths)
    facts = {"model": model, "layer": classifier.layer, "weights": classifier.weights, "view": view, "size": size, "asked": len(paths)}
    facts["activation"] = classifier.activation
    facts |= {what: [round(value, 6) for value in getattr(classifier, what).flatten().tolist()] for what in ("mean", "std")}
    facts["versions"] = versions()
    entries, failed = list[dict[str, Any]](), dict[str, None]()
    if not trial.logits.isfinite().all():
        failed[f"{model} answers a grey image with NaN or infinity: the weights {classifier.weights} are damaged"] = None
        paths = []

    def write() -> None:
        write_json(out / "explained.json", {**facts, "images": entries, "not_read": not_read, "failed": list(failed)})

    bar, each = _progress(classifier, chosen, trial.activations.shape[1], len(paths))
    try:
        for number, (path, label) in enumerate(zip(paths, labels, strict=False), start=1):
            try:
                photograph, seen = _seen(path, view, size, step, classifier)
            except DataError as error:
                not_read.append(str(error))
                continue
            probe = Probe(classifier, seen[None].to(device), wanted)
            raw = _maps(probe, chosen, path, failed)
            entry = {"image": path.name, "path": str(path), "input": list(seen.shape[-2:]), **_answer(probe, names, wanted)}
            _write_pictures(out, label, photograph, raw, entry)
            if save_maps and raw:
                entry["raw"] = f"{label}.npz"
                _save(out / entry["raw"], raw)
            entries.append(entry)
            bar.update(len(entries) * each - bar.n)  # what no hook has seen
            if number % EVERY == 0:
                write()
    except KeyboardInterrupt:
        _say(f"stopped: {len(entries)} of {len(paths)} images are explained")
        raise
    else:
        bar.total = bar.n  # the number announced before was an estimate
    finally:
        bar.close()
        write()
    return [out / file for entry in entries for file in entry["maps"].values()], [*not_read, *failed]


def _say(sentence: str) -> None:
    tqdm.write(sentence, file=sys.stderr)


def _refuse_other_units(**given: Sequence[float] | None) -> None:
    for what, values in given.items():
        if values is not None:
            if len(values) not in (1, 3):
                raise ValueError(f"{what} has {len(values)} values: a photograph has 3 channels, or 1 in grey; make other maps by a Probe")
            if not all(0 <= value <= 1 for value in values) or (what == "std" and 0 in values):
                raise ValueError(f"{what} {list(values)} is not in the units of RGB in [0, 1]: divide by 255")


def _takes(classifier: Classifier, height: int, width: int) -> bool:
    try:
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):  # a traced network prints where it stopped
            classifier(_grey(classifier, height, width))
    except Exception:  # networks refuse a size with different exceptions
        return False
    return True


def _trial(classifier: Classifier, size: int) -> Probe:
    """The probe of a grey square: it gives the number of classes, channels and the stride. ValueError if the network refuses the size."""
    if size < 1 or not _takes(classifier, size, size):
        raise ValueError(f"{classifier.name} does not take images of {size} x {size}: give the --size that it was made for")
    return Probe(classifier, _grey(classifier, size, size))


def _grey(classifier: Classifier, height: int, width: int) -> Tensor:
    return torch.full((1, len(classifier.mean), height, width), 0.5, device=classifier.mean.device)


def _paths(images: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Every image once, folders replaced by the images in them; and a sentence for each folder without images."""
    found, empty = dict[Path, None](), list[str]()
    for path in images:
        inside, skipped = images_in(path) if path.is_dir() else ([path], [])
        if skipped:
            _say(f"{path}: {skipped_words(skipped)}")
        if not inside:
            empty.append(f"{path}: no image is in this folder; name a folder that holds them itself")
        found |= dict.fromkeys(inside)
    return list(found), empty


def _labels(paths: Sequence[Path]) -> list[str]:
    """The name of each image's pictures: the image's own, with a number if another image has the same name."""
    labels, taken = list[str](), set[str]()
    for path in paths:
        label, number = path.stem, 1
        while label.lower() in taken:
            number += 1
            label = f"{path.stem}-{number}"
        if number > 1:
            _say(f"{path}: another image is called {path.stem}, so its pictures are called {label}")
        taken.add(label.lower())
        labels.append(label)
    return labels


def _progress(classifier: Classifier, chosen: Sequence[Method], channels: int, count: int) -> "tuple[tqdm[Any], int]":
    """A progress bar over all images that pass through the network, masked ones included, and their number for one image, about.

    The expected number is printed first. The bar moves with the masked images; a hook on a layer would turn the scoring engine off.
    """
    costs = {one.title: one.cost(channels) for one in chosen}
    each = 1 + sum(max(0, cost - 1) for cost in costs.values())  # the methods share the first pass
    _say(f"forward passes an image, about: {', '.join(f'{title} {cost:,}' for title, cost in costs.items())}; {each * count:,} in all")
    bar = tqdm(total=each * count, desc="explaining", unit="pass", file=sys.stderr)

    def passed(classifier: torch.nn.Module, images: tuple[Tensor], logits: Any) -> None:
        bar.update(len(images[0]))

    classifier.register_forward_hook(passed)
    return bar, each


def _seen(path: Path, view: str, size: int, step: int, classifier: Classifier) -> tuple[Image.Image, Tensor]:
    """The photograph, cropped to what the network sees, and the input of the network, [3,H,W] or, in grey, [1,H,W], in [0, 1]."""
    photograph = read_image(path, upright=True)
    resize = round(size * classifier.resize / classifier.size)
    if view == "keep":
        short = min(photograph.size)
        shape = [size + step * round((side / short - 1) * size / step) for side in photograph.size]
        seen = transforms.view("original")(photograph.resize((shape[0], shape[1]), Image.Resampling[classifier.interpolation.upper()]))
    else:
        seen = transforms.view(view, size, resize, classifier.interpolation)(photograph)
    if view == "crop":
        side = round(min(photograph.size) * size / resize)
        left, top = ((length - side) // 2 for length in photograph.size)
        photograph = photograph.crop((left, top, left + side, top + side))
    return photograph, (seen if len(classifier.mean) == 3 else rgb_to_grayscale(seen)).as_subclass(Tensor)


def _maps(probe: Probe, chosen: Sequence[Method], path: Path, failed: dict[str, None]) -> dict[Method, Tensor]:
    """Raw maps by method. If a method does not work for this network, or its map is not finite, ``failed`` gets a sentence."""
    found = dict[Method, Tensor]()
    for one in chosen:
        try:
            heat = one(probe)[0]
        except (ValueError, RuntimeError, NotImplementedError) as error:
            failed[f"{one.name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"] = None
            continue
        if heat.isfinite().all():
            found[one] = heat
        else:
            failed[f"{path}: the map of {one.name} holds NaN or infinity"] = None
    return found


def _save(file: Path, raw: dict[Method, Tensor]) -> None:
    with replacing(file) as temporary, temporary.open("wb") as content:
        np.savez(content, **{one.name: heat.cpu().float().numpy() for one, heat in raw.items()})  # type: ignore[arg-type]


def _answer(probe: Probe, names: Sequence[str], wanted: object) -> dict[str, Any]:
    p = probe.probabilities[0]

    def named(index: int) -> dict[str, Any]:
        return {"class": index, "name": names[index], "probability": round(float(p[index]), 6)}

    if callable(wanted):
        name = getattr(wanted, "__name__", type(wanted).__name__)
        target = {"class": None, "name": name, "score": round(float(probe.score(probe.logits)[0]), 6)}
    else:
        target = named(int(probe.targets[0]))
    return {"prediction": named(int(p.argmax())), "target": target}


def _write_pictures(out: Path, label: str, photograph: Image.Image, raw: dict[Method, Tensor], entry: dict[str, Any]) -> None:
    """Write one picture per method; ``entry`` gets their names and the names of the empty maps."""
    shown = photograph.copy()
    shown.thumbnail((LONGEST, LONGEST))
    picture = transforms.view("original")(shown)
    entry |= {"maps": {one.name: f"{label}-{one.name}.png" for one in raw}, "empty": []}
    for one, heat in raw.items():
        if not one.finished and bool(maps.is_empty(heat)):
            entry["empty"].append(one.name)
            _say(f"{entry['path']}: the map of {one.name} is empty, it says nothing")
        full = maps.upsample((heat if one.finished else maps.min_max(heat)).float().cpu(), picture.shape[-2:])
        with replacing(out / entry["maps"][one.name]) as temporary:
            figures.explained(picture, full, _title(one, entry)).savefig(temporary, format="png")


def _title(one: Method, entry: dict[str, Any]) -> list[str]:
    target, said = entry["target"], entry["prediction"]
    value = f"{target['score']:.4g}" if "score" in target else f"{100 * target['probability']:.1f} %"
    lines = [f"{target['name']}, {value} · {one.title}"]
    if target["class"] != said["class"]:
        lines.append(f"predicted: {said['name']}, {100 * said['probability']:.1f} %")
    if one.name in entry["empty"]:
        lines.append("the map is empty: it says nothing")
    return lines
