"""Fixed lists of images, ids only, one a line; a list is never changed, a new version gets a new name.

from data_scripts import subsets
subsets.read("imagenet_val_5000_v1")[:2]       # ids without endings
subsets.read("my/list.txt")                    # a list of one's own; further words of a line are ignored
"""

from pathlib import Path

from cam_core.data import DataError, Dataset
from cam_core.data.example import table

HOME = Path(__file__).parent
RULES = {  # name -> what is in the list; `make` writes those whose source is given
    "imagenet_val_5000_v1": "of the 50,000 official validation images the 5000 first by sha256 of 'v1 <id>', sorted",
    "imagenet_energy_500_v1": "500 validation images with one box, of less than half of the image, first by sha256 of 'v1 <id>', sorted"
    " (the rule of Score-CAM's energy game; its own 500 were never published)",
    "voc07_test_v1": "all 4952 test images",
    "voc07_difficult_v2": "the pointing game's 2230 difficult pairs of the test images, image and class: the union of the class's boxes"
    " covers less than a quarter of the image, and another class has an object that is not flagged difficult; v1 took the sum of the"
    " areas, and had 2185",
    "cub_pairs_v1": "the 191 class pairs that differ in one to three parts (CALM): class id, class id, number of parts",
}
ELSEWHERE = {
    "l_cam_2000": "L-CAM's 2000 test images; the list is the authors' (datalist/ILSVRC/Evaluation_2000.txt of github.com/bmezaris/L-CAM,"
    " without a licence): give its path",
    "cub_test": "all test images of CUB-200-2011 are the split itself, 0 in train_test_split.txt: give no subset",
}


PAIRS = ("voc07_difficult_v2", "cub_pairs_v1")  # lists of pairs, which name no set of images


def read(name: str | Path) -> list[str]:
    """The ids of a list by name or path, without folders and endings. `DataError` for an unknown name, a list with an id twice, or none."""
    path = Path(name)
    if str(name) in RULES:
        path = HOME / f"{name}.txt"
    elif not path.is_file():
        where = ELSEWHERE.get(str(name), f"expected the path of a list, or one of {', '.join([*RULES, *ELSEWHERE])}")
        raise DataError(f"no list is called {str(name)!r}: {where}")
    ids = [Path(row[0]).stem for row in table(path, 1)]
    if str(name) not in PAIRS and len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise DataError(f"{path}: lists {twice} more than once")
    if not ids:
        raise DataError(f"{path}: lists nothing")
    return ids


def cut(data: Dataset, name: str | Path, *, allow_partial: bool = False) -> Dataset:
    """The images of a data set that a list names. `DataError` where some of them are not there, unless ``allow_partial``."""
    if str(name) in PAIRS:
        raise DataError(f"{name} lists pairs, not images; give a list of images")
    ids = set(read(name))
    present = len(ids.intersection(data.ids))
    if not present or (present < len(ids) and not allow_partial):
        take = "; pass allow_partial to take these" if present else ""
        raise DataError(f"{data.root}: has {present} of the {len(ids)} images of {name}{take}")
    return data.only(ids)
