"""Openly licensed photographs that come with installed packages: what they show, whose they are, where their files lie.

`python -m data_scripts.photographs OUT` copies them into a folder, for those who want to look at them with their own tools.
"""

import argparse
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Photograph:
    """A picture that may be shown, heat maps included. ``shows`` is what a person sees in it, ``credit`` goes below it wherever it stands.

    ``package`` and ``file``: where it lies among the installed packages. ``source``: the page it was published on.
    """

    name: str
    package: str
    file: str
    shows: str
    author: str
    licence: str
    source: str

    @property
    def credit(self) -> str:
        """Author and licence in a few words."""
        return f"{self.author}, {self.licence}"

    @property
    def path(self) -> Path:
        """The file; FileNotFoundError says which package to install."""
        found = importlib.util.find_spec(self.package)
        home = Path(found.origin).parent if found and found.origin else Path()
        if not found or not (home / self.file).is_file():
            raise FileNotFoundError(f"the photograph {self.name!r} comes with the package {self.package}: install it, or run `make setup`")
        return home / self.file


# The licences are those that the packages' documentation states beside each picture.
PHOTOGRAPHS = {
    photograph.name: photograph
    for photograph in (
        Photograph(
            "chelsea", "skimage", "data/chelsea.png", "a tabby cat called Chelsea", "Stefan van der Walt", "CC0",
            "https://scikit-image.org/docs/stable/api/skimage.data.html#skimage.data.chelsea",
        ),
        Photograph(
            "coffee", "skimage", "data/coffee.png", "a cup of espresso with a spoon", "Rachel Michetti, Pikolo Espresso Bar", "CC0",
            "https://scikit-image.org/docs/stable/api/skimage.data.html#skimage.data.coffee",
        ),
        Photograph(
            "flower", "sklearn", "datasets/images/flower.jpg", "a dahlia", "vultilion", "CC BY 2.0",
            "https://www.flickr.com/photos/vultilion/6056698931/",
        ),
        Photograph(
            "china", "sklearn", "datasets/images/china.jpg", "a temple in the Summer Palace, Beijing", "Daniel Buechele", "CC BY 2.0",
            "https://www.flickr.com/photos/danielbuechele/6061409035/",
        ),
        Photograph(
            "camera", "skimage", "data/camera.png", "a photographer behind a camera on a tripod", "Lav Varshney", "CC0",
            "https://github.com/scikit-image/scikit-image/issues/3927",
        ),
        Photograph(
            "rocket", "skimage", "data/rocket.jpg", "a rocket leaving its launch pad", "SpaceX", "public domain",
            "https://www.flickr.com/photos/spacexphotos/16511594820/",
        ),
        Photograph(
            "astronaut", "skimage", "data/astronaut.png", "the astronaut Eileen Collins", "NASA", "public domain", "https://flic.kr/p/r9qvLn",
        ),
        Photograph(
            "hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "Rear Admiral Grace Hopper in uniform", "U.S. Navy",
            "public domain", "https://matplotlib.org/stable/api/cbook_api.html#matplotlib.cbook.get_sample_data",
        ),
    )
}  # fmt: skip


def main() -> None:
    """Copy every photograph into a folder and print its credit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path, help="folder that the photographs are copied into")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for photograph in PHOTOGRAPHS.values():
        target = out / f"{photograph.name}{photograph.path.suffix}"
        shutil.copyfile(photograph.path, target)
        print(f"{target}: {photograph.shows} ({photograph.credit}; {photograph.source})")


if __name__ == "__main__":
    main()
