"""Where the real data are, and a loud word when tests had to do without them."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

from data_scripts.draw import draw

os.environ.setdefault("MPLBACKEND", "agg")
NEEDS = {"real_data": "CAM_DATA", "real_weights": "CAM_WEIGHTS"}

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """Skip what needs CAM_DATA or CAM_WEIGHTS where they are not set, or a GPU where there is none."""
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        for mark, variable in NEEDS.items():
            if item.get_closest_marker(mark) and not os.environ.get(variable):
                item.add_marker(pytest.mark.skip(reason=f"{variable} is not set"))


def pytest_terminal_summary(terminalreporter):
    """Say at the end which kinds of tests did not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    told = {
        "real data and weights": sum("CAM_DATA is not set" in _reason(r) or "CAM_WEIGHTS is not set" in _reason(r) for r in skipped),
        "a browser": sum("chromium" in _reason(r) or "no site is built" in _reason(r) for r in skipped),
        "Slurm": sum("no Slurm" in _reason(r) for r in skipped),
        "a GPU": sum("no CUDA device" in _reason(r) for r in skipped),
    }
    unset = [variable for variable in NEEDS.values() if not os.environ.get(variable)]
    if unset:
        terminalreporter.section("NOT TESTED ON REAL DATA", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{' and '.join(unset)} not set: {told['real data and weights']} tests on real images or pretrained networks did not run."
        )
    if told["a browser"]:
        terminalreporter.section("NOT TESTED IN A BROWSER", sep="!", red=True, bold=True)
        terminalreporter.line(f"No chromium, or no built book (`make book browser`): {told['a browser']} tests did not run.")
    if told["Slurm"]:
        terminalreporter.section("NOT TESTED ON SLURM", sep="!", red=True, bold=True)
        terminalreporter.line("apt-get install slurmctld slurmd slurm-client munge: the test of the batch on a cluster did not run.")
    if told["a GPU"]:
        terminalreporter.section("NOT TESTED ON A GPU", sep="!", red=True, bold=True)
        terminalreporter.line(f"There is no CUDA device: {told['a GPU']} tests of what waits for one did not run.")


def _reason(report):
    return str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)


@pytest.fixture(scope="session")
def cam_data():
    """The folder CAM_DATA; mark the test with real_data."""
    return Path(os.environ["CAM_DATA"]).resolve()


@pytest.fixture(scope="session")
def cam_weights():
    """The folder CAM_WEIGHTS; mark the test with real_weights."""
    return Path(os.environ["CAM_WEIGHTS"]).resolve()


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """The small drawn data root, made once."""
    return draw(tmp_path_factory.mktemp("data") / "drawn", small=True, progress=False)
