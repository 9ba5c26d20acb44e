"""Which package may import which: the table below, held against the import statements of every module, those inside functions too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {  # package: what none of its modules imports, be it by way of another module
    "cam_core": ("training", "reproduce", "book", "studies", "data_scripts", "benchmarks", "tests"),
    "cam_core.data": ("cam_core.probe", "cam_core.methods", "cam_core.learned", "cam_core.metrics"),
    "cam_core.classifier": ("cam_core.probe", "cam_core.methods", "cam_core.learned", "cam_core.metrics"),
    "cam_core.probe": ("cam_core.methods", "cam_core.learned", "cam_core.metrics"),
    "cam_core.methods": ("cam_core.metrics",),
    "cam_core.learned": ("cam_core.metrics",),
    "training": ("cam_core.metrics", "reproduce", "book", "studies", "data_scripts", "benchmarks", "tests"),
    "reproduce": ("book", "studies", "benchmarks", "tests"),
    "data_scripts": ("reproduce", "book", "studies", "benchmarks", "tests"),
}


def module(path):
    """reproduce/run.py -> reproduce.run, cam_core/methods/__init__.py -> cam_core.methods."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree):
    """The names that the import statements of a module bring in, `from a import b` as a and as a.b; no relative ones stand there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, ast.unparse(node)
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = {
    module(path): set(imports(ast.parse(path.read_text())))
    for top in {name.split(".")[0] for name in FORBIDDEN}
    for path in (ROOT / top).rglob("*.py")
}


def inside(name, package):
    """Whether a name is a package's, or the package itself."""
    return f"{name}.".startswith(f"{package}.")


def chains(package):
    """Every import that the package's modules come to, with the modules that lead to it."""
    waiting = [(name, [name]) for name in MODULES if inside(name, package)]
    seen = {name for name, _ in waiting}
    while waiting:
        name, way = waiting.pop()
        for wanted in MODULES[name]:
            yield [*way, wanted]
            if wanted in MODULES and wanted not in seen and wanted != "cam_core":  # which loads what it names only when asked for it
                seen.add(wanted)
                waiting.append((wanted, [*way, wanted]))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package):
    assert any(inside(name, package) for name in MODULES)
    wrong = {" imports ".join(way) for way in chains(package) for other in FORBIDDEN[package] if inside(way[-1], other)}
    assert not wrong, "\n".join(sorted(wrong))
