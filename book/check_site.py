"""Look at every page of a built site: `python book/check_site.py _site/html`; one line per fault, exit 1 if there is any.

Faults: a link or anchor that leads nowhere, a missing file, a script, style, font or picture from another host,
a picture without a description, the same global script twice. Only the standard library is used.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src"}
CSS_URL = re.compile(r"""url\(\s*["']?([^"')]+)["']?\s*\)|@import\s+["']([^"']+)["']""")
CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
LOADS_BY_LINK = {"stylesheet", "icon", "shortcut icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch"}
PICTURE = re.compile(r"\.(png|svg|jpe?g|gif|webp)$", re.IGNORECASE)


class Page(HTMLParser):
    """What one page refers to: `links` (line, address), `loads` (line, address), `ids`, `images` (line, src, alt)."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.images, self.constants, self.ids = [], [], [], [], set()
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = {name: value or "" for name, value in attributes}
        line = self.getpos()[0]
        self._inside = tag if tag in {"script", "style"} else self._inside
        self.ids.update(attributes[name] for name in ("id", "name") if attributes.get(name))
        if tag in {"a", "area"} and "href" in attributes:
            self.links.append((line, attributes["href"]))
        if tag == "link" and attributes.get("rel", "").lower() in LOADS_BY_LINK:
            self.loads.append((line, attributes.get("href", "")))
        if tag in LOADED and LOADED[tag] in attributes:
            self.loads.append((line, attributes[LOADED[tag]]))
        if attributes.get("srcset"):
            self.loads += [(line, entry.split()[0]) for entry in attributes["srcset"].split(",") if entry.strip()]
        if tag == "img":
            self.images.append((line, attributes.get("src", ""), attributes.get("alt")))
        self.loads += [(line, address) for address in css_addresses(attributes.get("style", ""))]

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data):
        line = self.getpos()[0]
        if self._inside == "style":
            self.loads += [(line, address) for address in css_addresses(data)]
        if self._inside == "script":
            self.constants += [(line, name) for name in global_constants(data)]


def css_addresses(text):
    """Addresses that a style loads."""
    return [a or b for a, b in CSS_URL.findall(CSS_COMMENT.sub("", text))]


def global_constants(script):
    """Names declared with const, let or class outside all braces: two of a name on one page stop the second script."""
    count = 1
    while count:
        script, count = re.subn(r"\{[^{}]*\}", "", script)
    return re.findall(r"(?:^|[;\n}])\s*(?:const|let|class)\s+(\w+)", script)


def is_foreign(address):
    """Whether an address names another host (or another scheme than a file's)."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in {"http", "https", "ftp"}


def is_inline(address):
    """Whether nothing is fetched or the browser answers itself."""
    return not address or urlsplit(address).scheme in {"data", "mailto", "javascript", "tel", "about", "blob"}


def check(site):
    """Faults of the site in folder `site`, one sentence each, sorted; an empty list if it is sound."""
    site = Path(site).resolve()
    paths = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]
    if not paths:
        return [f"{site}: no page at all; build the book first"]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    faults = []
    for path, page in pages.items():
        where = path.relative_to(site)
        faults += [f"{where}:{line}: {fault}" for line, fault in _faults_of(path, page, pages, site)]
    for style in sorted(site.rglob("*.css")):
        text = style.read_text(encoding="utf-8", errors="replace")
        for address in css_addresses(text):
            fault = _loading(style, address, site)
            faults += [f"{style.relative_to(site)}: {fault}"] if fault else []
    return faults


def _faults_of(path, page, pages, site):
    for line, address in page.links:
        fault = _link(path, address, pages, site)
        if fault:
            yield line, fault
    for line, address in page.loads:
        fault = _loading(path, address, site)
        if fault:
            yield line, fault
    for line, src, alt in page.images:
        if not (alt or "").strip() or alt == src or PICTURE.search(alt.strip()):
            yield line, f"picture {src[:80]} has no description; give it an alt text"
    seen = set()
    for line, name in page.constants:
        if name in seen:
            yield line, f"script constant {name} is declared twice; the second script stops with an error"
        seen.add(name)


def _target(path, address, site):
    parts = urlsplit(address)
    if not parts.path:
        return path, unquote(parts.fragment)
    base = site if parts.path.startswith("/") else path.parent
    target = (base / unquote(parts.path).lstrip("/")).resolve()
    return (target / "index.html" if target.is_dir() else target), unquote(parts.fragment)


def _link(path, address, pages, site):
    if is_inline(address) or is_foreign(address) or address == "#":
        return None
    target, fragment = _target(path, address, site)
    if not target.exists():
        return f"link to {address} leads nowhere"
    filters = "=" in fragment  # of the Explorer, which reads its address
    if fragment and not filters and target in pages and fragment not in pages[target].ids:
        return f"link to {address}: {target.name} has no place named {fragment}"
    return None


def _loading(path, address, site):
    if is_inline(address) or address.startswith("#"):
        return None
    if is_foreign(address):
        return f"loads {address} from another host"
    target, _ = _target(path, address, site)
    return None if target.exists() else f"file {address} is missing"


def main(arguments):
    """Print the faults of one site; the exit status."""
    if len(arguments) != 1:
        print("usage: python book/check_site.py FOLDER", file=sys.stderr)
        return 2
    faults = check(arguments[0])
    print("\n".join(faults) if faults else f"{arguments[0]}: no fault found")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
