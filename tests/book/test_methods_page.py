"""The page of methods: its code runs, and the names it gives exist."""

import re

import torch

import cam_core
from cam_core.methods import METHODS

from .conftest import BOOK

PAGE = (BOOK / "choose_method.md").read_text(encoding="utf-8")


def test_the_code_on_the_page_runs(monkeypatch):
    torch.manual_seed(0)
    asked, load = [], cam_core.load_classifier
    monkeypatch.setattr(cam_core, "load_classifier", lambda name: asked.append(name) or load("resnet18", weights=None), raising=False)
    known = {"images": torch.rand(2, 3, 64, 64)}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, known)
    assert asked == ["resnet50"]
    assert known["probe"].targets.tolist() == [281, 207]
    assert known["heat"].shape == (2, 64, 64)
    assert float(known["heat"].min()) >= 0
    assert float(known["heat"].max()) > 0.5


def test_every_method_that_the_page_names_exists():
    head = {name.partition("[")[0] for name in METHODS}
    named = re.findall(r"`([a-z_]+(?:\[[a-z_=.0-9]+\])?)`", PAGE)
    options = [name for name in named if "[" in name and name.partition("[")[0] in head]
    assert "score_cam[softmax]" in options
    assert [name for name in options if name not in METHODS and "[power=" not in name and "[mean=" not in name] == []
    table = PAGE[PAGE.index("There and here, name by name") : PAGE.index("(own-network)=")]
    others = ("targets", "target_layers", "reshape_transform", "vit_b_16", "swin_t")
    assert [name for name in re.findall(r"`([a-z_]+)`", table) if name not in METHODS and name not in others] == []
