"""Check a data root: every image of the three layouts is decoded, every annotation held against its image; findings are listed at once.

python -m data_scripts.check                    # what CAM_DATA names, else data/drawn
python -m data_scripts.check data/drawn --json
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from cam_core.data import CUB200, VOC2007, DataError, Dataset, ImageFolder, ImageNet, OpenImages30k
from cam_core.data.example import images_in, read_image
from data_scripts.get.imagenet import order_of
from data_scripts.get.weights import top_1

WHERE = """where the official archives come from, and how they are laid out below ROOT:

  ILSVRC2012/            https://image-net.org (account needed): ILSVRC2012_img_val.tar unpacked flat into val/,
                         ILSVRC2012_img_train.tar (a tar per class) into train/<wnid>/;
                         https://www.kaggle.com/c/imagenet-object-localization-challenge/data:
                         LOC_synset_mapping.txt and LOC_val_solution.csv (classes and boxes; needed), LOC_train_solution.csv
  VOCdevkit/VOC2007/     http://host.robots.ox.ac.uk/pascal/VOC/voc2007/: VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar,
                         unpacked where VOCdevkit is to lie
  CUB_200_2011/          https://data.caltech.edu/records/65de6-vp158: CUB_200_2011.tgz (attributes.txt comes out beside the folder;
                         leave it there or move it into attributes/); https://data.caltech.edu/records/w9d68-gec53:
                         segmentations.tgz unpacked inside CUB_200_2011
  OpenImages/            `python -m data_scripts get openimages30k`, or OpenImages30k_eval.zip, which github.com/clovaai/wsolevaluation
                         links to: val/ and test/ with images and masks in folders by class; its metadata/OpenImages as metadata/

A dataset that is not there is skipped. Instead of downloading anything: python -m data_scripts.draw
"""

Reader = Callable[..., Dataset]
READERS: dict[str, tuple[Reader, tuple[str, ...]]] = {
    "ILSVRC2012": (ImageNet, ("val", "train", "train256")),
    "VOCdevkit/VOC2007": (VOC2007, ("trainval", "test")),
    "CUB_200_2011": (CUB200, ("train", "test")),
    "OpenImages": (OpenImages30k, ("train", "val", "test")),
    "CIFAR-10-subset": (lambda root, *rest, **view: ImageFolder(root / "CIFAR-10-subset", *rest, **view), ("train", "test")),
    "Cat-Dog-128": (lambda root, *rest, **view: ImageFolder(root / "Cat-Dog-128", *rest, **view), ("train", "val")),
}
IMAGES = {"ILSVRC2012": "{split}", "VOCdevkit/VOC2007": "JPEGImages", "CUB_200_2011": "images"}  # where a split's images lie


def findings(root: Path, progress: bool = True) -> Iterator[tuple[str, int, list[str]]]:
    """(dataset and split, number of images, problems) of every split below ``root``.

    Where the annotations cannot be read, every image that lies in the data set's folder is decoded all the same.
    """
    for folder, (reader, splits) in READERS.items():
        for split in splits:
            if not _has(root / folder, split):
                continue
            bar: Callable = lambda steps, name=f"{folder} {split}": tqdm(steps, desc=name, unit="image", disable=not progress)  # noqa: E731
            try:
                dataset = reader(root, split, view="original")
            except (DataError, FileNotFoundError) as error:
                place = root / folder / IMAGES.get(folder, split).format(split=split)
                found = getattr(error, "problems", [str(error)])
                yield f"{folder} {split}", 0, [*found, *_decoded(place, bar)]
            else:
                yield f"{folder} {split}", len(dataset), [*check(dataset, bar), *_twice(dataset), *_numbering(dataset)]


def check(dataset: Dataset, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> list[str]:
    """Every finding of a full pass over the images, one line each; empty when all can be read. Images are decoded in several threads."""

    def problems(index: int) -> list[str]:
        try:
            dataset[index]
        except DataError as error:
            return error.problems
        return []

    return _all(problems, progress(range(len(dataset))))


def _decoded(place: Path, bar: Callable) -> list[str]:
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())] if place.is_dir() else []
    paths = [path for folder in folders for path in images_in(folder)[0]]

    def problems(path: Path) -> list[str]:
        try:
            read_image(path)
        except DataError as error:
            return error.problems
        return []

    return _all(problems, bar(paths))


def _all(problems: Callable[..., list[str]], steps: Iterable) -> list[str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter's lock
        return [line for found in pool.map(problems, steps) for line in found]


def _twice(dataset: Dataset) -> list[str]:
    return [f"{dataset.root}: {one} is listed {count} times" for one, count in Counter(dataset.ids).items() if count > 1]


def _numbering(dataset: Dataset) -> list[str]:
    """What the known labels of a few official validation images say about the order of the classes."""
    if not isinstance(dataset, ImageNet) or dataset.split != "val" or len(dataset.classes) != 1000:
        return []
    order = order_of({one: item.label for one, item in zip(dataset.ids, dataset.annotations, strict=True)})
    fine = order in ("alphabetical", "unknown")
    return [] if fine else [f"{dataset.root}: the labels of val are permuted: they number the classes in another order ({order})"]


def labels(root: Path, count: int = 100) -> list[str]:
    """The problem with ImageNet's labels if EfficientNet-Lite0 hardly ever agrees with them; its top-1 accuracy is printed."""
    images = ImageNet(root, "val", view="crop")
    step = max(1, len(images) // count)
    images = images.part(slice(None, None, step))
    share = top_1("efficientnet_lite0", images)
    print(f"EfficientNet-Lite0: top-1 {100 * share:.1f} % on {len(images)} validation images")
    few = len(images) < 20 or share >= 0.4
    return [] if few else [f"{root}: the labels of val look permuted: EfficientNet-Lite0 has top-1 {100 * share:.1f} %, expected about 75"]


def _has(home: Path, split: str) -> bool:
    if home.name == "ILSVRC2012":
        return any((place / split).is_dir() for place in (home, home / "ILSVRC/Data/CLS-LOC"))
    if home.name == "CUB_200_2011":
        return home.is_dir()
    return (home / f"ImageSets/Main/{split}.txt").is_file() if home.name == "VOC2007" else (home / split).is_dir()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_scripts.check",
        description="Decode every image below a data root and hold the annotations against them; exit 1 with a list if anything is wrong.",
        epilog=WHERE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, nargs="?", help="data root (default: the folder that CAM_DATA names, else data/drawn)")
    parser.add_argument("--root", type=Path, dest="named", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the result as JSON: images by split, problems by split")
    parser.add_argument(
        "--labels", action="store_true", help="also measure EfficientNet-Lite0 on ImageNet, to see whether labels are permuted"
    )
    options = parser.parse_args(arguments)
    named, given = os.environ.get("CAM_DATA"), options.root or options.named
    root = given or Path(named or "data/drawn")
    if options.json:
        result = {name: {"images": count, "problems": found} for name, count, found in findings(root)}
        print(json.dumps({"root": str(root), "splits": result}, indent=1))
        parser.exit(int(not result or any(of["problems"] for of in result.values())))
    why = "--root" if given else "CAM_DATA" if named else "the default, as CAM_DATA is not set"
    print(f"looking below {root} ({why})")
    problems, seen, images = _weights(), list[str](), 0
    for name, count, found in findings(root):
        print(f"{name}: {count} images, {len(found)} problems")
        problems += found
        images += count
        seen.append(name)
    if not seen:
        parser.exit(1, f"{root}: none of {', '.join(READERS)} is there; see --help, or draw one with `python -m data_scripts.draw`\n")
    for folder in READERS:
        if not any(name.startswith(folder) for name in seen):
            print(f"{folder}: not there, skipped")
    if options.labels:
        problems += labels(root)
    print(f"{images} images in {len(seen)} splits below {root}: {len(problems)} problems")
    if problems:
        parser.exit(1, "\n".join([*problems, ""]))


def _weights() -> list[str]:
    """The problem with CAM_WEIGHTS, if there is one; what it holds is printed."""
    named = os.environ.get("CAM_WEIGHTS")
    if not named:
        return []
    if not Path(named).is_dir():
        return [f"CAM_WEIGHTS is {named}, which is no folder: set it to the one that holds the .safetensors files, or unset it"]
    print(f"CAM_WEIGHTS: {len(list(Path(named).glob('*.safetensors')))} .safetensors files in {named}")
    return []


if __name__ == "__main__":
    main()
