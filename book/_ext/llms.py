"""llms.txt at the root of the site: what the book is, and each page with its first sentence, for programs that read it."""

import re
from pathlib import Path

from docutils import nodes

CITED = re.compile(r"\b([a-z]+)(\d{4})[a-z]+\b")  # the key of a citation, which is resolved only in the written page


def list_pages(app, error):
    """Write llms.txt: what the book is, and each page with its first sentence, for programs that read it."""
    if error or app.builder.format != "html":
        return
    env, base = app.env, app.config.html_baseurl
    root = app.config.root_doc
    lines = [f"# {env.titles[root].astext()}", "", f"> {_opening(env.get_doctree(root))}", ""]
    for caption, pages in _parts(env, root):
        lines += ["", f"## {caption}", ""] if caption else []
        lines += [f"- [{env.titles[page].astext()}]({base}{page}.html): {_opening(env.get_doctree(page))}" for page in pages]
    (Path(app.outdir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _parts(env, root):
    for toctree in env.get_doctree(root).findall(lambda node: node.tagname == "toctree"):
        yield toctree.get("caption"), toctree["includefiles"]


def _opening(doctree):
    for paragraph in doctree.findall(nodes.paragraph):
        text = CITED.sub(lambda key: f"{key[1].capitalize()} et al.\N{NO-BREAK SPACE}({key[2]})", " ".join(paragraph.astext().split()))
        if len(text) > 60 and not isinstance(paragraph.parent, nodes.entry):
            return re.split(r"(?<=[a-z\d)][.!?]) ", text)[0]
    return ""


def setup(app):
    """Write it when the pages stand."""
    app.connect("build-finished", list_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
