"""Photographs explained: `python book/photographs.py` writes them, their heat maps and what the network said into runs/photographs/.

The network is EfficientNet-Lite0, whose ImageNet weights come with the installed packages, as the photographs do: nothing is downloaded.
It sees the whole picture, squashed to its square input; a tile has the photograph's own shape. What is there already of the same
code, packages and photographs, stays. `--readme` also writes the picture that the README shows, book/_static/photographs.webp.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torchvision
from names import name
from PIL import Image
from tqdm import tqdm

from cam_core import figures, files, maps
from cam_core.data.example import read_image
from cam_core.data.transforms import short_side, view
from cam_core.environment import versions
from cam_core.learned.shipped import about, learned_method
from cam_core.methods import method
from cam_core.pretrained import LITE, load_classifier
from cam_core.probe import Probe
from data_scripts.photographs import PHOTOGRAPHS

HOME = Path(__file__).resolve().parent.parent
OUT = HOME / "runs/photographs"
EXPLAINED = ("grad_cam", "increment_cam", "l_cam_fm", "l_cam_img", "score_cam", "grad_cam_pp", "layer_cam")
CONTROLS = ("mean_activation", "grad_cam[power=2]", "center_gaussian")
SIDE = 336  # the short side of a tile, sharp where it is shown at 150 pixels on a screen of two dots a pixel


README = HOME / "book/_static/photographs.webp", ("chelsea", "coffee", "rocket")
COLUMNS = ("grad_cam", "increment_cam", "l_cam_fm", "mean_activation", "grad_cam[power=2]")


def main():
    """Write what is missing; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", action="store_true", help="also write the README's picture")
    wanted = parser.parse_args()
    facts, key = OUT / "photographs.json", digest()
    if facts.is_file() and json.loads(facts.read_text())["digest"] == key:
        print(f"Nothing changed. The photographs: {OUT}")
    else:
        explain_all(facts, key)
    if wanted.readme:
        picture(json.loads(facts.read_text())["photographs"], *README)
    return 0


def explain_all(facts, key):
    """Every photograph and its maps as tiles, and what is to be known of them as the JSON file ``facts``."""
    OUT.mkdir(parents=True, exist_ok=True)
    classifier = load_classifier(LITE).frozen()
    classes = torchvision.models.get_model_weights("resnet50").DEFAULT.meta["categories"]
    explained = [learned_method(one, classifier) if one.startswith("l_cam") else method(one) for one in (*EXPLAINED, *CONTROLS)]
    entries = {}
    for photograph in tqdm(PHOTOGRAPHS.values(), "photographs", file=sys.stderr):
        picture = read_image(photograph.path)
        seen = view("squash", classifier.size, interpolation=classifier.interpolation)(picture)
        probe = Probe(classifier, seen[None].as_subclass(torch.Tensor))
        shown = short_side(SIDE)(picture).as_subclass(torch.Tensor).clamp(0, 1)
        write(OUT / f"{photograph.name}.webp", figures.blend(shown))
        said = probe.probabilities[0].topk(3)
        entries[photograph.name] = {
            "size": list(shown.shape[:0:-1]),
            "said": [[classes[int(index)], round(100 * float(p), 1)] for p, index in zip(*said, strict=True)],
            "maps": {one.name: explain(one, probe, shown, OUT / f"{photograph.name}-{slug(one.name)}.webp") for one in explained},
        }
    trained = {one: about(one) for one in EXPLAINED if one.startswith("l_cam")}
    network = {"network": LITE, "weights": classifier.weights, "layer": classifier.layer, "view": "squash"}
    files.write_json(facts, {"digest": key, **network, "photographs": entries, "l_cam": trained, "versions": versions()})
    print(f"{len(entries)} photographs, {len(explained)} maps each: {OUT}")


def explain(one, probe, shown, file):
    """Write the tile of one map over a photograph [3,H,W]; what a figure needs to know of it."""
    heat = one(probe)
    heat = heat if one.finished else maps.min_max(heat)
    write(file, figures.blend(shown, maps.upsample(heat, shown.shape[-2:])[0]))
    return {"file": file.name, "empty": bool(maps.is_empty(heat)[0])}


def picture(entries, file, chosen):
    """One picture of the tiles: a row a photograph, a column a method, the network's answer below the photograph."""
    shape = {"nrows": len(chosen), "ncols": 1 + len(COLUMNS)}
    figure, axes = plt.subplots(**shape, figsize=(1.9 * shape["ncols"], 1.5 * shape["nrows"]), dpi=150, layout="constrained")
    for row, photograph in enumerate(chosen):
        said, sure = entries[photograph]["said"][0]
        files_ = [f"{photograph}.webp", *(entries[photograph]["maps"][method_name]["file"] for method_name in COLUMNS)]
        for column, tile in enumerate(files_):
            axes[row, column].imshow(Image.open(OUT / tile))
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].spines[:].set_visible(False)
        axes[row, 0].set_xlabel(f"{said}, {sure:.0f} %", fontsize=9)
    for column, method_name in enumerate(COLUMNS, start=1):
        axes[0, column].set_title(name(method_name), fontsize=9)
    figure.savefig(file, pil_kwargs={"quality": 85, "method": 6})


def slug(method_name):
    """A method's name as a file can have it: grad_cam[power=2] -> grad_cam-power-2."""
    return "-".join(filter(None, method_name.replace("[", "-").replace("]", "").replace("=", "-").split("-")))


def write(file, pixels):
    """A picture [H,W,3] in [0, 1] as WebP."""
    Image.fromarray((255 * pixels).round().astype("uint8")).save(file, quality=82, method=6)


def digest():
    """Sha256 over the code, the packages and the photographs that the tiles depend on."""
    code = [*sorted((HOME / "cam_core").rglob("*.py")), *sorted((HOME / "cam_core").rglob("*.safetensors")), Path(__file__)]
    total = hashlib.sha256(json.dumps(versions(), sort_keys=True).encode())
    for path in [*code, *(photograph.path for photograph in PHOTOGRAPHS.values())]:
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
