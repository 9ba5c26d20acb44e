"""One environment, told three times: pyproject.toml (ranges), requirements.lock (hashes), environment.yml (conda)."""

import os
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {name: (ROOT / name).read_text() for name in ("requirements.lock", "tests/oracles/requirements.lock")}
PYTHONS = ("3.11", "3.12", "3.13")


def entries(text):
    """The requirements of a lock with the lines that belong to each: [(Requirement, text)]."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    return [(Requirement(block.split("\\")[0].strip()), block) for block in blocks if block.strip()]


def pinned(python, platform="linux", machine="x86_64"):
    """name -> version of the main lock for one Python."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": platform,
        "platform_machine": machine,
        "os_name": "posix",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    found = {}
    for requirement, _ in entries(LOCKS["requirements.lock"]):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            assert canonicalize_name(requirement.name) not in found, f"{requirement.name} is pinned twice for Python {python}"
            found[canonicalize_name(requirement.name)] = Version(specifier.version)
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_of_the_project_is_met_by_the_lock(python):
    """Each range of pyproject, extras included, holds the version that the lock installs."""
    versions = pinned(python)
    wanted = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_torch_and_torchvision_are_the_pair_that_works(python):
    """torchvision is compiled against one torch; no local build (+cpu) can stand in, because it has other hashes."""
    versions = pinned(python)
    assert (str(versions["torch"]), str(versions["torchvision"])) == ("2.15.0", "0.29.2")
    assert versions["torch"].local is None


@pytest.mark.parametrize("name", LOCKS)
def test_locks_have_hashes_and_no_address(name):
    """Any mirror may serve the files, none may change them."""
    for requirement, block in entries(LOCKS[name]):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), f"{requirement.name} has no hash"
        assert requirement.url is None
    assert not re.search(r"://|--(extra-)?index-url|--find-links|file:", LOCKS[name])


def test_one_opencv_only():
    """Two wheels of OpenCV overwrite each other's files."""
    names = {canonicalize_name(r.name) for text in LOCKS.values() for r, _ in entries(text)}
    assert {name for name in names if "opencv" in name} == {"opencv-python-headless"}


def test_oracles_do_not_pin_what_the_main_lock_pins():
    """The peers go on top of the environment, they do not move it."""
    names = [{canonicalize_name(r.name) for r, _ in entries(text)} for text in LOCKS.values()]
    assert not names[0] & names[1]


def test_oracles_find_all_they_need():
    """What the peers declare is in one of the two locks (they are installed without dependencies), installed and importable."""
    from importlib.metadata import PackageNotFoundError, requires

    names = {canonicalize_name(r.name) for text in LOCKS.values() for r, _ in entries(text)}
    try:
        declared = [
            Requirement(r) for peer in ("grad-cam", "torchcam", "captum", "ttach", "scikit-learn", "quantus") for r in requires(peer) or []
        ]
    except PackageNotFoundError as error:
        pytest.fail(f"{error} is not installed: run `make setup`")
    missing = {r.name for r in declared if r.marker is None and canonicalize_name(r.name) not in names}
    assert missing <= {"opencv-python"}  # the same module comes with opencv-python-headless
    assert "opencv-python-headless" in names


def test_conda_installs_the_same_lock():
    """environment.yml gives Python from the project's range and hands everything else to the lock."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = {re.split("[=<>]", d)[0]: d for d in environment["dependencies"] if isinstance(d, str)}
    assert set(plain) == {"python", "pip", "git"}
    python = Version(plain["python"].split("=")[-1])
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.lock"]
    assert str(python) in PYTHONS


def test_this_interpreter_is_in_range():
    """A test run under another Python than promised proves nothing."""
    assert SpecifierSet(PROJECT["requires-python"]).contains(".".join(map(str, sys.version_info[:3])))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
@pytest.mark.parametrize("start", ["pass", "keep_pages()", "import studies"])
def test_a_process_of_ours_keeps_the_pages_of_what_it_frees(start):
    code = """
import resource
from pathlib import Path
import numpy as np
from cam_core.environment import keep_pages

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

START
before = resident()
large = [np.ones(2**20) for _ in range(8)]  # 8 MB each
del large
print(resident() - before)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    said = subprocess.run(
        [sys.executable, "-c", code.replace("START", start)], capture_output=True, text=True, env=environment, check=True, cwd=ROOT
    )
    kept = float(said.stdout)
    assert kept < 16 if start == "pass" else kept > 48
