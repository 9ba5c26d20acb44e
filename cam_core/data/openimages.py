"""OpenImages30k, the third benchmark of WSOL and CALM (Choe et al., CVPR 2020), in its layout: masks instead of boxes."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import pil_to_tensor, resize_mask

from cam_core.data.example import Annotation, DataError, Dataset, Example, View, folder, lines, read_image, whole


class OpenImages30k(Dataset):
    """``OpenImages/<split>/<class>/<image>.jpg`` with its masks beside it, and the benchmark's lists in ``OpenImages/metadata/<split>/``.

    The lists (``metadata/OpenImages`` of github.com/clovaai/wsolevaluation) are ``class_labels.txt`` ("image,label") and
    ``localization.txt`` ("image,mask,ignored", one line an instance, the third word on an image's first line only; train has none).
    ``classes`` are the class folders in the order of the labels: OpenImages' ids, as the lists give no names. Ids are "<class>/<image>".

    ``segmentation`` is the union of the instance masks, ``ignored`` what is not to be counted outside of them. A mask may have another size
    than its image: with view "squash" each is scaled itself, by its nearest pixels, as in the benchmark, else to the image's size first.
    """

    def __init__(self, root: Path | str, split: str = "test", view: View = "squash", size: int = 224, limit: int | None = None) -> None:
        home = folder(root, "OpenImages", "metadata")
        super().__init__(home, split, view, size, limit)
        if split not in ("train", "val", "test"):
            raise ValueError(f"unknown split {split!r}: OpenImages30k has train, val and test")
        self.square = (size, size) if view == "squash" else None
        places, labels = home / "metadata" / split, dict[int, str]()
        masks, ignored = _masks(places / "localization.txt")
        for number, (name, word) in rows(places / "class_labels.txt", 2):
            try:
                label, kind = whole(word), Path(name).parent.name
            except ValueError as error:
                raise DataError(f"{places / 'class_labels.txt'}: line {number}: {error}; fetch the file again") from None
            if labels.setdefault(label, kind) != kind:
                raise DataError(
                    f"{places / 'class_labels.txt'}: line {number}: label {label} is {labels[label]} and {kind}; fetch it again"
                )
            own = [home / mask for mask in masks.get(name, [])]
            item = Annotation(home / name, label, segmentation=own[0] if own else None, instances=tuple(own[1:]))
            item.ignored = home / ignored[name] if name in ignored else None
            self.ids.append(f"{kind}/{Path(name).stem}")
            self.annotations.append(item)
        if sorted(labels) != list(range(len(labels))):
            raise DataError(f"{places / 'class_labels.txt'}: its labels are not 0 to {len(labels) - 1}; fetch the file again")
        self.classes = [labels[label] for label in range(len(labels))]
        self._finish()

    def __getitem__(self, index: int) -> Example:
        """An example with both masks in the coordinates of the view."""
        example, item = super().__getitem__(index), self.annotations[index]
        if item.segmentation:
            read = [self._mask(path, example.size) for path in (item.segmentation, *item.instances)]
            example.segmentation = tv_tensors.Mask(torch.stack(read).any(0))
            if item.ignored:
                example.ignored = tv_tensors.Mask(self._mask(item.ignored, example.size) & ~example.segmentation)
        return example

    def _soft(self, item: Annotation, size: tuple[int, int]) -> None:  # masks may have another size than the image
        return None

    def _mask(self, path: Path, size: tuple[int, int]) -> Tensor:
        """Bool [H,W] of one file, in the coordinates of the view."""
        stored = pil_to_tensor(read_image(path, behind=None).convert("L"))
        if self.square:
            seen: Tensor = resize_mask(stored, list(self.square))[0]
        else:
            seen = self.transform(tv_tensors.Mask(resize_mask(stored, list(size))[0])).as_subclass(Tensor)
        return seen > 0


def rows(path: Path, words: int) -> Iterator[tuple[int, list[str]]]:
    """Number and words of the lines of a list, which are parted by commas."""
    for number, line in enumerate(lines(path), start=1):
        found = line.strip().split(",")
        if found == [""]:
            continue
        if len(found) != words or not found[0]:
            raise DataError(f"{path}: line {number} has {len(found)} words, expected {words} parted by commas; fetch the file again")
        yield number, found


def _masks(path: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Image -> its instance masks, and image -> the mask of what is ignored."""
    masks, ignored = dict[str, list[str]](), dict[str, str]()
    for _, (name, mask, other) in rows(path, 3) if path.is_file() else ():
        masks.setdefault(name, []).append(mask)
        if other:
            ignored[name] = other
    return masks, ignored
