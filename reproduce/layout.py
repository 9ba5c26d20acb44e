"""The folder of a run: its files by name, and whether it is complete. Loads no pandas, so that a batch with nothing to do starts fast."""

from pathlib import Path

METRICS, DIFFERENCES, MAPS, PER_IMAGE, FACTS, PROVENANCE, NOTEBOOK = (
    "metrics.csv",
    "differences.csv",
    "maps.npz",
    "per_image.parquet",
    "run_facts.json",
    "provenance.json",
    "notebook.ipynb",
)
LOG = "run.log"
PUBLISHED = (METRICS, DIFFERENCES, MAPS, PROVENANCE)  # of a run, beside its notebook and rows
UNFINISHED = (".part", ".failed", ".old")  # suffixes of the folders of runs that are not finished, or failed


def is_complete(out: Path) -> bool:
    """Whether `out` holds a finished run: provenance is written last."""
    return (out / PROVENANCE).exists() and (out / NOTEBOOK).exists()
