"""`python -m cam_core explain`: heat maps of one's own images. (`python -m reproduce` runs notebooks and batches.)"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do it; 0 if all went well, 1 after one clear sentence on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return _explain(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _explain(options: argparse.Namespace) -> int:
    from cam_core.environment import keep_pages
    from cam_core.explain import explain

    keep_pages()
    given = vars(options)
    names = ("model", "weights", "classes", "layer", "target", "view", "size", "mean", "std", "activation", "save_maps", "device")
    pictures, problems = explain(options.images, options.out, methods=options.method.split(","), **{name: given[name] for name in names})
    print(f"{len(pictures)} pictures and explained.json in {options.out}")
    for problem in problems:
        print(f"not explained: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cam_core", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    explain = commands.add_parser("explain", help="heat maps of your own images, as pictures and JSON")
    explain.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders of them")
    explain.add_argument("--out", type=Path, required=True, help="folder of the pictures and explained.json")
    explain.add_argument(
        "--model", default="efficientnet_lite0", help="a classification network of torchvision, or timm/NAME (default: %(default)s)"
    )
    explain.add_argument("--method", default="grad_cam", help="one or several, with commas: grad_cam,increment_cam,l_cam_fm")
    explain.add_argument("--weights", default="imagenet", help="imagenet, or a state dict of that network as .safetensors or .pth")
    explain.add_argument("--classes", type=Path, help="text file with one class name a line, for one's own network")
    explain.add_argument("--layer", help="the layer to explain (default: the last convolutional map)")
    explain.add_argument("--target", help="class to explain, by name or number (default: the prediction)")
    explain.add_argument(
        "--view", choices=("keep", "squash", "crop"), default="keep", help="the whole image in its shape, as a square, or its middle"
    )
    explain.add_argument("--size", type=int, help="pixels of the network's input (default: what the network was made for)")
    for name in ("mean", "std"):
        explain.add_argument(
            f"--{name}", type=float, nargs="+", metavar="C", help="the network's normalisation, of RGB in [0, 1]; one value: of grey"
        )
    explain.add_argument(
        "--activation", choices=("softmax", "sigmoid"), default="softmax", help="sigmoid: the network has several labels, or a single logit"
    )
    explain.add_argument("--save-maps", action="store_true", help="also write the raw maps, a .npz an image")
    explain.add_argument("--device", default="cpu")
    return parser


if __name__ == "__main__":
    sys.exit(main())
