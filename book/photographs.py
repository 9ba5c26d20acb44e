"""Photographs explained: `python book/photographs.py` writes them, their heat maps and what the network said into runs/photographs/.

The network is EfficientNet-Lite0, whose ImageNet weights come with the installed packages, as the photographs do: nothing is downloaded.
It sees the whole picture, squashed to its square input; a tile has the photograph's own shape. What is there already of the same
code, packages and photographs, stays. The maps of the methods that pass the network hundreds of times are kept in book/photographs.npz and
taken from there as long as photograph and weights are the same; `--again` computes them anew. `--readme` also writes the picture that the
README shows, book/_static/photographs.webp.
"""

import argparse
import functools
import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torchvision
from names import name
from PIL import Image
from tqdm import tqdm

from cam_core import figures, files, maps
from cam_core.data.example import read_image
from cam_core.data.transforms import short_side, view
from cam_core.environment import keep_pages, versions
from cam_core.learned.shipped import about, learned_method
from cam_core.methods import method
from cam_core.pretrained import LITE, load_classifier
from cam_core.probe import Probe
from data_scripts.photographs import PHOTOGRAPHS

HOME = Path(__file__).resolve().parent.parent
OUT = HOME / "runs/photographs"
KEPT = HOME / "book/photographs.npz"
FAST = (
    *("cam", "eigen_cam", "eigen_cam[centred]", "grad_cam", "grad_cam_pp", "grad_cam_pp[l_cam]", "xgrad_cam", "hires_cam", "layer_cam"),
    *("ablation_cam", "fd_cam", "l_cam_fm", "l_cam_img", "saliency", "guided_backprop"),
)
SLOW = (
    *("group_cam", "increment_cam", "score_cam", "opti_cam", "rise", "smooth_grad", "integrated_gradients", "score_cam[softmax]"),
    *("score_cam[budget=64]", "increment_cam[mid]", "increment_cam[channels]"),
)
EXPLAINED = (*FAST, *SLOW)
CONTROLS = ("mean_activation", "grad_cam[power=2]", "grad_cam[power=0.5]", "center_gaussian", "edges", "random_map", "fake_cam")
SIDE = 336  # the short side of a tile, sharp where it is shown at 150 pixels on a screen of two dots a pixel
LARGE = 512  # and of the photograph that the gallery lays the maps over, which is never enlarged
ALIKE = 0.9999  # maps that correlate so are one map to the eye


README = HOME / "book/_static/photographs.webp", ("chelsea", "coffee", "rocket")
COLUMNS = ("grad_cam", "increment_cam", "l_cam_fm", "mean_activation", "grad_cam[power=2]")


def main():
    """Write what is missing; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", action="store_true", help="also write the README's picture")
    parser.add_argument("--again", nargs="*", metavar="METHOD", help="compute the kept maps anew, or only those of these methods")
    wanted = parser.parse_args()
    keep_pages()
    if wanted.again is not None:
        keep(wanted.again or SLOW)
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
    classifier = network()
    classes = torchvision.models.get_model_weights("resnet50").DEFAULT.meta["categories"]
    entries, known = {}, kept(classifier)
    with ThreadPoolExecutor(2) as writers:
        for photograph in tqdm(PHOTOGRAPHS.values(), "photographs", file=sys.stderr):
            picture = read_image(photograph.path)
            probe = look(photograph, classifier)
            shown, large = (short_side(side)(picture).as_subclass(torch.Tensor).clamp(0, 1) for side in (SIDE, min(LARGE, *picture.size)))
            writers.submit(write, OUT / f"{photograph.name}.webp", figures.blend(shown))
            writers.submit(write, OUT / f"{photograph.name}-large.webp", figures.blend(large))
            heats = {one: known.get((photograph.name, one)) for one in (*EXPLAINED, *CONTROLS)}
            heats = {one: explain(named(one, classifier), probe) if heat is None else heat for one, heat in heats.items()}
            tiles = {one: f"{photograph.name}-{slug(one)}" for one in heats}
            for one, heat in heats.items():
                writers.submit(write_tile, shown, heat, OUT / tiles[one])
            said = probe.probabilities[0].topk(3)
            entries[photograph.name] = {
                "size": list(shown.shape[:0:-1]),
                "large": list(large.shape[:0:-1]),
                "said": [[classes[int(index)], round(100 * float(p), 1)] for p, index in zip(*said, strict=True)],
                "maps": {
                    one: {
                        "file": f"{tiles[one]}.webp", "heat": f"{tiles[one]}-heat.webp", "empty": bool(maps.is_empty(heat)),
                        "same_as": same_as(one, heats),
                    }
                    for one, heat in heats.items()
                },
            }  # fmt: skip
    trained = {one: about(one) for one in EXPLAINED if one.startswith("l_cam")}
    facts_of = {"network": LITE, "weights": classifier.weights, "layer": classifier.layer, "view": "squash", "kept": str(KEPT.name)}
    files.write_json(facts, {"digest": key, **facts_of, "photographs": entries, "l_cam": trained, "versions": versions()})
    print(f"{len(entries)} photographs, {len(EXPLAINED) + len(CONTROLS)} maps each: {OUT}")


@functools.cache
def network():
    """EfficientNet-Lite0, folded."""
    return load_classifier(LITE).frozen()


def named(one, classifier):
    """A method by name, a learned one too."""
    return learned_method(one, classifier) if one.startswith("l_cam") else method(one)


def look(photograph, classifier):
    """The probe of a photograph, squashed to the network's input."""
    seen = view("squash", classifier.size, interpolation=classifier.interpolation)(read_image(photograph.path))
    return Probe(classifier, seen[None].as_subclass(torch.Tensor))


def explain(one, probe):
    """The map [h,w] in [0, 1] of a method; zeros where it says nothing."""
    heat = one(probe)
    return (heat if one.finished else maps.min_max(heat))[0].detach().float()


def same_as(one, heats):
    """The first method of ``heats`` whose map is that of ``one``, if it stands before it; else None."""
    for other in heats:
        if other == one:
            return None
        if heats[other].shape == heats[one].shape and maps.correlation(heats[other][None], heats[one][None]) > ALIKE:
            return other
    return None


# ---- the maps that are kept


def keep(methods):
    """Compute the maps of slow ``methods`` for every photograph and keep them; after each method, all so far are there."""
    classifier = network()
    arrays = dict(np.load(KEPT)) if KEPT.is_file() else {}
    for one in methods:
        probes = tqdm(PHOTOGRAPHS.values(), one, file=sys.stderr)
        arrays[one] = np.stack([packed(explain(named(one, classifier), look(photograph, classifier))) for photograph in probes])
        arrays["provenance"] = np.array(json.dumps(provenance(classifier) | {"methods": sorted(arrays.keys() - {"provenance"})}))
        files.write_arrays(KEPT, arrays)


def packed(heat):
    """A map as it is kept: float32 at map resolution; of an image's size half as large, in 256 steps."""
    if max(heat.shape) < 100:
        return heat.numpy()
    half = maps.min_max(torch.nn.functional.avg_pool2d(heat[None], 2)[0])
    return (255 * half).round().byte().numpy()


def kept(classifier):
    """The kept maps [h,w] in [0, 1] by (photograph, method): those whose photograph and weights are the present ones."""
    if not KEPT.is_file():
        return {}
    with np.load(KEPT) as file:
        facts, now = json.loads(str(file["provenance"])), provenance(classifier)
        if any(facts[key] != now[key] for key in ("weights", "layer", "view")):
            return {}
        return {
            (photograph, one): torch.from_numpy(file[one][row]) if file[one].dtype == np.float32 else torch.from_numpy(file[one][row]) / 255
            for one in SLOW
            if one in file.files
            for row, (photograph, sha256) in enumerate(facts["photographs"].items())
            if now["photographs"].get(photograph) == sha256
        }


def provenance(classifier):
    """What the maps depend on: photographs by sha256, weights, layer, view; the commit and the packages that computed them."""
    told = subprocess.run(["git", "-C", HOME, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    photographs = {one.name: hashlib.sha256(one.path.read_bytes()).hexdigest() for one in PHOTOGRAPHS.values()}
    where = {"weights": classifier.weights, "layer": classifier.layer, "view": "squash"}
    return {**where, "photographs": photographs, "commit": told, "versions": versions()}


# ---- pictures


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


def write_tile(shown, heat, path):
    """A map over its photograph [3,H,W] as PATH.webp, and its colours alone, half as large, as PATH-heat.webp."""
    size = shown.shape[-2:]
    write(f"{path}.webp", figures.blend(shown, maps.upsample(heat[None], size)[0]))
    small = maps.upsample(heat[None], [side // 2 for side in size])[0] if max(heat.shape) < 100 else heat
    write(f"{path}-heat.webp", plt.get_cmap(figures.COLOURS)(small.clamp(0, 1).numpy())[..., :3])


def write(file, pixels):
    """A picture [H,W,3] in [0, 1] as WebP."""
    Image.fromarray((255 * pixels).round().astype("uint8")).save(file, quality=82, method=4)


def digest():
    """Sha256 over the code, the packages and the photographs that the tiles depend on."""
    code = [
        *sorted((HOME / "cam_core").rglob("*.py")),
        *sorted((HOME / "cam_core").rglob("*.safetensors")),
        Path(__file__),
        *filter(Path.is_file, [KEPT]),
    ]
    total = hashlib.sha256(json.dumps(versions(), sort_keys=True).encode())
    for path in [*code, *(photograph.path for photograph in PHOTOGRAPHS.values())]:
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
