"""Names of a network's classes, and the class that a name or number given by a user stands for."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torchvision
from tqdm import tqdm


def read(classes: Path) -> list[str]:
    """The names in a UTF-8 text file, one a line; ValueError names the line that is not UTF-8."""
    try:
        return [line.strip() for line in classes.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        line = classes.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{classes}: line {line} is not UTF-8 ({error.object[error.start : error.end]!r}): save the file as UTF-8"
        ) from None


def of_network(network: str, count: int, classes: Path | None = None) -> list[str]:
    """The user's own names; without them ImageNet's if the network has as many outputs, else the numbers.

    One name of two classes is that of a single logit; its opposite gets "not " before it.
    """
    if classes is not None:
        names = read(classes)
        names = [f"not {names[0]}", *names] if len(names) == 1 and count == 2 else names
        if len(names) != count:
            raise ValueError(f"{classes} names {len(names)} classes, but {network} answers with {count}: name each of its outputs")
        return names
    names = list(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])
    return names if len(names) == count else [str(number) for number in range(count)]


def number_of(wanted: str, names: Sequence[str]) -> int:
    """The index of a class, given by its name (case does not matter) or, if no class has that name, by its number.

    ValueError if several classes or none have the name, or the number is out of range. If the name is also another class's number, a note
    is printed.
    """
    found = [index for index, name in enumerate(names) if name.lower() == wanted.strip().lower()]
    number = int(wanted) if wanted.strip().removeprefix("-").isdecimal() else None
    if len(found) > 1:
        listed = ", ".join(f"{index} ({names[index]})" for index in found)
        raise ValueError(f"{len(found)} classes are called {wanted!r}: give the number of the one you mean, {listed}")
    if found:
        if number is not None and number != found[0] and 0 <= number < len(names):
            tqdm.write(
                f"{wanted} is taken for the class of that name, which is number {found[0]}; number {number} is {names[number]!r}",
                file=sys.stderr,
            )
        return found[0]
    if number is None:
        near = [name for name in names if wanted.lower() in name.lower()][:5]
        raise ValueError(f"no class is called {wanted!r}" + (f": did you mean {', '.join(near)}?" if near else "; give its number"))
    if not 0 <= number < len(names):
        raise ValueError(f"class {number} is out of range: the network has {len(names)} classes (0..{len(names) - 1})")
    return number
