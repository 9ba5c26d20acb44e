"""Does a map show that the network reads a planted mark? Drawn objects; only a mark distinguishes one class from its twin.

    python -m studies.shortcut [--seeds 1] [--class 0]

The striped and the spotted creature of one shape are pooled and their training images assigned to the two labels alternately, so that
nothing in the drawing distinguishes the labels. One network is trained on images in which exactly those of the first label have a mark in
the corner; another on the same images and labels without any mark. L-CAM-Fm and L-CAM-Img are trained on both. All are then shown the test
images of the two classes with the mark drawn in, and without it, and explain the marked label: how much of each map lies on the mark's
pixels, and how often its maximum does. What a method puts there *because* the network learned the mark is the difference between the two
networks on the same marked images. (A mark beside a full cue is no shortcut: a network that does not need it hardly learns it.) Additional
controls: an untrained L-CAM, and the maps of the twin's label, against which the mark is evidence. RISE is left out: 4000 passes per image
would take hours. Results: results/studies/shortcut.csv, one row a number.
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from tqdm import tqdm

from cam_core import Probe
from cam_core.classifier import Classifier
from cam_core.data import Dataset, inclusive_boxes
from cam_core.learned import LCam, Plain
from cam_core.methods import Method, method
from cam_core.metrics import EnergyPointingGame, MaximumInBox, Metric
from cam_core.metrics.statistics import paired_difference, wilson
from cam_core.protocol import PROTOCOLS, finish
from data_scripts.draw import QUALITY, mark_box, redraw
from reproduce import jobs, sources
from reproduce.files import write_table
from training import recipes
from training.batches import in_memory
from training.loop import predict
from training.recipes import L_CAM
from training.store import trained

OUT = sources.HOME / "results/studies/shortcut.csv"
NAME = "drawn_imagenet"
POSTHOC = ("grad_cam", "grad_cam_pp", "cam", "layer_cam", "score_cam", "saliency")
CONTROLS = ("mean_activation", "random_map", "center_gaussian", "all_ones")
EPOCHS = (24, 20, 20)  # the network's (after the usual 8 it knows the shapes but hardly the mark), and the same for L-CAM's two
Row = dict[str, object]
Found = dict[tuple[str, str], Metric]  # (method, metric)


class Marked(NamedTuple):
    """Images uint8 [N,3,H,W] with the mark in them, and its box in each, inclusive pixels [N,1,4]."""

    images: Tensor
    boxes: Tensor


def marked(data: Dataset, indices: Sequence[int]) -> Marked:
    """Images of a drawn data set, drawn again with the mark, through the same JPEG as the files, under the data set's own view."""
    images, boxes = [], []
    for index in tqdm(indices, desc="marking", unit="image", leave=False):
        stored = io.BytesIO()
        redraw(NAME, data.ids[index], "mark").save(stored, "JPEG", quality=QUALITY)
        picture = Image.open(stored).convert("RGB")
        box = tv_tensors.BoundingBoxes([mark_box(*picture.size)], format="XYXY", canvas_size=picture.size[::-1], dtype=torch.float32)
        image, seen, *_ = data.transform(picture, box, None, None)
        images.append(image.as_subclass(Tensor).mul(255).round().to(torch.uint8))
        boxes.append(inclusive_boxes(seen))
    return Marked(torch.stack(images), torch.stack(boxes))


def twins(labels: Tensor, label: int) -> Tensor:
    """Which images [N] show the shape of class ``label``, in either pattern: classes 2k and 2k + 1 share a shape."""
    return labels // 2 == label // 2


def training_sets(data: Dataset, label: int) -> dict[str, dict[str, Tensor]]:
    """The training images, the twins' labels assigned alternately: unchanged ("without"), and with a mark in all of ``label`` ("with")."""
    plain = in_memory(data, progress=False)
    numbers = twins(plain["labels"], label).nonzero()[:, 0]
    labels, images = plain["labels"].clone(), plain["images"].clone()
    labels[numbers[0::2]], labels[numbers[1::2]] = label, label ^ 1
    chosen = numbers[0::2]
    images[chosen] = marked(data, chosen.tolist()).images
    return {"without": {"images": plain["images"], "labels": labels}, "with": {"images": images, "labels": labels}}


def learn(
    name: str, train: dict[str, Tensor], seed: int, epochs: tuple[int, int, int], store: Path | str = jobs.STORE
) -> tuple[Classifier, dict[str, LCam]]:
    """The plain network, and L-CAM-Fm and L-CAM-Img on it; ``epochs`` of the three. Without random shifts, which could remove the mark."""
    options = {"seed": seed, "store": store, "device": "cpu", "progress": False}
    classes = int(train["labels"].max()) + 1
    recipe = recipes.scratch_recipe("plain", NAME, epochs[0]).shortened(epochs[0], pad=0)
    plain, _ = trained(lambda: Plain(jobs.scratch_backbone(NAME, name, classes)), recipe, train, **options)
    classifier = plain.classifier
    learned = {}
    for variant, count in zip(("fm", "img"), epochs[1:], strict=True):
        build = partial(LCam, classifier, variant, masks=recipes.L_CAM_MASKS)
        learned[f"l_cam_{variant}"], _ = trained(build, L_CAM.shortened(count, **recipes.L_CAM_FEW), train, **options)
    return classifier, learned


def explainers(classifier: Classifier, learned: dict[str, LCam], seed: int) -> list[Method]:
    """All methods: the learned maps, those of `POSTHOC`, and the controls."""
    own = [Method(key, model.explain, "Gkartzonika et al., ECCVW", 2022, "1") for key, model in learned.items()]
    torch.manual_seed(seed)
    untrained = Method("random_l_cam", LCam(classifier).explain, "control: an untrained L-CAM", 0, "1", control=True)
    found = [*own, *map(method, POSTHOC)]
    return [*found, *(of_the_twin(one) for one in (*own, method("grad_cam"))), untrained, *map(method, CONTROLS)]


def of_the_twin(one: Method) -> Method:
    """The control: the map of the twin's label, 2k for 2k + 1 and back."""

    def heat(probe: Probe) -> Tensor:
        return one(probe.pairs(torch.arange(len(probe.images)), probe.targets ^ 1))

    return replace(one, name=f"other_{one.name}", function=heat, all_classes=None, control=True)


def looked_at(
    classifier: Classifier, methods: Sequence[Method], images: Tensor, boxes: Tensor, label: int
) -> dict[tuple[str, str], Metric]:
    """(method, metric) -> the metric over all images [N,3,H,W], explained for class ``label``, against the mark's boxes [N,1,4]."""
    found: dict[tuple[str, str], Metric] = {
        (m.name, metric.name): metric for m in methods for metric in (EnergyPointingGame(), MaximumInBox())
    }
    frozen, finishing = classifier.frozen(), PROTOCOLS["energy"].finishing
    for part in torch.arange(len(images)).split(50):
        probe = Probe(frozen, images[part].float() / 255, torch.full((len(part),), label))
        for one in methods:
            heat = one(probe) if one.finished else finish(one(probe), images.shape[-2:], finishing)
            for metric in ("energy_pointing_game", "maximum_in_box"):
                found[one.name, metric].update(heat, list(boxes[part]), ids=part)
    return found


def answers(classifier: Classifier, labels: Tensor, shown: dict[str, Tensor], label: int) -> list[Row]:
    """The network's answers: accuracy on the other classes without a mark; how many twins it calls ``label``, with and without the mark."""
    said = {key: predict(classifier, images).argmax(1) for key, images in shown.items()}
    pair = twins(labels, label)
    hits = {("accuracy", "without"): (said["without"] == labels)[~pair]}
    hits |= {("called_so", key): (answer == label)[pair] for key, answer in said.items()}
    rows: list[Row] = []
    for (metric, key), right in hits.items():
        low, high = wilson(int(right.sum()), len(right))
        value = 100 * float(right.double().mean())
        rows.append({"method": "plain", "metric": metric, "shown": key, "value": value, "ci_low": low, "ci_high": high, "n": len(right)})
    return rows


def study(
    name: str, data: tuple[Dataset, Dataset], label: int, seeds: Sequence[int], epochs: tuple[int, int, int], store: Path | str = jobs.STORE
) -> pd.DataFrame:
    """All rows; ``data``: training and test images. Maps are measured on the test images of ``label`` and its twin."""
    train = training_sets(data[0], label)
    test = in_memory(data[1], progress=False)
    everything = list(range(len(data[1])))
    planted = marked(data[1], everything)
    shown = {"with": planted.images, "without": test["images"]}
    pair = twins(test["labels"], label)
    rows: list[Row] = []
    for seed in seeds:
        found: dict[tuple[str, str], Found] = {}
        for condition, images in train.items():
            classifier, learned = learn(name, images, seed, epochs, store)
            facts = {"seed": seed, "trained": condition}
            rows += [{**facts, **row} for row in answers(classifier, test["labels"], shown, label)]
            for key, pictures in shown.items():
                of = looked_at(classifier, explainers(classifier, learned, seed), pictures[pair], planted.boxes[pair], label)
                found[condition, key] = of
                for (which, metric), kept in of.items():
                    low, high = kept.interval()
                    rows.append({**facts, "shown": key, "method": which, "metric": metric, "value": kept.compute(),
                                 "ci_low": low, "ci_high": high, "n": int(pair.sum())})  # fmt: skip
        for (which, metric), kept in found["with", "with"].items():
            d = paired_difference(kept.per_image(), found["without", "with"][which, metric].per_image(), kept.value)
            rows.append({"seed": seed, "trained": "difference", "shown": "with", "method": which, "metric": metric, "value": d.value,
                         "ci_low": d.low, "ci_high": d.high, "n": d.n})  # fmt: skip
    return pd.DataFrame(rows).assign(backbone=name, dataset=NAME, label=data[0].classes[label])


def main() -> None:
    """Train, explain, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet8")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--class", type=int, default=0, dest="label", help="the class that the mark goes with")
    parser.add_argument("--epochs", type=int, nargs=3, default=EPOCHS, metavar=("PLAIN", "FM", "IMG"))
    given = parser.parse_args()
    root = sources.find_root(NAME)
    data = sources.images(NAME, root, "train")("squash"), sources.images(NAME, root)("squash")
    frame = study(given.backbone, data, given.label, range(given.seeds), tuple(given.epochs))
    write_table(OUT, frame)
    shown = frame[(frame.shown == "with") & (frame.metric != "maximum_in_box")]
    print(shown.pivot_table(index=["metric", "method"], columns="trained", values="value").round(1).to_string())


if __name__ == "__main__":
    main()
