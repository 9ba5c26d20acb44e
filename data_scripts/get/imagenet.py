"""ImageNet from an existing copy in any of its usual layouts: a subset, or a whole split, in the layout that `cam_core.data` reads.

What is found below a source: ``val/*.JPEG`` flat or in folders by class, also below ``ILSVRC2012`` or Kaggle's ``ILSVRC/Data/CLS-LOC``;
``ILSVRC2012_img_val.tar`` and ``ILSVRC2012_img_train.tar`` (a tar of tars); Hugging Face's ``*.parquet`` shards. Labels come from the
folders, ``<split>.txt``, ``LOC_<split>_solution.csv``, the devkit or the shards, and must agree where several say one.
"""

import io
import shutil
import tarfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from torchvision.models import ResNet50_Weights
from tqdm import tqdm

from cam_core.data import DataError
from cam_core.data.example import ENDINGS, images_in, read_image, table, whole
from cam_core.data.folder import subfolders
from cam_core.data.imagenet import solution
from cam_core.files import write_json
from data_scripts import subsets
from data_scripts.get.sets import MANIFEST, WORK, followed
from data_scripts.get.unpack import unpack

HOW = ("link", "copy", "resize")
DEVKIT = "ILSVRC2012_devkit_t12"
# Labels of the first ten validation images: in alphabetical order of the wnids (held against the WSOL benchmark's list), and as the devkit
# numbers its classes. For these there are two public scripts that repeat its ground truth, and one of its map_clsloc.txt (in
# github.com/wisetrue95/Classification2020), which leads from each number to the wnid that the alphabetical label has.
FIRST = {
    "alphabetical": (65, 970, 230, 809, 516, 57, 334, 415, 674, 332),
    "devkit": (490, 361, 171, 822, 297, 482, 13, 704, 599, 164),
}
Found = tuple[str, str | int | None, Path | bytes]  # file name, wnid or label where the layout says one, the file or its content


def order_of(labels: Mapping[str, int]) -> str:
    """How a list (image id -> label) numbers its classes: "alphabetical", "from one", "devkit"; "unknown" without a known image in it."""
    known = {f"ILSVRC2012_val_{number:08}": number - 1 for number in range(1, 11)}
    seen = [(labels[one], place) for one, place in known.items() if one in labels]
    if seen and all(label == FIRST["alphabetical"][place] for label, place in seen):
        return "alphabetical"
    if seen and all(label == FIRST["alphabetical"][place] + 1 for label, place in seen):
        return "from one"
    if seen and all(label == FIRST["devkit"][place] for label, place in seen):
        return "devkit"
    return "from one" if not seen and max(labels.values(), default=0) == 1000 else "permuted" if seen else "unknown"


def cut(
    source: str | None,
    root: Path,
    split: str = "val",
    *,
    subset: str | None = None,
    how: str = "copy",
    side: int = 256,
    allow_partial: bool = False,
    progress: bool = True,
) -> Path:
    """Write ``root``/ILSVRC2012 with the images of ``split`` that ``subset`` names (default: all), their labels, boxes and class names.

    ``how``: "link" (symbolic links), "copy", or "resize" (JPEG of quality 95, short side ``side``; boxes are scaled and rounded outwards).
    `DataError` where labels are missing, contradict each other or number the classes in another order, and where the source has a part of
    the subset only, unless ``allow_partial``.
    """
    if not source or not Path(source).exists():
        raise DataError(f"imagenet needs --source, the folder or tar where a copy lies (got {source}); image-net.org gives it on request")
    home, final, work = Path(source), root / "ILSVRC2012", root / WORK
    if final.exists():
        raise DataError(f"{final} exists; give another --root, or move it away")
    wanted = set(subsets.read(subset)) if subset else None
    tree = work / "imagenet.tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / split).mkdir(parents=True)
    try:
        labels = Labels(home, split, work)
        rows, scales = [], {}
        for name, said, content in tqdm(
            _images(home, split, wanted), desc=split, unit="image", total=len(wanted or ()) or None, disable=not progress
        ):
            wnid = labels.of(Path(name).stem, said)
            path = tree / split / (wnid if split == "train" else "") / name
            path.parent.mkdir(exist_ok=True)
            scales[path.stem] = _write(content, path, how, side)
            rows.append((path.stem, path.relative_to(tree / split).as_posix(), labels.wnids.index(wnid)))
        if len({one for one, *_ in rows}) < len(rows):
            raise DataError(f"{source}: holds images of the same name twice; clean it first")
        present, of = len(rows), len(wanted) if wanted else len(rows)
        if not rows:
            raise DataError(f"{source}: holds no image of {split}" + (f" that {subset} lists" if subset else ""))
        if present < of and not allow_partial:
            raise DataError(f"{source}: has {present} of the {of} images of {subset}; pass --allow-partial to take these")
        rows.sort()
        (tree / f"{split}.txt").write_text("".join(f"{path} {label}\n" for _, path, label in rows), encoding="utf-8")
        (tree / "LOC_synset_mapping.txt").write_text(
            "".join(f"{wnid} {name}\n" for wnid, name in zip(labels.wnids, labels.names, strict=True)), encoding="utf-8"
        )
        boxes = labels.boxes(scales)
        if boxes:
            (tree / f"LOC_{split}_solution.csv").write_text("ImageId,PredictionString\n" + "".join(boxes), encoding="utf-8")
        facts = {
            "images": {split: present},
            "subset": {"name": subset if subset in subsets.RULES or not subset else followed(subset), "present": present, "of": of},
            "how": how,
        }
        write_json(
            tree / MANIFEST, {"name": "imagenet", "source": followed(source), **facts, **({"side": side} if how == "resize" else {})}
        )
        tree.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


class Labels:
    """What a copy says about its images' classes: ``wnids`` and ``names`` in the order of the labels, and `of` one image its wnid."""

    def __init__(self, home: Path, split: str, work: Path) -> None:
        self.home, self.split = home if home.is_dir() else home.parent, split
        self.solution = _first(self.home, f"LOC_{split}_solution.csv")
        self.listed: dict[str, str | int] = {}
        mapping, devkit = _first(self.home, "LOC_synset_mapping.txt"), self._devkit(work)
        number, classes = _meta(devkit) if devkit else ({}, {})
        self.wnids: list[str] = []
        if mapping:
            self.wnids = [row[0] for row in table(mapping, 2)]
            self.names = [" ".join(row[1:]) for row in table(mapping, 2)]
            if self.wnids != sorted(self.wnids):
                raise DataError(f"{mapping}: its classes are not in alphabetical order, and labels count in it; take Kaggle's file")
        elif devkit:
            self.wnids = sorted(number.values())
            self.names = [classes[wnid] for wnid in self.wnids]
        elif len(found := _class_folders(self.home, split)) == 1000:
            self.wnids, self.names = found, list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
        else:
            raise DataError(f"{home}: nothing names its classes; put Kaggle's LOC_synset_mapping.txt or {DEVKIT}.tar.gz beside the images")
        if split == "val" and devkit:
            truth = devkit / "data/ILSVRC2012_validation_ground_truth.txt"
            numbers = [row[0] for row in table(truth, 1, whole)]
            if strange := set(numbers) - number.keys():
                raise DataError(f"{truth}: has class {min(strange)}, which meta.mat does not have; fetch the devkit again")
            self.listed = {f"ILSVRC2012_val_{place:08}": number[one] for place, one in enumerate(numbers, start=1)}
        names = _first(self.home, f"{split}.txt")
        if names:
            plain = {Path(row[0]).stem: row[1] for row in table(names, 2, str, whole, str)}
            known = {one: wnid for one, wnid in self.listed.items() if one in plain}
            by_devkit = bool(known) and all(number.get(plain[one]) == wnid for one, wnid in known.items())
            order = order_of(plain) if len(self.wnids) == 1000 and not by_devkit else "alphabetical"
            if order in ("devkit", "permuted"):
                words = "look like the devkit's class ids" if order == "devkit" else "follow another order of the classes"
                raise DataError(
                    f"{names}: its labels {words}, not the alphabetical order; put {DEVKIT}.tar.gz beside it, or take another list"
                )
            if not by_devkit:
                self._enter({one: self._wnid(label - (order == "from one"), names) for one, label in plain.items()}, names)
        if self.solution:
            self.rows = solution(self.solution)
            self._enter({one: wnid for one, (wnid, _) in self.rows.items()}, self.solution)

    def of(self, image_id: str, said: str | int | None) -> str:
        """The wnid of an image, from its layout (``said``) and the lists, which must agree."""
        if isinstance(said, int):
            said = self._wnid(said, self.home)
        listed = self.listed.get(image_id)
        if said is None and listed is None:
            raise DataError(
                f"{self.home}: nothing says the class of {image_id}; add LOC_{self.split}_solution.csv, {self.split}.txt or {DEVKIT}.tar.gz"
            )
        if said and listed and said != listed:
            raise DataError(f"{self.home}: {image_id} is a {said} by its folder or shard and a {listed} by the lists; fix one of them")
        found = str(said or listed)
        if found not in self.wnids:
            raise DataError(f"{self.home}: {image_id} is in class {found}, which the list of classes does not have")
        return found

    def boxes(self, scales: Mapping[str, float]) -> list[str]:
        """Rows of the csv for the images written, in the scale in which they were."""
        if not self.solution:
            return []
        rows = []
        for one, scale in sorted(scales.items()):
            wnid, boxes = self.rows.get(one, ("", []))
            words = []
            for x0, y0, x1, y1 in boxes:
                outwards = (np.floor(x0 * scale), np.floor(y0 * scale), np.ceil((x1 + 1) * scale) - 1, np.ceil((y1 + 1) * scale) - 1)
                words += [wnid, *(str(int(value)) for value in outwards)]
            rows += [f"{one},{' '.join(words)} \n"] if words else []
        return rows

    def _enter(self, found: Mapping[str, str], path: Path) -> None:
        for one, wnid in found.items():
            if self.listed.setdefault(one, wnid) != wnid:
                raise DataError(f"{path}: {one} is a {wnid}, but another list says {self.listed[one]}; keep one of them")

    def _wnid(self, label: int, path: Path) -> str:
        if not 0 <= label < len(self.wnids):
            raise DataError(f"{path}: label {label} is out of range: there are {len(self.wnids)} classes")
        return self.wnids[label]

    def _devkit(self, work: Path) -> Path | None:
        folder, archive = _first(self.home, DEVKIT), _first(self.home, f"{DEVKIT}.tar.gz")
        if folder is None and archive:
            folder = unpack(archive, work / "devkit") / DEVKIT
        return folder


def _meta(devkit: Path) -> tuple[dict[int, str], dict[str, str]]:
    """Id -> wnid and wnid -> names of the thousand classes; those with children are no classes."""
    from scipy.io import loadmat

    rows = [row for row in loadmat(devkit / "data/meta.mat", squeeze_me=True)["synsets"] if row["num_children"] == 0]
    return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}, {str(row["WNID"]): str(row["words"]) for row in rows}


def _places(home: Path) -> list[Path]:
    return [home, home / "ILSVRC2012", home / "ILSVRC/Data/CLS-LOC", home / "ILSVRC2012/ILSVRC/Data/CLS-LOC", home / "data"]


def _first(home: Path, name: str) -> Path | None:
    return next((place / name for place in [*_places(home), home.parent] if (place / name).exists()), None)


def _class_folders(home: Path, split: str) -> list[str]:
    return next((found for place in _places(home) if (place / split).is_dir() and (found := subfolders(place / split))), [])


def _images(home: Path, split: str, wanted: Collection[str] | None) -> Iterator[Found]:
    """Every image of the split, those of ``wanted`` ids only where it is given."""
    tar = home if home.is_file() else _first(home, f"ILSVRC2012_img_{split}.tar")
    places = [place / split for place in _places(home) if (place / split).is_dir()] if home.is_dir() else []
    shards = sorted(path for place in _places(home) for path in place.glob(f"{split}*.parquet")) if home.is_dir() else []
    if places:
        found = _in_folders(places[0], split)
    elif tar:
        found = _in_tar(tar)
    elif shards:
        found = _in_shards(shards)
    else:
        found = _in_folders(home, split)
    return (one for one in found if wanted is None or Path(one[0]).stem in wanted)


def _in_folders(folder: Path, split: str) -> Iterator[Found]:
    for kind in subfolders(folder):
        for path in images_in(folder / kind)[0]:
            yield path.name, kind, path
    for path in images_in(folder)[0]:
        yield path.name, None if split == "val" else path.name.partition("_")[0], path


def _in_tar(path: Path) -> Iterator[Found]:
    """The images of a tar, and of the tars of the classes in it."""
    try:
        with path.open("rb") as file:  # tarfile takes a tar that was cut off in a header for a complete one
            file.seek(max(0, path.stat().st_size - tarfile.BLOCKSIZE))
            if any(file.read()):
                raise tarfile.ReadError("it was cut off")
        with tarfile.open(path) as outer:
            for member in outer:
                inside = outer.extractfile(member) if member.isreg() else None
                if inside is None:
                    continue
                if member.name.endswith(".tar"):
                    with tarfile.open(fileobj=inside) as inner:
                        for image in inner:
                            if image.isreg() and (content := inner.extractfile(image)):
                                yield Path(image.name).name, Path(member.name).stem, _whole(content, image)
                elif Path(member.name).suffix.lower() in ENDINGS:
                    folder = Path(member.name).parent.name
                    yield (
                        Path(member.name).name,
                        folder if folder.startswith("n") and folder[1:].isdigit() else None,
                        _whole(inside, member),
                    )
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error


def _whole(content: IO[bytes], member: tarfile.TarInfo) -> bytes:
    """The content of a member; of a tar that was cut off, tarfile gives what is left."""
    found = content.read()
    if len(found) != member.size:
        raise tarfile.ReadError(f"{member.name} ends after {len(found)} of {member.size} bytes")
    return found


def _in_shards(paths: Collection[Path]) -> Iterator[Found]:
    """Hugging Face's shards: the image's bytes and name in a struct, the label in alphabetical order; names may end in a wnid."""
    for path in paths:
        for batch in pq.ParquetFile(path).iter_batches(64, columns=["image", "label"]):
            for row in batch.to_pylist():
                name = Path(row["image"]["path"])
                stem = name.stem.rpartition("_n")[0] if name.stem.count("_n") and name.stem.rpartition("_n")[2].isdigit() else name.stem
                yield f"{stem}{name.suffix}", row["label"], row["image"]["bytes"]


def _write(content: Path | bytes, path: Path, how: str, side: int) -> float:
    """Write one image; the scale in which it was written."""
    if how == "link":
        if isinstance(content, bytes):
            raise DataError(f"{path.name} lies in an archive, which cannot be linked to; take --how copy or resize")
        path.symlink_to(content.resolve())
    elif how == "copy":
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    else:
        if isinstance(content, bytes):
            path.write_bytes(content)
        image = read_image(path if isinstance(content, bytes) else content)
        scale = side / min(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        buffer = io.BytesIO()
        image.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=95)
        path.write_bytes(buffer.getvalue())
        return scale
    return 1.0
