"""Photographs and their heat maps as HTML: tiles that wrap, from what `photographs.py` wrote."""

import html
import json

from names import name

from data_scripts.photographs import PHOTOGRAPHS

FOLDER = "_static/photographs"


def tiles(folder, chosen, methods):
    """Each of the photographs ``chosen`` with its maps by ``methods``: the answer below the photograph, the credit below the row."""
    known = json.loads((folder / "photographs.json").read_text(encoding="utf-8"))["photographs"]
    return "\n".join(row(PHOTOGRAPHS[one], known[one], methods) for one in chosen)


def row(photograph, entry, methods):
    """One photograph, its maps, its credit."""
    said, sure = entry["said"][0]
    shows = photograph.shows
    answer = f"{shows[0].upper() + shows[1:]}. The network says <em>{html.escape(said)}</em>, {sure:.0f}\N{NO-BREAK SPACE}%."
    figures = [tile(f"{photograph.name}.webp", f"Photograph: {shows}", answer, entry["size"])]
    for method in methods:
        of = entry["maps"][method]
        caption = name(method) + (", empty" if of["empty"] else "")
        figures.append(tile(of["file"], f"{shows}: where {caption} sees {said}", html.escape(caption), entry["size"]))
    credit = f'<a href="{photograph.source}">{html.escape(photograph.author)}</a>, {photograph.licence}'
    columns = 3 if len(figures) % 5 else 5
    return f'<div class="tiles" style="--columns: {columns}">\n{"".join(figures)}</div>\n<p class="credit">Photograph: {credit}.</p>\n'


def tile(file, alt, caption, size, folder=FOLDER):
    """A picture with its caption."""
    width, height = size
    picture = f'<img src="{folder}/{file}" alt="{html.escape(alt, quote=True)}" width="{width}" height="{height}" loading="lazy">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>\n"
