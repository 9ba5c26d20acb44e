"""What a result depends on, by content: the code that it runs, its notebook, its data. Does not load torch.

    of(Path("notebooks/calm.ipynb"), "drawn_cub")  # digests of "code", "notebook" and "data"; kept in the provenance of a run
    outdated(read_profile("subset"))               # {"runs/subset/calm/cub-resnet18-e5-s0": ["code", "data"]}

Code is, recursively, the modules of this repository that a notebook imports. Comments, docstrings and layout do not count.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproduce.batch import Profile

HOME = Path(__file__).resolve().parents[1]
OURS = ("cam_core", "training", "reproduce", "data_scripts")
TRAINING = "reproduce/jobs.py"  # what a training job runs
FOLDERS = {"imagenet": "ILSVRC2012", "voc07": "VOCdevkit", "cub": "CUB_200_2011"}  # of other sets the files beside these


def of(notebook: Path | None, dataset: str, data_root: Path | str | None = None) -> dict[str, str]:
    """The digests of a run of ``notebook`` on ``dataset`` as things are now; None: of a training job."""
    if notebook is None:
        return {"code": _code(_closure([HOME / TRAINING])), "data": data(dataset, data_root)}
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    trees = [ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", "".join(cell["source"]))) for cell in cells]  # Jupyter's own lines are no Python
    imported = _closure([path for tree in trees for path in _ours(_imports(tree))])
    told = [(ast.dump(tree), cell["metadata"].get("tags", [])) for tree, cell in zip(trees, cells, strict=True) if tree.body]
    return {"code": _code(imported), "notebook": _sha(told), "data": data(dataset, data_root)}


def data(dataset: str, data_root: Path | str | None = None) -> str:
    """A digest of a data set that is quick to take: of drawn data their recipe (also of those to be drawn), else the names of all files."""
    if dataset.startswith("drawn_"):
        recipe = Path(data_root or HOME / "data/drawn") / "drawn.json"
        if recipe.is_file():
            return _sha(json.loads(recipe.read_text()))
        from data_scripts.draw import _recipe

        return _sha(_recipe(0, small=False))
    root = Path(data_root or os.environ.get("CAM_DATA") or "nowhere")
    if not root.is_dir():
        return ""
    if dataset not in FOLDERS:
        return _sha(sorted((entry.name, entry.stat().st_size) for entry in os.scandir(root) if entry.is_file()))
    found = ((os.path.relpath(folder, root), sorted(files)) for folder, _, files in os.walk(root / FOLDERS[dataset]))
    return _sha(sorted(found))


def outdated(profile: "Profile") -> dict[str, list[str]]:
    """The complete runs whose code, notebook or data are other ones now, and which of them."""
    found = {}
    for job in profile.jobs:
        made = Path(job.folder) / "provenance.json"
        if made.is_file():
            then = json.loads(made.read_text() or "{}").get("depends")
            now = of(HOME / f"notebooks/{job.paper}.ipynb", job.dataset, job.extra.get("data_root"))
            if differ := ["nothing was recorded"] if then is None else [name for name, digest in now.items() if then.get(name) != digest]:
                found[job.folder] = differ
    return found


@cache
def _read(text: str) -> tuple[list[tuple[str, str | None]], str]:
    """What a module imports of ours, and a digest of its code."""
    tree = ast.parse(text)
    return _imports(tree), _sha(ast.dump(tree))


def _closure(paths: list[Path]) -> list[Path]:
    """The modules and all that they import, in the order of their names."""
    found, left = set[Path](), list(paths)
    while left:
        if (path := left.pop()) not in found:
            found.add(path)
            left += _ours(_read(path.read_text())[0])
    return sorted(found)


def _imports(tree: ast.Module) -> list[tuple[str, str | None]]:
    """(module, name in it) of every import of ours, anywhere in a module, whose docstrings (which have no effect here) are removed."""
    asked: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            asked += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            asked += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:] or [ast.Pass()]
    return [(module, name) for module, name in asked if module.split(".")[0] in OURS]


def _ours(asked: list[tuple[str, str | None]]) -> Iterator[Path]:
    """The files that these imports read; of a package only what is asked of it."""
    return filter(None, (_file(module, name) for module, name in asked))


def _file(module: str, name: str | None) -> Path | None:
    """Where a name is defined: in a module of its own, where a package has it from, or in the module."""
    place = HOME.joinpath(*module.split("."))
    if name and (inner := _module(place / name)):
        return inner
    package = place / "__init__.py"
    if name and package.is_file():
        for source, exported in _read(package.read_text())[0]:
            if exported == name and source != module:
                return _file(source, name)
    return _module(place)


def _module(place: Path) -> Path | None:
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _code(paths: list[Path]) -> str:
    return _sha([(str(path.relative_to(HOME)), _read(path.read_text())[1]) for path in paths])


def _sha(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
