"""The gallery: every method on every picture as plain tiles, and the data from which _static/gallery.js makes one picture to play with."""

import html
import json

import torch
from drawn_maps import VIEW, seen
from names import NAMES, is_control, name
from photographs import slug, write_tile
from PIL import Image
from tiles import FOLDER

from cam_core import maps
from cam_core.methods import METHODS
from data_scripts.photographs import PHOTOGRAPHS
from reproduce import results, sources

FAMILIES = {
    "The four papers": (
        *("increment_cam", "increment_cam[mid]", "increment_cam[channels]", "l_cam_fm", "l_cam_img", "lfi_cam", "calm_em", "calm_ml"),
    ),
    "Activations alone": ("cam", "eigen_cam", "eigen_cam[centred]", "abn"),
    "A gradient of the head": ("grad_cam", "grad_cam_pp", "grad_cam_pp[l_cam]", "xgrad_cam", "hires_cam", "layer_cam"),
    "Channels and pixels masked": (
        *("score_cam", "score_cam[softmax]", "score_cam[budget=64]", "ablation_cam", "fd_cam", "group_cam", "opti_cam", "rise"),
    ),
    "Gradients of the pixels": ("saliency", "smooth_grad", "integrated_gradients", "guided_backprop"),
    "Controls: they explain nothing": (
        *("mean_activation", "grad_cam[power=2]", "grad_cam[power=0.5]", "center_gaussian", "edges", "random_map", "fake_cam"),
    ),
}  # fmt: skip
LEARNED = ("l_cam_fm", "l_cam_img", "lfi_cam", "abn", "calm_em", "calm_ml")
DOES = {
    "increment_cam": "Merges Grad-CAM with a Score-CAM whose masks stay as small as the feature map.",
    "increment_cam[mid]": "Increment-CAM with masked images of 112 pixels a side.",
    "increment_cam[channels]": "Increment-CAM that merges the two weights channel by channel instead of the two maps.",
    "l_cam_fm": "A trained 1×1 convolution on the features of the frozen network; its loss masks the features.",
    "l_cam_img": "The same 1×1 convolution, trained by masking the image.",
    "lfi_cam": "A small network inside the classifier weighs the channels; the map also steers the classification.",
    "calm_em": "The probability that a place carries the evidence for the class, learned by expectation maximization.",
    "calm_ml": "The probability that a place carries the evidence for the class, learned by marginal likelihood.",
    "abn": "An attention branch inside the classifier draws the map, which steers the classification.",
    "cam": "Sums the channels with the weights that the last linear layer gives the class.",
    "eigen_cam": "The first principal component of the activations, whatever the class.",
    "eigen_cam[centred]": "The same after the mean of each channel is subtracted, as pytorch-grad-cam does.",
    "grad_cam": "Weighs each channel by the mean gradient of the class score.",
    "grad_cam_pp": "Weighs each channel by its positive gradients, each place by higher derivatives.",
    "grad_cam_pp[l_cam]": "Grad-CAM++ on the probability instead of the score, as in L-CAM's tables.",
    "xgrad_cam": "Grad-CAM with gradients that are weighted by the activations.",
    "hires_cam": "Multiplies activations and gradients place by place before it sums the channels.",
    "layer_cam": "Multiplies the activations by their positive gradients, place by place.",
    "score_cam": "Masks the image with each channel and weighs the channel by the score that is left.",
    "score_cam[softmax]": "Score-CAM with weights that pass a softmax over the channels, as in the libraries.",
    "score_cam[budget=64]": "Score-CAM from 64 masks; a Gaussian process predicts the weights of the other channels.",
    "ablation_cam": "Weighs each channel by how much the score falls without it.",
    "fd_cam": "Combines gradients with scores of groups of channels switched on and off.",
    "group_cam": "Groups the channels by Grad-CAM's weights and scores 32 masks.",
    "opti_cam": "Finds the mixture of channels whose mask raises the score most, by 50 steps of optimization.",
    "rise": "Averages 4,000 random masks, each weighted by the probability that it leaves.",
    "saliency": "How strongly each pixel's change would change the score.",
    "smooth_grad": "Saliency averaged over 25 noisy copies of the image.",
    "integrated_gradients": "Gradients summed along the way from a uniform image to this one.",
    "guided_backprop": "A gradient that drops every negative signal on its way back.",
    "mean_activation": "The mean of all channels: no class, no gradient.",
    "grad_cam[power=2]": "Grad-CAM squared: the same order of pixels, a darker map.",
    "grad_cam[power=0.5]": "The square root of Grad-CAM: the same order of pixels, a brighter map.",
    "center_gaussian": "A bright spot in the centre, whatever the picture.",
    "edges": "The edges of the picture; the network is never asked.",
    "random_map": "Random numbers at the map's resolution.",
    "fake_cam": "Ones everywhere except one pixel.",
}  # fmt: skip
DRAWN = (  # what the pictures are called in a link, data set, the paper whose run has their maps, which test images
    ("object", "drawn_imagenet", "lfi_cam", (4, 3, 16)),
    ("middle", "drawn_imagenet", "l_cam", (4, 3, 16)),
    ("bird", "drawn_cub", "calm", (8, 7, 4)),
)
OF_RUN = {"plain: mean_activation": "mean_activation"}
OF_NETWORK = {  # maps of one network: what it is called
    "mean_activation": "plain network", "cam": "plain network", "l_cam_fm": "the classifier", "l_cam_img": "the classifier",
}  # fmt: skip
NO_DRAWN_NETWORK = ("l_cam_fm[ce]", "l_cam_img[ce]")  # trained by cross-entropy alone: the results have them, the gallery does not

STAGE = """<div class="gallery" id="gallery-viewer" hidden>
<div class="gallery-strip" role="group" aria-label="Picture"></div>
<div class="gallery-stage">
<figure>
<div class="gallery-canvas" tabindex="0" role="group"
 aria-label="The picture under its map. Arrow keys: left and right change the method, up and down the picture.">
<input class="gallery-wipe" type="range" min="0" max="100" value="50" aria-label="Dividing line between the two maps" hidden>
<span class="gallery-line" hidden></span>
<span class="gallery-tag gallery-left" hidden></span><span class="gallery-tag gallery-right" hidden></span>
</div>
<figcaption><span>0</span><span class="gallery-scale"></span><span>1</span></figcaption>
</figure>
<div class="gallery-panel">
<p class="gallery-answer"></p>
<div class="gallery-choose"><label for="gallery-method">Method</label>
<button type="button" class="gallery-step" data-step="-1" aria-label="Previous method">‹</button><select id="gallery-method"></select>
<button type="button" class="gallery-step" data-step="1" aria-label="Next method">›</button></div>
<div class="gallery-choose"><label for="gallery-other">Beside it</label><select id="gallery-other"></select></div>
<div class="gallery-choose"><label for="gallery-opacity">Opacity</label>
<input id="gallery-opacity" type="range" min="0" max="100" value="60"><output for="gallery-opacity">60 %</output></div>
<div class="gallery-told" aria-live="polite"></div>
<p class="gallery-credit"></p>
</div>
</div>
</div>
"""


def gallery(options):
    """The stage, its data and the tiles of every picture, as HTML; the drawn pictures' tiles are written beside the photographs'."""
    facts = options.runs / "photographs" / "photographs.json"
    if not facts.is_file():
        if options.allow_missing:
            return "*The photographs have not been explained here.*"
        raise ValueError(f"{facts} is missing; run `make photographs` first, or pass --allow-missing")
    photographs = json.loads(facts.read_text(encoding="utf-8"))
    pictures = {one: photograph(PHOTOGRAPHS[one], photographs["photographs"][one]) for one in PHOTOGRAPHS}
    pictures |= drawn(options)
    used = {method for picture in pictures.values() for method in picture["maps"]}
    families = {family: [one for one in members if one in used] for family, members in FAMILIES.items()}
    if missing := used - {one for members in families.values() for one in members}:
        raise ValueError(f"the gallery has no place for {', '.join(sorted(missing))}: name a family in gallery.FAMILIES")
    methods = {one: about(one, family) for family, members in families.items() for one in members}
    data = json.dumps({"folder": FOLDER, "pictures": pictures, "methods": methods}, ensure_ascii=False).replace("</", "<\\/")
    rows = "".join(tiles(key, picture, methods) for key, picture in pictures.items())
    return f'{STAGE}<script type="application/json" id="gallery-data">{data}</script>\n{rows}'


def about(method, family):
    """What the gallery says of a method."""
    kind = "learned" if method in LEARNED else "control" if is_control(method) else ""
    known = METHODS.get(method)
    source = f"{known.paper}, {known.year}" if known and known.year else ""
    return {"name": called(method), "family": family, "kind": kind, "does": DOES[method], "source": source, "cost": cost(known)}


def called(method):
    """A method's name as people write it."""
    return METHODS[method].title if method in METHODS and method not in NAMES else name(method)


def cost(method, channels=1280):
    """What a map costs, in words; EfficientNet-Lite0's last map has 1,280 channels."""
    if method is None:
        return "one forward pass"
    passes = method.cost(channels)
    least = "one forward pass" + (" with a gradient" if "head" in method.passes or "gradient" in method.passes else "")
    return "no pass of the network" if not passes else least if passes == 1 else f"about {passes:,} forward passes"


def photograph(photograph, entry):
    """What the gallery shows and says of a photograph."""
    said, sure = entry["said"][0]
    second = ", ".join(f"{html.escape(word)} {p:.0f}\N{NO-BREAK SPACE}%" for word, p in entry["said"][1:])
    answer = f"The network says <strong>{html.escape(said)}</strong>, {sure:.0f}\N{NO-BREAK SPACE}% <small>(then {second})</small>"
    credit = f'Photograph: <a href="{photograph.source}">{html.escape(photograph.author)}</a>, {photograph.licence}'
    title = photograph.shows[0].upper() + photograph.shows[1:]
    return {
        "title": title, "image": f"{photograph.name}-large.webp", "small": f"{photograph.name}.webp", "size": entry["large"],
        "answer": answer, "credit": credit, "maps": entry["maps"],
    }  # fmt: skip


def drawn(options):
    """The drawn pictures with the maps of the models that the runs of this copy trained; none where there are no such runs."""
    folder, found = options.out / "src" / FOLDER, {}
    for title, dataset, paper, chosen in DRAWN:
        runs = sorted((options.runs / options.profile / paper).glob(f"{dataset}-*/maps.npz"))
        root = sources.find_root(dataset, None)
        if not runs or not root.exists():
            continue
        images = sources.images(dataset, root)(VIEW[paper])
        kept, answers = results.read_maps(runs[0]), results.read_answers(runs[0])
        for number, index in enumerate(chosen, start=1):
            found[f"{title}-{number}"] = _drawn(images, index, seen(images, index, VIEW[paper]), kept, answers, folder, f"{title}-{number}")
    return found


def _drawn(images, index, shown, kept, answers, folder, key):
    label = images.classes[images[index].label]
    entries, said = {}, {}
    ids, arrays = kept
    for model, raw in arrays.items():
        method = OF_RUN.get(model, model)
        if method in NO_DRAWN_NETWORK:
            continue
        heat = maps.min_max(torch.from_numpy(raw[ids.index(images[index].image_id)]))
        tile = f"{key}-{slug(method)}"
        write_tile(shown, heat, folder / tile)
        entries[method] = {"file": f"{tile}.webp", "heat": f"{tile}-heat.webp", "empty": bool(maps.is_empty(heat)), "same_as": None}
        if model in answers:
            classes, sure = (one[ids.index(images[index].image_id)] for one in answers[model])
            said[OF_NETWORK.get(method, called(method))] = f"{html.escape(images.classes[classes])}, {100 * sure:.0f}\N{NO-BREAK SPACE}%"
    Image.fromarray((255 * shown).byte().permute(1, 2, 0).numpy()).save(folder / f"{key}.webp", quality=90)
    told = "; ".join(f"{network}: {words}" for network, words in said.items())
    told = f"The networks say: {told}. " if told else ""
    answer = f"Drawn: <strong>{html.escape(label)}</strong> <small>{told}Each map is of what its own network says.</small>"
    credit = f'Drawn by our own code; see <a href="data.html">Data</a>. Networks: {name("resnet8")}, trained here.'
    size = list(shown.shape[:0:-1])
    return {
        "title": f"{label[0].upper() + label[1:]}, drawn", "image": f"{key}.webp", "small": f"{key}.webp", "size": size, "answer": answer,
        "credit": credit, "maps": entries,
    }  # fmt: skip


def tiles(key, picture, methods):
    """The tiles of one picture, each with an address: what a browser without JavaScript shows."""
    width, height = picture["size"]
    size = f'width="{width}" height="{height}" loading="lazy"'
    alone = f'<img src="{FOLDER}/{picture["small"]}" alt="{html.escape(picture["title"], quote=True)}" {size}>'
    parts = [f'<div class="gallery-tile">{alone}<span>{picture["answer"]}</span></div>\n']
    for method, of in methods.items():
        if method in picture["maps"]:
            parts.append(tile(f"{key}/{method}", picture["title"], picture["maps"][method], of, size))
    return (
        f'<section class="gallery-row" data-picture="{key}"><p class="gallery-title">{html.escape(picture["title"])}</p>\n'
        f'<div class="gallery-tiles">{"".join(parts)}</div>\n<p class="credit">{picture["credit"]}.</p></section>\n'
    )


def tile(address, title, entry, of, size):
    """One map as a link to itself."""
    kind = f' <span class="gallery-kind gallery-{of["kind"]}">{of["kind"]}</span>' if of["kind"] else ""
    empty = ", empty" if entry["empty"] else ""
    alt = html.escape(f"{title}: {of['name']}", quote=True)
    return (
        f'<a class="gallery-tile" id="{address}" href="#{address}"><img src="{FOLDER}/{entry["file"]}" alt="{alt}" {size}>'
        f"<span>{html.escape(of['name'])}{empty}{kind}</span></a>\n"
    )
