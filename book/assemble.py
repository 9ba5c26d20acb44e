"""Put the book together and build it: `python book/assemble.py --profile smoke` prints the path of the front page.

book/ and the executed notebooks of runs/<profile>/ are copied to _site/src (there run_l_cam.ipynb is the first run of that paper,
further runs get their key appended), lines like `% forest: l_cam` in a page become tables and figures (MAKERS), jupyter-book builds
_site/work, check_site looks at every page, and only a site without fault becomes _site/html. Nothing changed: nothing done.
"""

import argparse
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import check_site
import drawn_maps
import experiments
import explorer
import gallery
import nbformat
import pandas as pd
import plot_calm
import plot_choose_method
import plot_choose_metric
import plot_data
import plot_increment_cam
import plot_l_cam
import plot_lfi_cam
import plot_what_came_after
import plots
import registry
import source
import tables
import tiles
import verdicts
from names import NAMES, name

from cam_core.methods.method import WRITTEN
from reproduce import results, status
from reproduce.provenance import git_state
from reproduce.run import LOG, is_complete

load = functools.cache(results.load)
BOOK = Path(__file__).resolve().parent
CHANGELOG = BOOK.parent / "CHANGELOG.md"
PUBLISHED = ("subset", "drawn")  # profiles of results/ that have their own tables
FILES = (results.METRICS, results.DIFFERENCES)
STATES = {"interrupted": "was interrupted", "killed": "was killed", "out of time": "ran out of time"}  # the others: failed
CELL = re.compile(r"(?<=>)[^<>]+(?=</t[hd]>)")
IDENTIFIER = re.compile(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)*(?:\[[^\]<>]*\])?")
CAPTION_ENDS = re.compile("(?=</(?:fig)?caption>)")
MARKER = re.compile(r"^% ([a-z-]+)(?:: *(.*?))? *$", re.MULTILINE)


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
    runs = [*(options.runs / options.profile).glob("*/*/*")]
    failed = [path for path in runs if path.parent.suffix == ".failed" and path.name == LOG]
    failed += (options.runs / "models").glob(f"{options.profile}-*.log")
    own = [*own, CHANGELOG, *(options.runs / "photographs").glob("*"), *failed]
    return sorted(own) + sorted(p for p in runs if p.suffix in {".ipynb", ".csv", ".npz"}) + sorted(options.results.rglob("*.csv"))


def digest(options):
    """One sha256 over names and contents of the inputs."""
    total = hashlib.sha256(f"{options.profile} {sys.version}".encode())
    for path in inputs(options):
        total.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def assemble(source, options):
    """Write the complete source of the book into `source`, replacing what stood there."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(BOOK, source, ignore=shutil.ignore_patterns("*.py", "*.yaml", "*.npz", "__pycache__"))
    if (options.runs / "photographs").is_dir():
        shutil.copytree(options.runs / "photographs", source / tiles.FOLDER)
    shutil.copytree(BOOK / "_ext", source / "_ext", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    options.pages = {}  # of a run: the page of its notebook
    sections = {paper: place_notebooks(source, paper, options) for paper in tables.PAPERS}
    add_sections(source / "_toc.yml", sections)
    for page in sorted(source.glob("*.md")):
        options.rows = f"explorer.html{f'#paper={page.stem}' if page.stem in tables.PAPERS else ''}"
        page.write_text(filled(page.read_text(encoding="utf-8"), options), encoding="utf-8")


def filled(text, options):
    """A page with its markers replaced, those that a marker brings along too, and the provenance of what they read below it."""
    options.read = []
    while MARKER.search(text):
        text = MARKER.sub(lambda match: made(match, options), text)
    return f"{text}\n{provenance(options)}\n"


def made(marker, options):
    """What stands in the place of a marker line; a caption ends with links to the files that were read for it."""
    what, given = marker.groups()
    if what not in MAKERS:
        raise ValueError(f"a page has `% {what}`, which is no marker; there are: {', '.join(sorted(MAKERS))}")
    before = len(options.read)
    text = MAKERS[what](options, *(given or "").split())
    return CAPTION_ENDS.sub(sources(options.read[before:], options), text)


def sources(paths, options):
    """Links to the studies and benchmarks that a figure was made of, each by what its name has and the others' have not."""
    files = {tuple(Path(path).stem.split("-")): target for path in paths if "download" in (target := _target(path, options))}
    same = sum(1 for _ in itertools.takewhile(lambda part: len(set(part)) == 1, zip(*files, strict=False)))
    links = [f'<a class="rows" href={target}>{"-".join(parts[same:]) or "CSV"}</a>' for parts, target in files.items()]
    return " ".join(["", *links])


def provenance(options):
    """The last line of a page: the files that its numbers come from, the commit of the book, and its date."""
    commit, _ = git_state(BOOK.parent)
    day = subprocess.run(["git", "log", "-1", "--format=%cs"], cwd=BOOK, capture_output=True, text=True, check=False).stdout.strip()
    files = ", ".join(_linked(path, options) for path in dict.fromkeys(options.read))
    told = f"Numbers and figures from {files}. " if files else ""
    return f'<p class="provenance">{told}Book of commit {(commit or "unknown")[:7]}{f", {day}" if day else ""}.</p>'


def _linked(path, options):
    target = _target(path, options)
    return f"<a href={target}><code>{path}</code></a>" if target else f"<code>{path}</code>"


def _target(path, options):
    """Where a file that a page read can be seen: a study's or benchmark's lies in the site, rows of published runs are in the explorer."""
    root, *_, folder, file = path.split("/")
    if folder in ("studies", "benchmarks") and "*" not in file:
        return f'"{explorer.FOLDER}/{folder}-{file}" download'
    return f'"{options.rows}"' if folder == "*" and root == options.results.name else ""


def read(options, profile, file):
    """Records or differences of a profile: of the one whose notebooks are the pages as it ran, of others as published."""
    root = options.runs if profile == options.profile else options.results
    options.read.append(f"{root.name}/{profile}/*/*/{file}")
    return load(root / profile, file)


def evidence(options, file):
    """What the statements are held against: the published profiles."""
    return pd.concat([read(options, profile, file) for profile in PUBLISHED], ignore_index=True)


def study(options, folder, what):
    """The tables of a study or benchmark."""
    one = (options.results / folder / f"{what}.csv").is_file()
    options.read.append(f"results/{folder}/{what}{'' if one else '-*'}.csv")
    return experiments.study(options.results / folder, what)


def photographs(options, chosen, methods):
    """Tiles of photographs and their maps; ValueError where they have not been made, unless the book may lack something."""
    folder = options.runs / "photographs"
    if (folder / "photographs.json").is_file():
        return tiles.tiles(folder, chosen.split(","), methods.split(","))
    if options.allow_missing:
        return "*The photographs have not been explained here.*"
    raise ValueError(f"{folder} has no photographs.json; run `make photographs` first, or pass --allow-missing")


@functools.cache
def statements():
    """The papers' statements."""
    return tables.load_yaml(BOOK / "claims.yaml")


def judged(options):
    """Every verdict, reached once a build."""
    if not hasattr(options, "judged"):
        options.judged = verdicts.judged(statements(), evidence(options, results.METRICS), evidence(options, results.DIFFERENCES))
    options.read.extend(f"{options.results.name}/{profile}/*/*/{file}" for profile in PUBLISHED for file in FILES)
    return options.judged


def statement_forest(options, key):
    """The forest of one statement."""
    found = [one for one in judged(options) if one.entry["id"] == key]
    return plots.statement_forest(options, found[0].entry, found)


MAKERS = {  # the marker `% what: words` of a page, and what makes its text of the options and the words
    "published": lambda options, paper: tables.published(tables.load_yaml(BOOK / "published.yaml"), paper),
    "study": lambda options, what: study(options, "studies", what),
    "benchmark": lambda options, what: study(options, "benchmarks", what),
    "photographs": photographs,
    "changelog": lambda _options: CHANGELOG.read_text(encoding="utf-8").partition("\n")[2],
    "methods": lambda _options: registry.methods(),
    "metrics": lambda _options: registry.metrics(),
    "protocols": lambda _options: registry.protocols(),
    "finding": lambda options: verdicts.finding(statements(), judged(options)),
    "holding": lambda options: verdicts.holding(statements(), judged(options)),
    "cards": lambda options: verdicts.cards(statements(), judged(options), tables.load_yaml(BOOK / "papers.yaml")),
    "verdicts": lambda options: verdicts.matrix(statements(), judged(options)),
    "verdict-details": lambda options: verdicts.details(statements(), judged(options), tables.load_yaml(BOOK / "published.yaml")),
    "verdict-box": lambda options, paper: verdicts.box(statements(), judged(options), paper),
    "forest": statement_forest,
    "paper-forest": lambda options, *what: plots.paper_forest(options, evidence(options, results.DIFFERENCES), *what),
    "heat": plot_choose_metric.heat,
    "judged": plot_choose_metric.judged,
    "metric-advice": plot_choose_metric.advice,
    "survival": plot_choose_metric.survival,
    "part-scores": plot_choose_metric.part_scores,
    "grid-scores": plot_choose_metric.in_grids,
    "plot-equal-mean": plot_choose_metric.equal_mean,
    "plot-calibration": plot_choose_metric.calibration,
    "plot-forgetting": plot_choose_metric.forgetting,
    "plot-coverage": plot_choose_metric.coverage,
    "plot-cost": plot_choose_method.cost,
    "plot-controls": lambda options, *what: plot_choose_method.controls(options, evidence(options, results.METRICS), *what),
    "plot-forms": plot_choose_method.forms,
    "plot-budget": plot_choose_method.budget,
    "brightness": lambda options, *what: plots.brightness(options, evidence(options, results.METRICS), *what),
    "gallery": gallery.gallery,
    "explorer": lambda options: explorer.explorer(options, *(evidence(options, file) for file in FILES)),
    "lines": source.lines,
    "drawn-maps": drawn_maps.drawn_maps,
    "plot-increment-way": plot_increment_cam.data_way,
    "plot-increment-phases": plot_increment_cam.phases,
    "plot-increment-readings": plot_increment_cam.readings,
    "plot-increment-knowledge": plot_increment_cam.knowledge,
    "plot-increment-cost": plot_increment_cam.cost,
    "plot-l-cam-way": plot_l_cam.data_way,
    "plot-l-cam-mark": plot_l_cam.planted_mark,
    "plot-l-cam-learned": lambda options: plot_l_cam.learned(options, evidence(options, results.DIFFERENCES)),
    "plot-l-cam-recipe": plot_l_cam.recipe,
    "plot-l-cam-cost": plot_l_cam.cost,
    "plot-lfi-network": plot_lfi_cam.network,
    "plot-lfi-stability": plot_lfi_cam.stability,
    "plot-lfi-ablations": lambda options: plot_lfi_cam.stability(options, plot_lfi_cam.ABLATIONS, "ablations"),
    "plot-lfi-accuracy": lambda options: plot_lfi_cam.accuracy(options, evidence(options, results.METRICS)),
    "plot-lfi-features": plot_lfi_cam.features,
    "plot-lfi-parameters": plot_lfi_cam.parameters,
    "plot-calm-network": plot_calm.network,
    "plot-calm-cues": lambda options: plot_calm.cue_localization(options, evidence(options, results.METRICS)),
    "plot-calm-removal": lambda options: plot_calm.removal(options, *(evidence(options, file) for file in FILES)),
    "plot-calm-em-ml": lambda options: plot_calm.em_beside_ml(options, evidence(options, results.METRICS)),
    "plot-calm-calibration": plot_calm.calibration,
    "plot-lineage": plot_what_came_after.forest,
    "lineage-values": plot_what_came_after.values,
    "peers": plot_what_came_after.peers,
    "plot-data-sheet": plot_data.sheet,
    "data-sets": plot_data.sets,
    "plot-data-difficulty": lambda options: plot_data.difficulty(options, evidence(options, results.METRICS)),
}


def place_notebooks(source, paper, options):
    """Copy a paper's executed notebooks, and a page for each run that failed instead; names of the pages after the first."""
    folder = options.runs / options.profile / paper
    found = sorted(path for path in folder.glob("*/notebook.ipynb") if path.parent.suffix not in results.UNFINISHED)
    failed = failures(options, paper)
    if not found and not failed and not options.allow_missing:
        raise ValueError(
            f"{folder} has no executed notebook; run `make reproduce PROFILE={options.profile}` first, or pass --allow-missing"
        )
    if not found and not failed:
        said = nbformat.v4.new_markdown_cell(f"# {name(paper)}\n\n*This notebook has not run here.*")
        nbformat.write(nbformat.v4.new_notebook(cells=[said]), source / f"run_{paper}.ipynb")  # a notebook too: pages link to it
    keys = [*(path.parent.name for path in found), *failed]
    pages = [f"run_{paper}", *(f"run_{paper}-{key}" for key in keys[1:])]
    for page, key in list(zip(pages, keys, strict=False))[len(found) :]:
        told = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(failed[key])])
        (source / f"{page}.ipynb").write_text(json.dumps(prepare(told, key)), encoding="utf-8")
    for page, path in zip(pages, found, strict=False):
        options.pages[f"{options.profile}/{paper}/{path.parent.name}"] = page
        cost = status.costs(path.parent, options.runs / "models" / f"{options.profile}-{paper}-{path.parent.name}.json")
        notebook = prepare(json.loads(path.read_text(encoding="utf-8")), path.parent.name, cost)
        title, _, rest = "".join(notebook["cells"][0]["source"]).partition("\n\n")
        notebook["cells"][0]["source"] = f"{title}: the notebook as it ran\n\n{rest}"
        (source / f"{page}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return pages[1:]


def failures(options, paper):
    """For each run of a paper that failed and has no result, or whose training failed: what its page says, by key."""
    runs, prefix = options.runs / options.profile / paper, f"{options.profile}-{paper}-"
    logs = {path.stem.removeprefix(prefix): path for path in sorted((options.runs / "models").glob(f"{prefix}*.log"))}
    logs |= {path.stem: path / LOG for path in sorted(runs.glob("*.failed"))}
    said = {}
    for key, log in logs.items():
        if not is_complete(runs / key):
            state, words = status.failure(log)
            title = f"# {name(paper)}: a run without a result"
            said[key] = f"{title}\n\n:::{{error}}\nThe run `{key}` {STATES.get(state, state)}:\n\n```text\n{words}\n```\n:::"
    return said


def prepare(notebook, run, cost=""):
    """Make an executed notebook a page: alt text where Sphinx looks for it, no widgets, no progress bars."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        cell["metadata"]["tags"] = sorted({*cell["metadata"].get("tags", []), "hide-input"})
        cell["outputs"] = [output for output in cell["outputs"] if not is_noise(output)]
        for output in cell["outputs"]:
            if "text/html" in output.get("data", {}):
                output["data"]["text/html"] = CELL.sub(lambda cell: spelled(cell[0]), "".join(output["data"]["text/html"]))
            if output["output_type"] == "stream":
                output["text"] = spelled("".join(output["text"]))
        alt = alt_text(cell)
        if alt:
            image = cell["metadata"].setdefault("mystnb", {}).setdefault("image", {})
            image.setdefault("alt", alt)
    took = f" Run time, CPU time and peak memory: {cost}." if cost else ""
    where = f'<p class="provenance">This page is the run <code>{run}</code> of this copy of the book.{took}</p>'
    cell = {"cell_type": "markdown", "metadata": {}, "source": where}
    if notebook.get("nbformat_minor", 0) >= 5:
        cell["id"] = "where-to-go-next"
    notebook["cells"].append(cell)
    return notebook


def spelled(text):
    """What a notebook printed, with the identifiers as people write them."""

    def word(found):
        known = found[0] in NAMES and ("_" in found[0] or "[" in found[0] or found[0] in WRITTEN)
        return name(found[0]) if known else found[0]

    return IDENTIFIER.sub(word, text)


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
        further = sections.get(chapter["file"].removeprefix("run_")) if chapter["file"].startswith("run_") else None
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
