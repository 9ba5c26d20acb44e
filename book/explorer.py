"""The explorer: every published number in the browser, as a table and as a forest plot, and the same numbers as CSV.

The numbers go into _static/explorer.data.js, each column as numbers that point into a list of words; DataTables, as itables brings it, into
_static/explorer.tables.js. Both are scripts, because a page that was opened from a disk may load scripts and nothing else, and each holds
one compressed text: the numbers alone would outweigh every other page.
"""

import base64
import gzip
import json
import shutil
from importlib import resources

import pandas as pd
from cells import digits_of
from names import is_control, name

from reproduce import results

CONDITIONS = ("paper", "dataset", "backbone", "weights", "recipe", "seed", "protocol", "run")  # the same for many rows, and so kept once
WORDS = (*CONDITIONS, "method", "than", "metric", "setting")
NUMBERS = ("value", "ci_low", "ci_high", "n")
TITLES = {
    "method": "Method", "metric": "Metric", "setting": "Setting", "value": "Value", "ci": "95 % interval", "n": "n", "run": "Run",
    "dataset": "Data", "backbone": "Network", "weights": "Weights", "seed": "Seed", "protocol": "Protocol", "recipe": "Variant",
    "paper": "Paper",
}  # fmt: skip
FOLDER = "_static/csv"
APP = """<div class="explorer" id="explorer-app" hidden>
<form class="explorer-filters" aria-label="Filters"></form>
<p class="explorer-count" aria-live="polite"></p>
<figure class="explorer-forest" tabindex="0" aria-label="Forest plot of the rows"></figure>
<p class="explorer-save"><button type="button">Save these rows as CSV</button></p>
<div class="explorer-table"><table class="display compact nowrap"></table></div>
</div>
<noscript><p>The table and the plot need JavaScript; the files below do not.</p></noscript>
"""


def explorer(options, rows, differences):
    """The page's controls as HTML; its data, DataTables and the CSVs are written into the folder of the site's own files."""
    static = options.out / "src" / "_static"
    static.mkdir(parents=True, exist_ok=True)
    kinds = {"values": in_runs(rows.assign(than="")), "differences": in_runs(differences), "studies": studies(options.results / "studies")}
    told = provenance(options) | {run: f"{page}.html" for run, page in getattr(options, "pages", {}).items()}
    told |= {run: f"{FOLDER}/{run.replace('/', '-')}.csv" for run in kinds["studies"]["run"].unique()}
    data = packed(kinds) | {"told": told}
    bundle = resources.files("itables") / "html" / "dt_bundle.js"
    (static / "explorer.data.js").write_text(script("EXPLORER", json.dumps(data, ensure_ascii=False, separators=(",", ":"))))
    (static / "explorer.tables.js").write_text(script("TABLES", bundle.read_text(encoding="utf-8")))
    (static / "explorer.tables.css").write_bytes(bundle.with_suffix(".css").read_bytes())
    return f"{APP}{downloads(options, kinds)}"


def script(variable, text):
    """A script that gives the page `text`, compressed by gzip and spelled in base 64; explorer.js opens it."""
    squeezed = gzip.compress(text.encode(), mtime=0)  # the same bytes whenever it is made
    return f'window.{variable} = "{base64.b64encode(squeezed).decode()}";\n'


def provenance(options):
    """Run -> the copy of its provenance in the site: when, from what commit, data and weights, with what parameters and packages."""
    folder = options.out / "src" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for path in sorted(options.results.glob("*/*/*/provenance.json")):
        run = path.parent.relative_to(options.results)
        file = f"{'-'.join(run.parts)}.json"
        shutil.copyfile(path, folder / file)
        found[run.as_posix()] = f"{FOLDER}/{file}"
    return found


def in_runs(frame):
    """Rows of published runs, each with the folder of its run below results/."""
    return frame.assign(run=frame["profile"] + "/" + frame["paper"] + "/" + frame["key"])


def studies(folder):
    """Rows of the studies as those of the runs: what only one study has, a role or a network's name, is their variant."""
    frames = [pd.DataFrame(columns=[*WORDS, *NUMBERS])]
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if not {"method", "metric", *NUMBERS} <= set(table):  # numbers of another kind: the file alone is given
            continue
        own = [column for column in table if column not in frames[0]]
        variants = [", ".join(f"{column} {word}" for column, word in zip(own, row, strict=True) if word) for row in table[own].to_numpy()]
        table = table.assign(recipe=variants, run=f"studies/{path.stem}").reindex(columns=frames[0].columns, fill_value="")
        frames.append(table)
    every = pd.concat(frames, ignore_index=True)
    return every.assign(**{column: pd.to_numeric(every[column]) for column in NUMBERS})


def packed(kinds):
    """What explorer.js reads: lists of words as [identifier, printed], the conditions that rows share, and of each kind its columns.

    A word is its place in its list, a row's `at` the place of its conditions.
    """
    frames = {kind: prepared(frame) for kind, frame in kinds.items()}
    words = {column: list(dict.fromkeys(word for frame in frames.values() for word in frame[column])) for column in WORDS}
    places = {column: {word: place for place, word in enumerate(found)} for column, found in words.items()}
    frames = {kind: frame.assign(**{column: frame[column].map(places[column]) for column in WORDS}) for kind, frame in frames.items()}
    shared = list(dict.fromkeys(row for frame in frames.values() for row in frame[list(CONDITIONS)].itertuples(index=False, name=None)))
    at = {row: place for place, row in enumerate(shared)}
    columns = {
        kind: {
            "at": [at[row] for row in frame[list(CONDITIONS)].itertuples(index=False, name=None)],
            **{column: frame[column].tolist() for column in ("method", "than", "metric", "setting")},
            "n": frame["n"].astype(int).tolist(),
            **{column: numbers(frame[column]) for column in ("value", "ci_low", "ci_high", "p_holm") if column in frame},
            "digits": frame.groupby("metric")["digits"].first().to_dict(),
        }
        for kind, frame in frames.items()
    }
    controls = [place for place, word in enumerate(words["method"]) if is_control(word)]
    printed = {column: [[word, spelled(column, word)] for word in found] for column, found in words.items()}
    return {"titles": TITLES, "words": printed, "controls": controls, "conditions": CONDITIONS, "shared": shared, "kinds": columns}


def prepared(frame):
    """Numbers rounded as the book prints them, seeds as texts."""
    digits = frame.groupby("metric")["value"].transform(digits_of).to_numpy()
    rounded = {column: [round(value, of) for value, of in zip(frame[column], digits, strict=True)] for column in NUMBERS[:3]}
    return frame.assign(**rounded, digits=digits, seed=frame["seed"].astype(str))


def numbers(column):
    """A column for JSON: null where there is no number."""
    return [None if pd.isna(value) else round(value, 4) for value in column.tolist()]


def spelled(column, word):
    """A word as people write it: weights, runs and seeds are what they are."""
    return word if column in ("weights", "seed", "run", "setting", "recipe") else name(word)


def downloads(options, kinds):
    """Links to the CSVs: all values, all differences, every study and benchmark."""
    folder = options.out / "src" / FOLDER
    main = []
    columns = {"values": ["profile", "key", *results.COLUMNS], "differences": ["profile", "key", *results.DIFFERENCE]}
    for kind, told in {"values": "every value", "differences": "every paired difference"}.items():
        kinds[kind][columns[kind]].to_csv(folder / f"{kind}.csv", index=False, lineterminator="\n")
        main.append(f'<a href="{FOLDER}/{kind}.csv" download>{kind}.csv</a> ({told}, {len(kinds[kind]):,} rows)')
    further = []
    for path in sorted([*options.results.glob("studies/*.csv"), *options.results.glob("benchmarks/*.csv")]):
        file = f"{path.parent.name}-{path.name}"
        shutil.copyfile(path, folder / file)
        further.append(f'<li><a href="{FOLDER}/{file}" download>{file}</a></li>')
    listed = (
        f"<details><summary>Studies and benchmarks ({len(further)} files)</summary><ul>{''.join(further)}</ul></details>" if further else ""
    )
    return f'<div class="explorer-files"><p>Everything as CSV: {" and ".join(main)}.</p>{listed}</div>\n'
