"""What hangs on the address of the repository (`repository: url:` in _config.yml).

Buttons, the words {{repository}}, {{launch}} and {{citation}}, and lines of code with %repository%. Without an address there is no button,
no link, and no such line.
"""

import re
from urllib.parse import urlsplit

NOTEBOOKS = {"Increment-CAM": "increment_cam", "L-CAM": "l_cam", "LFI-CAM": "lfi_cam", "CALM": "calm"}
COLAB = "https://colab.research.google.com/github{repository}/blob/{branch}/notebooks/{notebook}.ipynb"
BINDER = "https://mybinder.org/v2/gh{repository}/{branch}?labpath=notebooks%2F{notebook}.ipynb"


def use(app, config):
    """Fill the two words, and show the theme's buttons where they lead somewhere."""
    options = config.html_theme_options
    url, branch = options.get("repository_url") or "", options.get("repository_branch") or "main"
    options["use_repository_button"] = options["use_issues_button"] = bool(url)
    config.myst_substitutions = {**config.myst_substitutions, **words(url, branch)}


def words(url, branch):
    """The substitutions of the pages."""
    if not url:
        launch = "They run in any Jupyter; the first run of each is in the appendix."
        return {"repository": "the repository", "launch": launch, "citation": "`CITATION.cff`"}
    places = {"Colab": COLAB, "Binder": BINDER} if urlsplit(url).netloc == "github.com" else {}
    rows = [
        f"{place}: "
        + " · ".join(
            f"[{name}]({link.format(repository=urlsplit(url).path, branch=branch, notebook=notebook)})"
            for name, notebook in NOTEBOOKS.items()
        )
        for place, link in places.items()
    ]
    setup = f" In Colab, `!pip install git+{url}` comes first." if rows else ""
    citation = f"[`CITATION.cff`]({url}/blob/{branch}/CITATION.cff)"
    return {"repository": f"[the repository]({url})", "launch": ". ".join([*rows, ""]).strip() + setup, "citation": citation}


def addressed(text, url):
    """A page with the address in the lines of code that need it; without one these lines are left out."""
    return re.sub(r"^.*%repository%.*\n", lambda line: line[0].replace("%repository%", url) if url else "", text, flags=re.MULTILINE)


def fill(app, docname, source):
    """As Sphinx reads a page."""
    source[0] = addressed(source[0], app.config.html_theme_options.get("repository_url") or "")


def setup(app):
    """Before the theme reads its options."""
    app.connect("config-inited", use, priority=100)
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
