"""Lighter pages: off go Thebe, other hosts, other pages' scripts and what the theme loads for nothing.

Tables get frames that scroll, and negative numbers a true minus.
"""

import base64
import gzip
import re
from pathlib import Path, PurePosixPath

SCRIPT = r"\s*<script[^>]*/?\b(?:{})\.js[^>]*></script>"
ICONS = SCRIPT.format("fontawesome")  # the style sheet has the same icons as a font
SEARCH = SCRIPT.format("searchtools|language_data|searchindex")  # the page of results loads them itself
THEBE = r'\s*<script type="text/x-thebe-config">.*?</script>\s*<script>kernelName = .*?</script>'
TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
MATHS = re.compile(r'class="[^"]*\bmath\b')
MATHJAX = {"startup.js", "core.js", "input/tex-base.js", "input/tex/extensions/ams.js", "output/chtml.js", "output/chtml/"}
RULE = re.compile(r"([^{}@]+)\{[^{}]*\}")
MINUS = re.compile(r"(?<![\w.)-])-(?=\d)")
LITERAL = re.compile(r'<span class="pre">[^<]*')  # a name in running text, which breaks after its underscores
AS_TYPED = {"code", "pre", "script", "style", "textarea"}
SQUEEZED = re.compile(r'window\.\w+ = "([\w+/=]+)";\n')
FUNCTION = re.compile(r":[\w-]+\([^()]*\)")


def use_parts_of_mathjax(app, config):
    """Load three parts of MathJax instead of the bundle with menus and speech."""
    config.mathjax_path = "mathjax/startup.js"


def change(app, pagename, templatename, context, doctree):
    """Before a page is written: no Thebe, nothing of another host, MathJax only where there are equations, tables in frames."""
    body = context.get("body", "")
    maths = bool(MATHS.search(body))
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, []) if not _unwanted(asset, pagename, app.env.found_docs, maths)]
    if doctree is not None:
        body = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')  # its entries are no list items
        context["body"] = LITERAL.sub(lambda word: word[0].replace("_", "_<wbr>"), with_minus(TABLE.sub(_framed, body)))


def _unwanted(asset, pagename, pages, maths):
    filename = str(getattr(asset, "filename", asset) or "")
    body = str((getattr(asset, "attributes", None) or {}).get("body", ""))
    of = PurePosixPath(filename.partition("?")[0]).name.split(".")[0]  # gallery.js, explorer.data.js
    if of in pages and of != pagename:
        return True
    if "thebe" in filename.lower() or "THEBE" in body or filename.startswith(("http://", "https://", "//")):
        return True
    return not maths and ("mathjax" in filename or "window.MathJax" in body)


def with_minus(body):
    """HTML whose negative numbers have a minus instead of a hyphen, but for code and equations."""
    parts, inside = re.split(r"(<[^>]*>)", body), 0
    for place, part in enumerate(parts):
        if part.startswith("<"):
            tag = re.match(r"</?(\w+)", part)
            inside += (-1 if part.startswith("</") else 1) if tag and tag[1] in AS_TYPED else 0
        elif not inside and not part.lstrip().startswith(("\\(", "\\[")):
            parts[place] = MINUS.sub("\N{MINUS SIGN}", part)
    return "".join(parts)


def _framed(table):
    opening = table.group().split(">", 1)[0]
    return table.group() if "display" in opening else f'<div class="wide">{table.group()}</div>'  # DataTables has its own frame


def lighten(app, error):
    """After the pages are written: off go scripts that the theme's templates name, style rules without a user, parts of MathJax."""
    if error or app.builder.format != "html":
        return
    out, names = Path(app.outdir), set()
    for page in out.glob("*.html"):
        unused = [ICONS, THEBE] if page.stem == "search" else [ICONS, THEBE, SEARCH]
        text = re.sub("|".join(unused), "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        page.write_text(text, encoding="utf-8")
        names.update(re.findall(r"[\w-]+", text))
    for kind in ("fontawesome.js", "*.map"):
        for path in (out / "_static").rglob(kind):
            path.unlink()
    for path in sorted((out / "_static/mathjax").rglob("*")):
        if path.is_file() and not any(path.relative_to(out / "_static/mathjax").as_posix().startswith(part) for part in MATHJAX):
            path.unlink()
    for script in [path for path in (out / "_static").rglob("*.js") if "mathjax" not in path.parts]:
        names.update(re.findall(r"[\w-]+", opened(script.read_text(encoding="utf-8"))))
    for style in (out / "_static").rglob("*.css"):
        style.write_text(purged(style.read_text(encoding="utf-8"), names), encoding="utf-8")


def opened(script):
    """A script's text; of one that holds a compressed text, as explorer.py writes them, that text."""
    squeezed = SQUEEZED.fullmatch(script)
    return gzip.decompress(base64.b64decode(squeezed[1])).decode() if squeezed else script


def purged(style, names):
    """A style sheet without the rules whose classes are in none of the pages and scripts, `names`."""

    def rule(match):
        selectors, count = match.group(1), 1
        while count:  # what stands in :not(…) and its like need not exist
            selectors, count = FUNCTION.subn("", selectors)
        used = any(names.issuperset(re.findall(r"\.(-?[A-Za-z_][\w-]*)", selector)) for selector in selectors.split(","))
        return match.group() if used else ""

    return RULE.sub(rule, style)


def setup(app):
    """Run after every other extension has added its files."""
    app.connect("config-inited", use_parts_of_mathjax, priority=10_000)
    app.connect("html-page-context", change, priority=10_000)
    app.connect("build-finished", lighten, priority=10_000)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
