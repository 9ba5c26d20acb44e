"""The command line of `data_scripts.get`."""

import argparse
import os
from pathlib import Path

from cam_core.data import DataError
from data_scripts.get import cat_dog, imagenet, openimages, weights
from data_scripts.get.sets import OFFICIAL, fetch

OTHERS = {
    "imagenet": "cut from an existing copy (--source), as it cannot be downloaded freely; non-commercial research, image-net.org/download",
    "openimages30k": "WSOL's third benchmark, images by their ids, masks from its archive (--masks); about 300 kB an image;"
    f" {openimages.LICENCE};\n{'':12}{openimages.IMAGES}",
    "cat_dog": "Dogs vs. Cats from Kaggle's or Microsoft's archive (--source), cut to 2000 + 2000 images; competition data, research",
    "weights": "of torchvision's networks, by name (weights resnet50 vgg16), into CAM_WEIGHTS; BSD-3-Clause, trained on ImageNet",
}


def main(arguments: list[str] | None = None) -> None:
    listed = [
        f"  {name:10}{of.about}; {of.bytes / 1e6:,.0f} MB; {of.licence};\n{'':12}{of.archives[0].url}" for name, of in OFFICIAL.items()
    ]
    listed += [f"  {name:10}{about}" for name, about in OTHERS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m data_scripts get",
        description="Fetch a data set, or cut it from an existing copy, into a data root; broken downloads are resumed.",
        epilog="names:\n" + "\n".join(listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[*OFFICIAL, *OTHERS], metavar="NAME", help="which data set (listed below)")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="of weights: torchvision's names")
    parser.add_argument("--root", type=Path, help="data root (default: the folder that CAM_DATA names, else data; of weights: CAM_WEIGHTS)")
    parser.add_argument("--source", help="a mirror's address, or the file or folder that is there already (default: the official address)")
    parser.add_argument("--masks", help="of openimages30k: the archive or folder with the masks, as OpenImages30k_eval.zip, or its address")
    parser.add_argument("--lists", default=openimages.LISTS, help="of openimages30k: address or folder of the benchmark's lists")
    parser.add_argument("--unverified", action="store_true", help="take archives whose checksum is not the published one")
    parser.add_argument("--subset", help="of imagenet: a list in data_scripts/subsets by name, or the path of one")
    parser.add_argument("--allow-partial", action="store_true", help="take what the source has of the subset")
    parser.add_argument("--split", choices=("val", "train", "test"), help="of imagenet (default: val) and openimages30k (default: test)")
    parser.add_argument("--how", choices=imagenet.HOW, default="copy", help="of imagenet: links, copies, or short side --side")
    parser.add_argument("--side", type=int, default=256, help="of --how resize (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="then decode every image; of imagenet and weights, also measure top-1")
    given = parser.parse_args(arguments)
    variable = "CAM_WEIGHTS" if given.name == "weights" else "CAM_DATA"
    root = given.root or Path(os.environ.get(variable) or ("data/weights" if given.name == "weights" else "data"))
    if given.name == "weights" and given.check and "CAM_DATA" not in os.environ:
        parser.error("--check of weights measures on ImageNet's validation images: set CAM_DATA")
    try:
        if given.name == "weights":
            made = weights.fetch(given.networks, root, given.source, data=os.environ.get("CAM_DATA") if given.check else None)
        elif given.networks:
            parser.error(f"{given.name} takes no further names")
        elif given.name == "imagenet" and given.split == "test":
            parser.error("imagenet has the splits val and train; the labels of its test images were never published")
        elif given.name == "imagenet":
            made = imagenet.cut(
                given.source,
                root,
                given.split or "val",
                subset=given.subset,
                how=given.how,
                side=given.side,
                allow_partial=given.allow_partial,
            )
        elif given.name == "openimages30k":
            made = openimages.fetch(
                root, given.split or "test", source=given.source, masks=given.masks, lists=given.lists, unverified=given.unverified
            )
        elif given.name == "cat_dog":
            made = cat_dog.cut(given.source, root)
        else:
            made = fetch(given.name, root, given.source, unverified=given.unverified)
    except (DataError, ValueError, FileNotFoundError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{made} is complete")
    if given.check and given.name != "weights":
        from data_scripts import check

        check.main([str(root), *(["--labels"] if given.name == "imagenet" else [])])
