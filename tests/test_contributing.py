"""Somebody who follows CONTRIBUTING.md word by word has a method and a metric that work."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from cam_core import METHODS, Probe, maps, metrics
from cam_core.data import Example
from cam_core.evaluate import evaluate
from cam_core.metrics.statistics import Array, mean
from tests import nets

HOME = Path(__file__).resolve().parents[1]
PAGE = (HOME / "CONTRIBUTING.md").read_text("utf-8")
BLOCKS = [dedent(block) for block in re.findall(r"^( *```(?:python|text)\n.*?)```", PAGE, re.DOTALL | re.MULTILINE)]
METHOD, ENTRY, REFERENCE, METRIC = (block.partition("\n")[2].strip() + "\n" for block in BLOCKS)


def test_a_method_added_in_the_steps_passes_the_battery(tmp_path):
    for folder in ("cam_core", "tests"):
        shutil.copytree(HOME / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HOME / "pyproject.toml", tmp_path)

    def add(file, code, before=""):
        text = (tmp_path / file).read_text("utf-8")
        at = text.index(before) if before else len(text)
        (tmp_path / file).write_text(f"{text[:at]}\n\n{code}{text[at:]}", "utf-8")

    add("cam_core/methods/gradient.py", METHOD)
    add("cam_core/methods/__init__.py", ENTRY, before='        Method("grad_cam"')
    add("tests/reference.py", REFERENCE)

    files = ("tests/test_methods.py", "tests/test_host.py")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *files, "-k", "max_cam"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.findall(r"::(test_\w+)\[(\S*)max_cam\S*\] PASSED", done.stdout)
    assert ("test_a_method_equals_its_formula_written_out", "dense-") in passed
    assert len(passed) >= 12  # batches, chunks, frozen weights, half precision, another device, ...


class Images(torch.utils.data.Dataset):
    """Some images as a data set."""

    ids = ("a", "b", "c")

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return Example(self.ids[index], nets.images(3)[index], 0)


def test_a_metric_written_so_is_evaluated_with_all_that_comes_along():
    given = {"Metric": metrics.Metric, "Tensor": torch.Tensor, "Probe": Probe, "Array": Array, "mean": mean}
    exec(METRIC, given)
    table = evaluate(nets.gap(), lambda _: Images(), [METHODS["cam"]], [given["BrightShare"]()], progress=False)
    [row] = table.records().query("metric == 'bright_share'").to_dict("records")
    heat = maps.upsample(maps.min_max(METHODS["cam"](Probe(nets.gap(), nets.images(3)))), (16, 16))
    shares = [100 * sum(float(value) > 0.5 for value in one.flatten()) / 256 for one in heat]
    assert row["value"] == pytest.approx(sum(shares) / 3)
    assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert row["n"] == 3
