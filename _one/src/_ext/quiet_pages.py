"""Keep what the theme adds and the book does not use off the pages: Thebe, and anything served by another host."""


def _unwanted(asset):
    filename = str(getattr(asset, "filename", asset) or "")
    body = str((getattr(asset, "attributes", None) or {}).get("body", ""))
    return "thebe" in filename.lower() or "THEBE" in body or filename.startswith(("http://", "https://", "//"))


def _drop(app, pagename, templatename, context, doctree):
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, []) if not _unwanted(asset)]


def setup(app):
    """Run after every other extension has added its files."""
    app.connect("html-page-context", _drop, priority=10_000)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
