"""What README shows runs when it is pasted."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cam_core import METHODS
from reproduce.batch import read_profile

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_in_the_readme_runs_as_pasted(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAM_WEIGHTS", raising=False)
    torch.manual_seed(0)
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert snippets
    for snippet in snippets:
        left = {}
        exec(compile(snippet, "README.md", "exec"), left)
        assert left["heat"].shape == (1, 224, 224)
        assert 0 <= float(left["heat"].min()) <= float(left["heat"].max()) <= 1
        for file in re.findall(r'savefig\("(.+?)"\)', snippet):
            with Image.open(file) as drawn:
                assert min(drawn.size) > 100


def test_the_readme_counts_the_methods():
    others = {name.partition("[")[0] for name, one in METHODS.items() if not one.control} - {"increment_cam"}
    assert "over thirty others from CAM to RISE and Fusion-CAM" in README
    assert 30 < len(others) < 40


def test_the_readme_tells_how_long_the_subset_profile_takes():
    hours = sum(job.minutes for job in read_profile("subset").jobs) / 60
    written = {6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}[round(hours)]
    assert f"about {written} hours" in README
    first = (Path(__file__).parents[1] / "profiles/subset.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert f"{written} hours in all" in first
