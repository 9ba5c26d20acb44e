"""What the page "Use it" shows runs as pasted, the citation says one thing everywhere, and no link hangs on an address that is not set."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from .conftest import BOOK

ROOT = BOOK.parent
TEXT = (BOOK / "use_it.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.replace("\\\n", " ").splitlines() if line.strip()
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a photograph, and a data set of two."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
    for file in ("photo.jpg", "mine/test/cat/one.jpg", "mine/test/dog/two.jpg"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAM_WEIGHTS", raising=False)
    return tmp_path


@pytest.mark.parametrize("snippet", PYTHON, ids=[f"snippet {number}" for number, _ in enumerate(PYTHON)])
def test_the_python_runs_as_pasted(here, snippet):
    torch.manual_seed(0)
    left = {}
    exec(compile(snippet, "use_it.md", "exec"), left)
    if "table" in left:
        assert set(left["table"].records()["method"]) == {"grad_cam", "increment_cam", "mean_activation"}
    else:
        assert left["heat"].ndim == 3


def run(command, folder, home):
    """One command of the page with this Python; its output."""
    words = shlex.split(command.replace("python -m", f"{sys.executable} -m", 1))
    environment = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=True).stdout


def test_a_photograph_is_explained_without_a_download(here):
    (command,) = [line for line in COMMANDS if "explain" in line and "--model" not in line]
    run(command, here, here)
    assert (here / "maps/explained.json").is_file()
    assert len(list((here / "maps").glob("*.png"))) >= 1


def test_batches_can_be_asked_before_they_run(tmp_path):
    for command in COMMANDS:
        if "--dry-run" in command or "reproduce status" in command:
            assert run(command, ROOT, tmp_path)


def test_every_module_profile_and_target_of_the_commands_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in COMMANDS:
        words = command.split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), command
        for profile in re.findall(r"(?:--profile |PROFILE=)(\w+)", command.partition(" -- ")[0]):  # what follows is Snakemake's
            assert (ROOT / f"profiles/{profile}.yaml").is_file(), command


def test_the_citation_says_one_thing():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    entry = " ".join(re.search(r"```bibtex\n(.*?)```", TEXT, re.DOTALL).group(1).split())
    for fact in (cff["title"], cff["version"], cff["license"], cff["authors"][0]["name"]):
        assert fact in entry
    assert f'version = "{cff["version"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def repository():
    spec = importlib.util.spec_from_file_location("repository", BOOK / "_ext/repository.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


URL = "https://github.com/someone/cams"


def test_links_to_the_repository_stand_only_where_there_is_an_address(repository):
    assert not any("](" in words for words in repository.words("", "main").values())
    words = repository.words(URL, "main")
    assert f"]({URL})" in words["repository"]
    assert f"]({URL}/blob/main/CITATION.cff)" in words["citation"]
    assert words["launch"].count("https://colab.research.google.com/github/someone/cams/blob/main/notebooks/") == 4
    assert words["launch"].count("https://mybinder.org/v2/gh/someone/cams/main?labpath=notebooks%2F") == 4
    assert "colab" not in repository.words("https://gitlab.com/someone/cams", "main")["launch"]
    for notebook in repository.NOTEBOOKS.values():
        assert (ROOT / f"notebooks/{notebook}.ipynb").is_file()


def test_code_names_the_repository_only_where_there_is_an_address(repository):
    with_it, without = repository.addressed(TEXT, URL), repository.addressed(TEXT, "")
    assert f"git clone {URL} cams && cd cams\nmake setup\n" in with_it
    assert f"url = {{{URL}}}," in re.search(r"```bibtex\n(.*?)```", with_it, re.DOTALL)[1]
    for text in (with_it, without):
        assert "%repository%" not in text
    assert "url =" not in without
    assert "git clone" not in without
    assert "license = {MIT},\n}\n" in without


@pytest.mark.parametrize("url", ["", URL])
def test_the_buttons_of_the_theme_hang_on_the_address(repository, url):
    config = SimpleNamespace(html_theme_options={"repository_url": url}, myst_substitutions={})
    repository.use(None, config)
    assert config.html_theme_options["use_repository_button"] == config.html_theme_options["use_issues_button"] == bool(url)
    assert set(config.myst_substitutions) == {"repository", "launch", "citation"}


def test_the_citation_file_names_the_address_of_the_book():
    address = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cff.get("repository-code", "") == address, "one address: _config.yml and CITATION.cff"
