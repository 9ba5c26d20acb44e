"""Measure one shard of a run's evaluations: the statements of its notebook that these need, without its pictures, tables and numbers.

The run itself then finds the rows (`cam_core.kept`) and only summarises them.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MEASURING = ("evaluate", "at_equal_mean")  # the functions of `cam_core.evaluate` that keep rows


def folder(notebook: Path, out: Path) -> Path:
    """Where a run into ``out`` keeps its rows; those of a notebook with other code are not found."""
    code = "\n".join(_sources(notebook))
    return kept(out) / hashlib.sha256(code.encode()).hexdigest()[:12]


def kept(out: Path | str) -> Path:
    """The folder of the rows and marks of a run into ``out``, which is removed when the run is complete."""
    return Path(f"{out}.kept")


def mark(out: Path | str, number: int | str, of: int | str) -> Path:
    """The file that says that shard ``number`` of ``of`` is measured, and what that took; its journal lies beside it."""
    return kept(out) / f"{number}-of-{of}.json"


def shard(notebook: Path, out: Path, parameters: Mapping[str, Any], number: int, of: int) -> None:
    """Measure and keep shard ``number`` (from 1) of ``of`` of the run of ``notebook`` with ``parameters`` into ``out``."""
    from cam_core.kept import Kept

    first, *rest = _sources(notebook)
    values: dict[str, Any] = {}
    exec(compile(first, str(notebook), "exec"), values)
    if unknown := sorted(set(parameters) - (set(values) - {"__builtins__"})):
        raise ValueError(f"{notebook} has no parameter {', '.join(unknown)}")
    values |= {**parameters, "rows_dir": Kept(folder(notebook, out), number - 1, of)}
    needed = ast.Module(statements("\n".join(rest)), type_ignores=[])
    exec(compile(needed, str(notebook), "exec"), values)


def _sources(notebook: Path) -> list[str]:
    """The code cells of a notebook from that with its parameters on; ValueError if there is none."""
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    tagged = [number for number, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", [])]
    if not tagged:
        raise ValueError(f"{notebook} has no cell tagged `parameters`; tag the cell that holds them")
    return ["".join(cell["source"]) for cell in cells[tagged[0] :]]


def statements(code: str) -> list[ast.stmt]:
    """The top-level statements that measure, and those that what they use comes from: which bind a name in use, or call a method of it."""
    found: list[ast.stmt] = []
    used = {"torch"}  # its random generator
    for statement in reversed(ast.parse(code).body):
        bound, read = set(_names(statement, ast.Store)), set(_names(statement, ast.Load))
        measures = any(isinstance(node, ast.Call) and ast.unparse(node.func) in MEASURING for node in ast.walk(statement))
        if measures or used & (bound | _changed(statement)):
            found.append(statement)
            used |= read - bound
    return found[::-1]


def _names(statement: ast.stmt, how: type[ast.expr_context]) -> Iterator[str]:
    """The names that a statement reads, or binds (with what it imports and defines)."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, how):
            yield node.id
        elif isinstance(node, ast.alias | ast.FunctionDef) and how is ast.Store:
            yield (node.asname if isinstance(node, ast.alias) else None) or node.name.partition(".")[0]


def _changed(statement: ast.stmt) -> set[str]:
    """The names whose objects a statement may change: `other["key"] = ...`, `kinds.append(...)`, `torch.manual_seed(...)`."""
    every = [*ast.walk(statement)]
    nodes = [node for node in every if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store)]
    calls = [node.value.func for node in every if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    nodes += [func for func in calls if isinstance(func, ast.Attribute)]
    return {node.value.id for node in nodes if isinstance(node.value, ast.Name)}
