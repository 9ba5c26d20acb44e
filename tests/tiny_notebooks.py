"""Copies of the notebooks with tiny parameters, for nbval: `python tests/tiny_notebooks.py build/tiny`."""

import shutil
import sys
from pathlib import Path

import nbformat
from papermill.inspection import inspect_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from data_scripts.draw import draw

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
TINY = {"profile": "tiny", "limit": None, "first": 4, "shown": 2, "epochs": 1, "epochs_img": 1, "best_on_test": True}


def tiny(notebook: Path, folder: Path) -> Path:
    """Write a copy of `notebook` into `folder` that trains for one epoch and looks at all test images of the small drawn data; its path."""
    known = inspect_notebook(str(notebook))
    if not known:
        raise ValueError(f"{notebook} has no cell tagged `parameters`; tag one")
    wanted = TINY | {"out_dir": str(folder / notebook.stem), "data_root": str(folder / "drawn")}
    parameters = {name: value for name, value in wanted.items() if name in known}
    content = parameterize_notebook(load_notebook_node(str(notebook)), parameters)
    copy = folder / notebook.name
    nbformat.write(content, copy)
    return copy


def main(folder: str) -> None:
    """Fill `folder` anew."""
    shutil.rmtree(folder, ignore_errors=True)
    out = Path(folder).resolve()
    out.mkdir(parents=True)
    draw(out / "drawn", small=True, progress=False)
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    if not notebooks:
        sys.exit(f"error: no notebook in {NOTEBOOKS}")
    for notebook in notebooks:
        print(tiny(notebook, out))


if __name__ == "__main__":
    main(sys.argv[1])
