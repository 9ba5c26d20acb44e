"""Kaggle's Dogs vs. Cats as an image folder of 2000 training and 2000 validation images, short side 128 (one of LFI-CAM's data sets)."""

import hashlib
import re
import shutil
from pathlib import Path

from torchvision.transforms.v2.functional import resize

from cam_core.data import DataError
from cam_core.data.example import read_image
from cam_core.files import write_json
from data_scripts.get.sets import MANIFEST, WORK, followed
from data_scripts.get.unpack import unpack

NAME = "Cat-Dog-128"
EACH = 1000  # images of each class in each split
MICROSOFT = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"


def cut(source: str | None, root: Path, each: int = EACH) -> Path:
    """``root``/Cat-Dog-128/{train,val}/{cats,dogs} from a folder or an archive with files like ``cat.12.jpg`` or ``Cat/12.jpg``.

    The images of a class are taken in the order of sha256 of "<class> <number>", those that cannot be decoded (the archive has a few) left
    out: the first ``each`` for training, the next for validation. The split is our choice; the competition has none.
    """
    if not source:
        raise DataError(f"cat_dog needs --source: Kaggle's train.zip (kaggle.com/c/dogs-vs-cats), or {MICROSOFT} (787 MB) on your disk")
    final, work = root / NAME, root / WORK
    if final.exists():
        raise DataError(f"{final} exists; move it away to cut it again")
    loose, tree = work / "cat_dog.loose", work / "cat_dog.tree"
    shutil.rmtree(loose, ignore_errors=True)
    shutil.rmtree(tree, ignore_errors=True)
    try:
        home = Path(source) if Path(source).is_dir() else unpack(Path(source), loose)
        skipped = [name for kind in ("cat", "dog") for name in _cut_class(home, kind, tree, each)]
        facts = {"images": {"train": 2 * each, "val": 2 * each}, "left out, cannot be decoded": skipped}
        write_json(tree / MANIFEST, {"name": NAME, "licence": "Kaggle competition data, research", "source": followed(source), **facts})
        tree.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _cut_class(home: Path, kind: str, tree: Path, each: int) -> list[str]:
    """Write one class; the names of what could not be decoded."""
    pattern = re.compile(rf"(?:^|/){kind}(?:\.|s?/)(\d+)\.jpe?g$", re.IGNORECASE)
    found = {int(hit[1]): path for path in home.rglob("*") if (hit := pattern.search(path.relative_to(home).as_posix()))}
    order = sorted(found, key=lambda number: hashlib.sha256(f"{kind} {number}".encode()).hexdigest())
    taken, skipped = 0, []
    for number in order:
        if taken == 2 * each:
            break
        try:
            image = resize(read_image(found[number]), [128], antialias=True)
        except DataError:
            skipped.append(found[number].name)
            continue
        path = tree / ("train" if taken < each else "val") / f"{kind}s" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=85)
        taken += 1
    if taken < 2 * each:
        raise DataError(f"{home}: has {taken} {kind}s that can be decoded, {2 * each} are needed, called {kind}.12.jpg or {kind}/12.jpg")
    return skipped
