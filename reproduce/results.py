"""Results on disk: the schema of a record, loading, saving, publishing (without torch)."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cam_core.files import flush, write_json
from reproduce.files import replace_folder, write_arrays, write_parts, write_table
from reproduce.layout import DIFFERENCES, FACTS, MAPS, METRICS, PER_IMAGE, PROVENANCE, PUBLISHED, UNFINISHED
from reproduce.provenance import process_facts, public

TEXT = ("paper", "dataset", "split", "backbone", "weights", "recipe", "protocol", "method", "metric", "setting")
NUMBERS = ("value", "ci_low", "ci_high", "n", "seed")
COLUMNS = (*TEXT, *NUMBERS)
KEY = (*TEXT, "seed")  # the columns that identify a record; the others are measured
MAY_BE_EMPTY = ("weights", "recipe", "setting")
PLAIN = r"[A-Za-z0-9 _%.,:+=()\[\]/-]*"  # what texts are made of: nothing that a page of HTML or Markdown would take for more than text

DIFFERENCE = (*COLUMNS, "than", "p", "p_holm", "same_as")  # a record whose value is that of `method` minus that of `than`
PAIRED = ["value", "ci_low", "ci_high", "p_holm", "n", "same_as"]  # the columns of a difference that readers need


# ---------------------------------------------------------------- records


def number(value: float, digits: int = 1, sign: str = "") -> str:
    """A number as the book and the notebooks print it: rounded once, from what the file has, and never a negative zero."""
    text = f"{value:{sign}.{digits}f}"
    return text if float(text) else text.removeprefix("-")


def check_records(frame: pd.DataFrame) -> None:
    """Raise ValueError, in one sentence, unless these are records: the 15 columns, filled and typed, no key twice."""
    if tuple(frame.columns) != COLUMNS:
        missing, surplus = sorted(set(COLUMNS) - set(frame.columns)), sorted(set(frame.columns) - set(COLUMNS))
        raise ValueError(f"records have the wrong columns: missing {missing}, unknown {surplus}; expected {COLUMNS}")
    if frame.empty:
        raise ValueError("records are empty: a run without a number is no result")
    for column in TEXT:
        wrong = [not isinstance(entry, str) or (not entry and column not in MAY_BE_EMPTY) for entry in frame[column].array]
        if any(wrong):
            row = wrong.index(True)
            expected = "text" if column in MAY_BE_EMPTY else "non-empty text"
            raise ValueError(f"record {row}: {column} is {frame[column].iloc[row]!r}, expected {expected}")
        _check_plain(frame[column], column)
    for column in NUMBERS:
        if not pd.api.types.is_numeric_dtype(frame[column]) or pd.api.types.is_bool_dtype(frame[column]):
            raise ValueError(f"records: {column} is of type {frame[column].dtype}, expected numbers")
    interval = frame.ci_low.notna() | frame.ci_high.notna()  # a row without an interval leaves both empty
    checks = {
        "value is not finite": ~frame.value.abs().lt(float("inf")),
        "the interval is not ci_low <= ci_high": interval & ~(frame.ci_low <= frame.ci_high),
        "n is not a count of at least 1": ~((frame.n >= 1) & (frame.n % 1 == 0)),
        "seed is not a whole number": ~(frame.seed % 1 == 0),
        "the same key stands twice": frame.duplicated(list(KEY)),
    }
    for what, wrong_rows in checks.items():
        if wrong_rows.any():
            row = int(wrong_rows.to_numpy().argmax())
            raise ValueError(f"record {row} ({_named(frame.iloc[row])}): {what}")


def _check_plain(texts: "pd.Series[str]", what: str) -> None:
    """ValueError if a text has other characters than `PLAIN`: results may come from a stranger, and pages print them."""
    for text in texts.unique():
        if not re.fullmatch(PLAIN, text):
            raise ValueError(f"{what} is {text!r}, expected letters, digits, spaces and _%.,:+=()[]/- alone")


def _named(record: "pd.Series[Any]") -> str:
    return " ".join(str(record[column]) for column in ("method", "metric", "setting")).strip()


def check_differences(frame: pd.DataFrame) -> None:
    """Raise ValueError, in one sentence, unless these are differences: records of `method` minus `than`, each p in [0, 1] or empty.

    p is empty if `same_as` names a method that gave the same map.
    """
    if sorted(frame.columns) != sorted(DIFFERENCE):
        missing, surplus = sorted(set(DIFFERENCE) - set(frame.columns)), sorted(set(frame.columns) - set(DIFFERENCE))
        raise ValueError(f"differences have the wrong columns: missing {missing}, unknown {surplus}; expected {DIFFERENCE}")
    check_records(frame.assign(method=frame.method + " minus " + frame.than)[list(COLUMNS)])
    _check_plain(frame.same_as, "same_as")
    for column in ("p", "p_holm"):
        wrong = ~(frame[column].between(0, 1) | (frame[column].isna() & (frame.same_as != "")))
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(f"difference {row} ({_named(frame.iloc[row])}): {column} is {frame[column].iloc[row]}, expected 0 to 1")


def read_records(path: Path | str) -> pd.DataFrame:
    """Read a metrics.csv to the bit: text stays text ("", "50%"), floats are parsed exactly; checked."""
    return _read(path, TEXT, NUMBERS, check_records)


def read_differences(path: Path | str) -> pd.DataFrame:
    """Read a differences.csv in the same way."""
    return _read(path, (*TEXT, "than", "same_as"), (*NUMBERS, "p", "p_holm"), check_differences)


def _read(path: Path | str, text: Sequence[str], numbers: Sequence[str], check: Callable[[pd.DataFrame], None]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(text, "str"),
            na_values={column: [""] for column in numbers},
            keep_default_na=False,
            float_precision="round_trip",
        )
        if "weights" in frame:  # the name that earlier runs gave to weights they had trained
            frame["weights"] = frame["weights"].str.replace(r"^random\b", "trained here", regex=True)
        check(frame)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
    return frame


def load(root: Path | str, file: str = METRICS) -> pd.DataFrame:
    """All records, or with `file=DIFFERENCES` all differences, of the complete runs under `root` (runs, results/subset, ...) in one table.

    Columns: profile, key (the last three folder names are profile/paper/key), then the record's. Folders without provenance, `<key>.part`
    and `<key>.failed` are ignored. Without any run the table is empty.
    """
    read, columns = (read_records, COLUMNS) if file == METRICS else (read_differences, DIFFERENCE)
    frames = []
    for folder in (folder for folder in complete(root) if (folder / file).exists()):
        _check_plain(pd.Series(folder.parts[-3:]), f"the folder of a run, {folder},")
        frame = read(folder / file)
        frame.insert(0, "profile", folder.parts[-3])
        frame.insert(1, "key", folder.name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["profile", "key", *columns])


def complete(root: Path | str) -> list[Path]:
    """The folders of complete runs under `root`, sorted: metrics and provenance are there, the name is final."""
    folders = (path.parent for path in sorted(Path(root).resolve().rglob(METRICS)))
    return [folder for folder in folders if (folder / PROVENANCE).exists() and folder.suffix not in UNFINISHED]


# ---------------------------------------------------------------- maps

Maps = tuple[Sequence[str], Mapping[str, ArrayLike]]  # ids of N images, and by name their raw maps [N,h,w]
Answers = Mapping[str, tuple[ArrayLike, ArrayLike]]  # by the map's name what its network predicts: classes [N] and their probabilities [N]


def write_maps(path: Path | str, maps: Maps, answers: Answers | None = None) -> None:
    """Write the maps of N images as .npz: each in float16 between its least and its greatest value, and these two in float32.

    This keeps the shape of nearly constant maps (ABN's), and the sign and size of the values. ``answers`` stand beside them.
    """
    ids, named = maps
    arrays: dict[str, NDArray[Any]] = {"ids": np.asarray(ids, str)}
    for name, raw in named.items():
        heat = np.asarray(raw, np.float32)
        if heat.ndim != 3 or len(heat) != len(ids):
            raise ValueError(f"maps of {name}: expected [{len(ids)},h,w], a map for each image, got {list(heat.shape)}")
        ends = np.stack([heat.min((1, 2)), heat.max((1, 2))])  # [2,N]
        low, span = ends[0, :, None, None], (ends[1] - ends[0])[:, None, None]
        arrays |= {name: ((heat - low) / np.where(span > 0, span, 1)).astype(np.float16), f"{name}, ends": ends}
    for name, (classes, probabilities) in (answers or {}).items():
        arrays |= {f"{name}, class": np.asarray(classes, np.int64), f"{name}, probability": np.asarray(probabilities, np.float32)}
    write_arrays(path, arrays)


def read_maps(path: Path | str) -> tuple[list[str], dict[str, NDArray[np.float32]]]:
    """The ids and the raw maps float32 [N,h,w] of a maps.npz, within 1/4096 of each map's range of what was written.

    Every reading gives the same bits, and so do measurements on them.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        ids, maps = arrays.pop("ids").tolist(), {}
        for name in [name for name in arrays if f"{name}, ends" in arrays]:
            low, high = arrays[f"{name}, ends"][..., None, None]
            maps[name] = low + arrays[name].astype(np.float32) * (high - low)
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read as maps ({error}); run again what wrote it") from error
    return ids, maps


def read_answers(path: Path | str) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """What the networks of a maps.npz predict: classes [N] and their probabilities [N] by the map's name; a file may have none."""
    with np.load(path) as file:
        names = [key.removesuffix(", class") for key in file.files if key.endswith(", class")]
        return {name: (file[f"{name}, class"], file[f"{name}, probability"]) for name in names}


# ---------------------------------------------------------------- saving


def save(
    out_dir: Path | str | None,
    records: pd.DataFrame | Sequence[Mapping[str, Any]],
    per_image: Iterable[pd.DataFrame] = (),
    provenance_extra: Mapping[str, Any] | None = None,
    differences: pd.DataFrame | None = None,
    maps: Maps | None = None,
    answers: Answers | None = None,
) -> pd.DataFrame:
    """The last call of a notebook: write metrics.csv, differences.csv, maps.npz, per_image.parquet and run_facts.json into `out_dir`.

    records: the 15 columns in any order. per_image: frames of one row per image and measure (`Table.per_image`). provenance_extra: what
    only the notebook knows (device, chunk, data_digest, weights_digest, ...). differences: the columns of DIFFERENCE, in any order; paired
    comparisons of the methods (`Table.differences`). maps: of the models that the run trained, so that a metric can be recomputed without
    training (`jobs.spread`, `jobs.explained`). answers: of the networks of these maps (`jobs.answered`). `out_dir=None` (a notebook opened
    by hand) checks and writes nothing. Returns the checked records.
    """
    frame = pd.DataFrame(records)
    frame = frame[[column for column in COLUMNS if column in frame] + [c for c in frame if c not in COLUMNS]]
    for column in ("ci_low", "ci_high"):
        if column in frame and frame[column].isna().all():
            frame[column] = float("nan")  # a column of None has no numeric type
    check_records(frame)
    if differences is not None:
        check_differences(differences)
    if out_dir is not None:
        if differences is not None:
            write_table(Path(out_dir) / DIFFERENCES, differences[list(DIFFERENCE)])
        if maps is not None:
            write_maps(Path(out_dir) / MAPS, maps, answers)
        write_table(Path(out_dir) / METRICS, frame)
        write_parts(Path(out_dir) / PER_IMAGE, per_image)
        write_json(Path(out_dir) / FACTS, public({**process_facts(), **(provenance_extra or {})}))
    return frame


# ---------------------------------------------------------------- publishing


def publish(profile: str, *, runs: Path, results: Path, allow_dirty: bool = False) -> tuple[list[Path], list[str]]:
    """Copy metrics, differences, maps and provenance of the complete runs of a profile into results/<profile>/<paper>/<key>/.

    Each folder is replaced as a whole and nothing else under `results` is changed; older runs may lack differences or maps. Returns
    (published folders, one sentence per refused run): a run is refused that does not come from a committed state of the code, unless
    `allow_dirty` (its provenance then says `dirty`). FileNotFoundError if the profile has no complete run.
    """
    folders = complete(runs / profile)
    if not folders:
        raise FileNotFoundError(f"{runs / profile} holds no complete run: run the profile `{profile}` first")
    published, refused = [], []
    for folder in folders:
        name = "/".join(folder.parts[-2:])
        facts = json.loads((folder / PROVENANCE).read_text())
        if facts.get("dirty") is not False and not allow_dirty:
            why = "its code differed from the commit" if facts.get("dirty") else "its commit is unknown"
            refused.append(f"{name}: not published, {why}; commit and run again, or allow it with --allow-dirty")
            continue
        read_records(folder / METRICS)
        if links := [file for file in PUBLISHED if (folder / file).is_symlink()]:
            raise ValueError(
                f"{folder / links[0]} is a link, which may show something else than this run's file; put the file in its place"
            )
        beside: dict[str, Callable[[Path], object]] = {DIFFERENCES: read_differences, MAPS: read_maps}
        present = [file for file in beside if (folder / file).exists()]
        for file in present:
            beside[file](folder / file)
        final = results / profile / name
        if not final.resolve().is_relative_to(results.resolve()):
            raise ValueError(f"{final} lies outside of {results}: a folder on the way is a link, or the profile's name leads out of it")
        part = final.with_name(final.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file in (METRICS, *present, PROVENANCE):
            shutil.copyfile(folder / file, part / file)
            flush(part / file)
        replace_folder(part, final)
        published.append(final)
    return published, refused
