"""Lines of the package as a page shows them."""

import ast
import importlib
import inspect
import subprocess
import sys
import textwrap


def lines(_options, module, *names):
    """The code of functions or methods of a module (`LCam.loss`), without their docstrings, reformatted to the width of the column."""
    parts = []
    for name in names:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        parts.append(_without_docstring(textwrap.dedent(inspect.getsource(found))))
    text = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "84", "-"],
        input="\n\n".join(parts), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return f"```python\n# {module.replace('.', '/')}.py\n{text}```\n"


def _without_docstring(source):
    first, kept = ast.parse(source).body[0].body[0], source.splitlines()
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        kept[first.lineno - 1 : first.end_lineno] = []
    return "\n".join(kept) + "\n"
