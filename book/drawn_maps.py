"""Maps of the learned models over drawn images, from the maps.npz that a run publishes with its trainings."""

import html

import numpy as np
import torch
from names import name
from PIL import Image
from tiles import tile

from cam_core import figures, maps
from cam_core.data.example import read_image
from cam_core.data.transforms import short_side
from reproduce import results, sources

FOLDER = "_static/drawn"
COLUMNS = {  # of a paper's page, as far as its runs have them: the name in maps.npz, and what it is called
    "l_cam": {of: name(of) for of in ("l_cam_fm", "l_cam_img", "l_cam_fm[ce]", "l_cam_img[ce]")},
    "lfi_cam": {"lfi_cam": "LFI-CAM", "abn": "ABN", "plain: mean_activation": "plain network: mean activation"},
    "calm": {"cam": "plain network: CAM", "calm_em": "CALM-EM", "calm_ml": "CALM-ML"},
}
VIEW = {"l_cam": "crop", "lfi_cam": "squash", "calm": "squash"}  # what the network saw, and its map is of: the middle, or all of it
SIDE = 336  # pixels: a tile is shown at about half of that, and is sharp on a screen of two dots a pixel


def drawn_maps(options, paper, count="3"):
    """The first image of each of the first ``count`` classes of a run's test split, and the map of each network for what it predicts."""
    files = sorted((options.runs / options.profile / paper).glob("*/maps.npz"))
    if not files:
        return "*The maps of this paper have not been computed in this copy of the book.*\n"
    run = files[0].parent.name
    options.read.append(f"{options.runs.name}/{options.profile}/{paper}/{run}/maps.npz")
    ids, heat = results.read_maps(files[0])
    dataset = run.split("-")[0]
    images = sources.images(dataset, sources.find_root(dataset))(VIEW[paper])
    first = {}
    for row, key in enumerate(ids):
        index = images.ids.index(key)
        first.setdefault(images.annotations[index].label, (row, index))
    shown = {images.classes[label].split(",")[0]: first[label] for label in sorted(first)[: int(count)]}
    columns = {words: heat[of] for of, words in COLUMNS[paper].items() if of in heat}
    folder = options.out / "src" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return "\n".join(
        _row(folder, f"{paper}-{number}", label, seen(images, index, VIEW[paper]), {words: of[[row]] for words, of in columns.items()})
        for number, (label, (row, index)) in enumerate(shown.items())
    )


def seen(images, index, view):
    """What the network saw of an image, as large as a tile [3,H,W]: of the squashed view the image in its own shape."""
    if view == "squash":
        return short_side(SIDE)(read_image(images.annotations[index].path)).as_subclass(torch.Tensor).clamp(0, 1)
    image = images[index].image.as_subclass(torch.Tensor)
    return maps.upsample(image, [round(side * SIDE / min(image.shape[-2:])) for side in image.shape[-2:]], "bicubic").clamp(0, 1)


def _row(folder, slug, label, picture, columns):
    """The tiles of one image: itself, and each column's map over it."""
    made = [(f"Drawn image: {label}", label, figures.blend(picture))]
    for words, heat in columns.items():
        over = maps.upsample(maps.min_max(torch.from_numpy(heat)), picture.shape[-2:])[0]
        made.append((f"{label}: map by {words}", words, figures.blend(picture, over)))
    figures_ = []
    for number, (alt, caption, pixels) in enumerate(made):
        file = f"{slug}-{number}.webp"
        Image.fromarray((255 * pixels).round().astype(np.uint8)).save(folder / file, quality=85, method=6)
        figures_.append(tile(file, alt, html.escape(caption), pixels.shape[1::-1], FOLDER))
    return f'<div class="tiles" style="--columns: {len(made)}">\n{"".join(figures_)}</div>\n'
