"""Check a data root: every image of the three layouts is decoded, every annotation held against its image; findings are listed at once.

python -m data_scripts.check                    # what CAM_DATA names, else data/drawn
python -m data_scripts.check --root data/drawn
"""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from cam_core.data import CUB200, VOC2007, DataError, Dataset, ImageNet

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

A dataset that is not there is skipped. Instead of downloading anything: python -m data_scripts.draw
"""

READERS: dict[str, tuple[type[Dataset], tuple[str, ...]]] = {
    "ILSVRC2012": (ImageNet, ("val", "train", "train256")),
    "VOCdevkit/VOC2007": (VOC2007, ("trainval", "test")),
    "CUB_200_2011": (CUB200, ("train", "test")),
}


def findings(root: Path, progress: bool = True) -> Iterator[tuple[str, int, list[str]]]:
    """(dataset and split, number of images, problems) of every split below ``root``."""
    for folder, (reader, splits) in READERS.items():
        for split in splits:
            if not _has(root / folder, split):
                continue
            try:
                dataset = reader(root, split, view="original")
            except (DataError, FileNotFoundError) as error:
                yield f"{folder} {split}", 0, getattr(error, "problems", [str(error)])
            else:
                bar: Callable = lambda steps, name=f"{folder} {split}": tqdm(steps, desc=name, unit="image", disable=not progress)  # noqa: E731
                yield f"{folder} {split}", len(dataset), check(dataset, bar)


def check(dataset: Dataset, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> list[str]:
    """Every finding of a full pass over the images, one line each; empty when all can be read."""
    problems: list[str] = []
    for index in progress(range(len(dataset))):
        try:
            dataset[index]
        except DataError as error:
            problems += error.problems
    return problems


def _has(home: Path, split: str) -> bool:
    if home.name == "ILSVRC2012":
        return any((place / split).is_dir() for place in (home, home / "ILSVRC/Data/CLS-LOC"))
    return (home / f"ImageSets/Main/{split}.txt").is_file() if home.name == "VOC2007" else home.is_dir()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_scripts.check",
        description="Decode every image below a data root and hold the annotations against them; exit 1 with a list if anything is wrong.",
        epilog=WHERE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, help="data root (default: the folder that CAM_DATA names, else data/drawn)")
    named = os.environ.get("CAM_DATA")
    given: Path | None = parser.parse_args(arguments).root
    root = given or Path(named or "data/drawn")
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
