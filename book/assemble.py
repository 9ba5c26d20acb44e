"""Put the book together and build it: `python book/assemble.py --profile smoke` prints the path of the front page.

book/ and the executed notebooks of runs/<profile>/ are copied to _site/src (there l_cam.ipynb is the first run of that
paper, further runs get their key appended), lines like `% results: subset` in a page become tables, jupyter-book builds
_site/work, check_site looks at every page, and only a site without fault becomes _site/html. Nothing changed: nothing done.
"""

import argparse
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import check_site
import claims
import experiments
import nbformat
import pandas as pd
import registry
import tables
import tiles
from names import name

from reproduce import results

load = functools.cache(results.load)
BOOK = Path(__file__).resolve().parent
PUBLISHED = ("subset", "drawn")  # profiles of results/ that have their own tables
FILES = (results.METRICS, results.DIFFERENCES)
CONFIGURATION = ["paper", "dataset", "backbone", "recipe"]
OPENING = {  # the photographs that a paper's page opens with
    "increment_cam": ("camera", "chelsea"), "l_cam": ("coffee", "flower"), "lfi_cam": ("hopper", "rocket"), "calm": ("china", "astronaut"),
}  # fmt: skip
NETWORK = "*EfficientNet-Lite0 with ImageNet weights of full precision; each map is of the class that it names.*"
OPENED = ("grad_cam", "increment_cam", "l_cam_fm", "mean_activation", "grad_cam[power=2]")
MARKER = re.compile(
    r"^% (results|published|claims|study|benchmark|methods|metrics|protocols|photographs)(?:: *(\S+))?(?: +(\S+))?$", re.MULTILINE
)


def main(arguments=None):
    """Build unless everything is as it was; 0, or 1 with the findings on stderr."""
    options = _parser().parse_args(arguments)
    site, index = options.out, options.out / "html" / "index.html"
    stamp = site / "inputs.sha256"
    now = digest(options)
    if index.exists() and stamp.exists() and stamp.read_text() == now:
        print(f"Nothing changed. The book: {index}")
        return 0
    try:
        assemble(site / "src", options)
        html = build(site)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"error: the book was not built: {error}", file=sys.stderr)
        return 1
    findings = check_site.check(html)
    if findings:
        print("\n".join([*findings, f"error: {len(findings)} faults in {html}; _site/html is as before"]), file=sys.stderr)
        return 1
    replace(html, site / "html")
    stamp.write_text(now)
    print(f"The book: {index}")
    return 0


def _parser():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="smoke", help="whose executed notebooks become the pages of the papers")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("_site"))
    parser.add_argument("--allow-missing", action="store_true", help="a paper that has not run gets a page that says so")
    return parser


def inputs(options):
    """Every file that the site depends on, in a fixed order."""
    own = (path for path in BOOK.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    runs = (options.runs / options.profile).glob("*/*/*")
    own = [*own, *(options.runs / "photographs").glob("*")]
    return sorted(own) + sorted(p for p in runs if p.suffix in {".ipynb", ".csv"}) + sorted(options.results.rglob("*.csv"))


def digest(options):
    """One sha256 over names and contents of the inputs."""
    total = hashlib.sha256(f"{options.profile} {sys.version}".encode())
    for path in inputs(options):
        total.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def assemble(source, options):
    """Write the complete source of the book into `source`, replacing what stood there."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(BOOK, source, ignore=shutil.ignore_patterns("*.py", "*.yaml", "__pycache__"))
    if (options.runs / "photographs").is_dir():
        shutil.copytree(options.runs / "photographs", source / tiles.FOLDER)
    shutil.copytree(BOOK / "_ext", source / "_ext", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    sections = {paper: place_notebooks(source, paper, options) for paper in tables.PAPERS}
    add_sections(source / "_toc.yml", sections)
    for page in source.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(MARKER.sub(lambda match: generated(match, options), text), encoding="utf-8")


def generated(marker, options):
    """The text that replaces a marker line."""
    what, first, second = marker.groups()
    match what:
        case "results":
            return tables.results(*(read(options, first, file) for file in FILES), second)
        case "claims":
            return claims.claims(tables.load_yaml(BOOK / "claims.yaml"), *(evidence(options, file) for file in FILES))
        case "published":
            return tables.published(tables.load_yaml(BOOK / "published.yaml"), first)
        case "study":
            return experiments.study(options.results / "studies", first)
        case "benchmark":
            return experiments.study(options.results / "benchmarks", first)
        case "photographs":
            return photographs(options, first.split(","), second.split(","))
    return {"methods": registry.methods, "metrics": registry.metrics, "protocols": registry.protocols}[what]()


def photographs(options, chosen, methods):
    """Tiles of photographs and their maps; ValueError where they have not been made, unless the book may lack something."""
    folder = options.runs / "photographs"
    if (folder / "photographs.json").is_file():
        return tiles.tiles(folder, chosen, methods)
    if options.allow_missing:
        return "*The photographs have not been explained here.*"
    raise ValueError(f"{folder} has no photographs.json; run `make photographs` first, or pass --allow-missing")


def read(options, profile, file):
    """Records or differences of a profile: of the one whose notebooks are the pages as it ran, of others as published."""
    return load((options.runs if profile == options.profile else options.results) / profile, file)


def evidence(options, file):
    """What the claims are held against: the published profiles, and of the pages' own what these do not have (under more seeds)."""
    found = [read(options, profile, file) for profile in PUBLISHED]
    if options.profile not in PUBLISHED:
        own, known = read(options, options.profile, file), pd.concat(found)
        found.append(own[~own.set_index(CONFIGURATION).index.isin(known.set_index(CONFIGURATION).index)])
    return pd.concat(found, ignore_index=True)


def place_notebooks(source, paper, options):
    """Copy a paper's executed notebooks; names of the pages after the first."""
    found = sorted((options.runs / options.profile / paper).glob("*/notebook.ipynb"))
    found = [path for path in found if path.parent.suffix not in results.UNFINISHED]
    if not found and not options.allow_missing:
        raise ValueError(
            f"{options.runs / options.profile / paper} has no executed notebook; "
            f"run `make reproduce PROFILE={options.profile}` first, or pass --allow-missing"
        )
    if not found:
        said = nbformat.v4.new_markdown_cell(f"# {name(paper)}\n\n*This notebook has not run here.*")
        nbformat.write(nbformat.v4.new_notebook(cells=[said]), source / f"{paper}.ipynb")  # a notebook too: pages link to it
    pages = [paper, *(f"{paper}-{path.parent.name}" for path in found[1:])]
    for page, path in zip(pages, found, strict=False):
        notebook = prepare(json.loads(path.read_text(encoding="utf-8")), path.parent.name)
        title, _, rest = "".join(notebook["cells"][0]["source"]).partition("\n\n")
        notebook["cells"][0]["source"] = f"{title}\n\n{photographs(options, OPENING[paper], OPENED)}\n\n{NETWORK}\n\n{rest}"
        (source / f"{page}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return pages[1:]


def prepare(notebook, run):
    """Make an executed notebook a page: alt text where Sphinx looks for it, no widgets, no progress bars."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        tags = set(cell["metadata"].get("tags", []))
        if tags & {"parameters", "injected-parameters"}:
            cell["metadata"]["tags"] = sorted(tags | {"hide-input"})
        cell["outputs"] = [output for output in cell["outputs"] if not is_noise(output)]
        alt = alt_text(cell)
        if alt:
            image = cell["metadata"].setdefault("mystnb", {}).setdefault("image", {})
            image.setdefault("alt", alt)
    where = f"This page is the run `{run}`. Its numbers stand beside all others in the [results](results.md) or [those on drawn data]"
    where += "(drawn.md), and [the protocols](protocol.md) say how each was taken."
    cell = {"cell_type": "markdown", "metadata": {}, "source": where}
    if notebook.get("nbformat_minor", 0) >= 5:
        cell["id"] = "where-to-go-next"
    notebook["cells"].append(cell)
    return notebook


def is_noise(output):
    """Progress bars: stderr text, and widgets."""
    if output["output_type"] == "stream":
        return output["name"] == "stderr"
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def alt_text(cell):
    """What the cell's pictures show: from the outputs' metadata, else from the cell's; "" if it says nothing."""
    told = []
    for output in cell["outputs"]:
        metadata = output.get("metadata", {})
        for kind in output.get("data", {}):
            if kind.startswith("image/"):
                told += [of["alt"] for of in (metadata.get(kind, {}), metadata) if isinstance(of, dict) and "alt" in of][:1]
    return "; ".join(dict.fromkeys(told)) or cell["metadata"].get("alt", "")


def add_sections(toc, sections):
    """List the further runs of a paper below its page."""
    entries = tables.load_yaml(toc)
    for chapter in (chapter for part in entries["parts"] for chapter in part["chapters"]):
        further = sections.get(chapter["file"])
        if further:
            chapter["sections"] = [{"file": page} for page in further]
    toc.write_text(tables.yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")


def build(site):
    """Run jupyter-book with warnings as errors; the folder of the pages."""
    shutil.rmtree(site / "work", ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "-W", "-n", "--keep-going", "--quiet"]
    command += ["--path-output", str(site / "work"), str(site / "src")]
    environment = {**os.environ, "PYTHONPATH": "", "NO_COLOR": "1"}
    print("Building the pages", flush=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-6000:], file=sys.stderr)
        raise ValueError("jupyter-book stopped; its messages stand above")
    return site / "work" / "_build" / "html"


def replace(new, old):
    """Put a finished folder in the place of an old one."""
    aside = old.with_name(old.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
