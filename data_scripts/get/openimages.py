"""OpenImages30k, the third benchmark of WSOL and CALM: its lists, its masks, and its images by their ids.

The lists lie in the benchmark's repository, the images one by one in the bucket of Open Images. The benchmark's own archives
(``OpenImages30k_eval.zip``: images and masks of val and test; ``OpenImages_annotations.zip``: masks) are on drives that serve browsers
only, so the masks cannot be fetched by address: `fetch` takes the archive. Of Open Images' own archives, no mask says what is ignored.
"""

import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from cam_core.data import DataError, OpenImages30k
from cam_core.data.example import image_size
from cam_core.data.openimages import rows
from cam_core.files import write_json
from data_scripts.get.download import download
from data_scripts.get.sets import MANIFEST, WORK, followed
from data_scripts.get.unpack import ENDINGS, unpack

COMPLETE = {"train": 29_819, "val": 2500, "test": 5000}
LISTS = "https://raw.githubusercontent.com/clovaai/wsolevaluation/b5c1e8a99868d5b2e869aa7f3f5ad8c310b16ca3/metadata/OpenImages"
IMAGES = "https://s3.amazonaws.com/open-images-dataset/{split}/{image}.jpg"
LICENCE = "images CC BY 2.0, annotations CC BY 4.0"
CONNECTIONS = 8


def fetch(
    root: Path,
    split: str = "test",
    *,
    source: str | None = None,
    masks: str | None = None,
    lists: str = LISTS,
    unverified: bool = False,
    progress: bool = True,
) -> Path:
    """Make ``root``/OpenImages/<split> and its lists in ``OpenImages/metadata/<split>`` unless they are there, complete or not at all.

    ``source``: an address with ``{image}`` (and ``{split}``, which is "validation" for val), or an archive or folder with the images; None:
    the bucket of Open Images. ``masks``: the archive or folder with the masks, or its address; train has none. ``lists``: address or folder
    of the lists. The bucket's images are scaled to at most 1024 pixels; whether those of the benchmark's archive are the same bytes is not
    known. What was downloaded is kept where it breaks off. ``unverified``: take lists of another length than the benchmark's.
    """
    final, work = root / "OpenImages", root / WORK / f"openimages30k.{split}"
    tree = work / "OpenImages"
    if (final / split).exists():
        if not (final / "metadata" / split / MANIFEST).is_file():
            raise DataError(f"{final / split} exists and was not fetched by this command; check it with `python -m data_scripts.check`")
        _complete(root, split, unverified)
        return final
    if split != "train" and not masks:
        wanted = "OpenImages30k_eval.zip or OpenImages_annotations.zip"
        raise DataError(f"openimages30k needs --masks for {split}: {wanted}, which github.com/clovaai/wsolevaluation links to")
    for name in ("class_labels.txt", "localization.txt")[: 1 if split == "train" else 2]:
        _list(f"{lists}/{split}/{name}", tree / "metadata" / split / name, progress)
    images = [words[0] for _, words in rows(tree / "metadata" / split / "class_labels.txt", 2)]
    places = tree / "metadata" / split / "localization.txt"
    masked = [word for _, words in (rows(places, 3) if places.is_file() else ()) for word in words[1:] if word]
    if strange := next((name for name in [*images, *masked] if not re.fullmatch(rf"{split}/[\w-]+/[\w-]+\.(jpg|png)", name)), None):
        raise DataError(f"{lists}: lists {strange!r}, expected names like {split}/<class>/<image>.jpg; take the benchmark's lists")
    try:
        if masks:
            _gather(masked, _local(masks, work, progress), tree, work / "loose")
        if source is None or "{image}" in source:
            _download(images, source or IMAGES, tree, progress)
        else:
            _gather(images, _local(source, work, progress), tree, work / "loose")
    finally:
        shutil.rmtree(work / "loose", ignore_errors=True)
    count = _complete(work, split, unverified)
    came = {"lists": followed(lists), "images": source if source and "{image}" in source else followed(source or IMAGES)}
    facts = came | ({"masks": followed(masks)} if masks else {})
    write_json(
        tree / "metadata" / split / MANIFEST, {"name": "openimages30k", "licence": LICENCE, "source": facts, "images": {split: count}}
    )
    (final / "metadata").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(final / "metadata" / split, ignore_errors=True)
    for part in (f"metadata/{split}", split):
        (tree / part).rename(final / part)
    shutil.rmtree(work)
    if not any(work.parent.iterdir()):
        work.parent.rmdir()
    return final


def _complete(root: Path, split: str, unverified: bool) -> int:
    count = len(OpenImages30k(root, split))
    if count != COMPLETE[split] and not unverified:
        raise DataError(f"{root}: has {count:,} of {COMPLETE[split]:,} {split} images; take the benchmark's lists, or pass --unverified")
    return count


def _list(place: str, target: Path, progress: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if place.startswith(("http://", "https://")):
        download(place, target, progress=progress)
    elif not Path(place).is_file():
        raise DataError(f"{place}: no such file; --lists is the folder metadata/OpenImages of github.com/clovaai/wsolevaluation")
    else:
        shutil.copyfile(place, target)


def _local(place: str, work: Path, progress: bool) -> Path:
    """The path of an archive or folder, which is downloaded first where ``place`` is an address."""
    if not place.startswith(("http://", "https://")):
        if not Path(place).exists():
            raise DataError(f"{place}: no such file or folder")
        return Path(place)
    target = work / re.sub(r"\W+", "-", place)[-100:]
    if not target.is_file():
        download(place, target, progress=progress)
    return target


def _gather(names: Sequence[str], given: Path, tree: Path, loose: Path) -> None:
    """Copy the files called ``names`` into the tree out of an archive, a folder, or a folder of archives, whatever folder they lie in."""
    archives = [given] if given.is_file() else [path for path in sorted(given.rglob("*")) if path.name.endswith(ENDINGS)]
    for archive in archives:
        if not (loose / archive.name).is_dir():
            unpack(archive, loose / archive.name)
    places = (given, loose) if given.is_dir() else (loose,)
    found = {path.name: path for place in places for path in place.rglob("*") if path.suffix in (".jpg", ".png")}
    if missing := [name for name in names if Path(name).name not in found]:
        raise DataError(
            f"{given}: lacks {len(missing)} of the {len(names)} files that the lists name, as {missing[0]}; take another archive"
        )
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found[Path(name).name], tree / name)


def _download(names: Sequence[str], template: str, tree: Path, progress: bool) -> None:
    """Every image that is not in the tree yet, over several connections."""

    def one(name: str) -> None:
        if not (tree / name).is_file():
            folder, _, rest = name.partition("/")
            address = template.format(split="validation" if folder == "val" else folder, image=Path(rest).stem)
            download(address, tree / name, progress=False)
        try:
            image_size(tree / name)
        except DataError:
            (tree / name).unlink()  # so that another call fetches it again
            raise

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            jobs = [pool.submit(one, name) for name in names]
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="images", unit="image", disable=not progress):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
