"""Photographs explained: `python book/photographs.py` writes them, their heat maps and what the network said into runs/photographs/.

The network is EfficientNet-Lite0, whose ImageNet weights come with the installed packages, as the photographs do: nothing is downloaded.
It sees the whole picture, squashed to its square input; a tile has the photograph's own shape. What is there already of the same
code, packages and photographs, stays.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
import torchvision
from PIL import Image
from tqdm import tqdm

from cam_core import figures, files, maps
from cam_core.data.example import read_image
from cam_core.data.transforms import short_side, view
from cam_core.learned.shipped import about, learned_method
from cam_core.methods import method
from cam_core.pretrained import LITE, load_classifier
from cam_core.probe import Probe
from cam_core.provenance import versions
from data_scripts.photographs import PHOTOGRAPHS

HOME = Path(__file__).resolve().parent.parent
OUT = HOME / "runs/photographs"
EXPLAINED = ("grad_cam", "increment_cam", "l_cam_fm", "l_cam_img", "score_cam", "grad_cam_pp", "layer_cam")
CONTROLS = ("mean_activation", "grad_cam[power=2]", "center_gaussian")
SIDE = 336  # the short side of a tile, sharp where it is shown at 150 pixels on a screen of two dots a pixel


def main():
    """Write what is missing; 0."""
    facts = OUT / "photographs.json"
    key = digest()
    if facts.is_file() and json.loads(facts.read_text())["digest"] == key:
        print(f"Nothing changed. The photographs: {OUT}")
        return 0
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
    return 0


def explain(one, probe, shown, file):
    """Write the tile of one map over a photograph [3,H,W]; what a figure needs to know of it."""
    heat = one(probe)
    heat = heat if one.finished else maps.min_max(heat)
    write(file, figures.blend(shown, maps.upsample(heat, shown.shape[-2:])[0]))
    return {"file": file.name, "empty": bool(maps.is_empty(heat)[0])}


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
