"""What the batch costs beside its runs: `python -m benchmarks.batch [--smoke]`, on an idle machine.

Of a copy of the project in a temporary folder: a batch of the smoke profile that has nothing to do; the start of a notebook, which is
L-CAM's up to its parameters, beside `import torch`; with ``--smoke``, in a quarter of an hour, the smoke profile from nothing, one job at a
time, beside the sum of its runs and trainings. Real seconds, and CPU seconds (children included), which bear a machine that is not idle;
the README tells the real ones.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.race import HOME, write

# Stands for `python -m reproduce run` and `train`: makes what they would, in no time.
STAND_IN = """
import sys
from pathlib import Path
words = sys.argv[1:]
if words[0] == "train":
    Path(words[words.index("--marker") + 1]).write_text("{}")
else:
    out = Path(words[words.index("--out") + 1])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("notebook.ipynb", "metrics.csv", "provenance.json"):
        (out / name).write_text("{}")
"""
BATCH = ["reproduce", "batch", "--profile", "smoke"]
IDLE, START = "a batch with nothing to do, seconds", "the start of a notebook beyond importing torch, seconds"
OVER, CPU = "the smoke batch over the sum of its runs, percent", " of CPU"
README, BLOCK = HOME / "README.md", re.compile("<!-- batch: begin -->.*<!-- batch: end -->", re.DOTALL)


def project(folder: Path) -> Path:
    """A copy of the code, the notebooks, the profiles and the studies' tables that notebooks show, with the drawn data of this one."""
    for name in ("cam_core", "training", "reproduce", "data_scripts", "notebooks", "profiles", "results/studies"):
        shutil.copytree(HOME / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HOME / "Snakefile", folder)
    (folder / "data").mkdir()
    (folder / "data/drawn").symlink_to((HOME / "data/drawn").resolve())
    return folder


def seconds(folder: Path, words: Sequence[str], expected: str) -> tuple[float, float]:
    """(real, CPU) seconds of a Python command in that folder; RuntimeError unless it says what is ``expected``."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    real, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if expected not in done.stdout + done.stderr:
        raise RuntimeError(f"{' '.join(words)} did not say {expected!r}:\n{(done.stdout + done.stderr)[-3000:]}")
    return real, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def least(found: list[tuple[float, float]]) -> tuple[float, float]:
    return min(real for real, _ in found), min(cpu for _, cpu in found)


def nothing_to_do(folder: Path, rounds: int) -> tuple[float, float]:
    """The smoke profile, complete: its runs are stand-ins, which Snakemake has made."""
    main = folder / "reproduce/__main__.py"
    own = main.read_text()
    main.write_text(STAND_IN)
    seconds(folder, ["-m", "snakemake", "--cores", "1", "--config", "profile=smoke"], "(100%) done")
    main.write_text(own)
    return least([seconds(folder, ["-m", *BATCH], "are up to date") for _ in range(rounds)])


def start(folder: Path, rounds: int) -> tuple[float, float]:
    """`reproduce run` until a notebook has read its parameters, less `import torch`; CPU seconds to the end of both processes.

    The notebook ends there, and the run in words, for it has no numbers.
    """
    content, stamp = json.loads((folder / "notebooks/l_cam.ipynb").read_text()), folder / "began"
    last = next(number for number, cell in enumerate(content["cells"]) if "parameters.read(" in "".join(cell["source"]))
    content["cells"] = content["cells"][: last + 1]
    tell = f"import time\nopen({str(stamp)!r}, 'w').write(str(time.time()))"
    content["cells"][-1]["source"] = [*content["cells"][-1]["source"], f"\n{tell}"]
    (folder / "notebooks/start.ipynb").write_text(json.dumps(content))
    notebook = ["-m", "reproduce", "run", "notebooks/start.ipynb", "--out", "runs/start", "--threads", "1"]

    def until(words: Sequence[str], expected: str) -> tuple[float, float]:
        began = time.time()
        cpu = seconds(folder, words, expected)[1]
        return float(stamp.read_text()) - began, cpu

    found = [
        (until(notebook, "wrote no metrics.csv"), until(["-c", f"import torch; print(torch)\n{tell}"], "torch")) for _ in range(rounds)
    ]
    (real, cpu), (bare, bare_cpu) = (least([pair[which] for pair in found]) for which in (0, 1))
    return real - bare, cpu - bare_cpu


def overhead(folder: Path) -> tuple[float, float]:
    """The smoke profile from nothing: what the batch takes over its runs and trainings, in percent of their sum."""
    shutil.rmtree(folder / "runs")
    shutil.rmtree(folder / ".snakemake")
    real, cpu = seconds(folder, ["-m", *BATCH, "--cores", "1"], "4 done")
    made = [
        json.loads(path.read_text())
        for kind in ("smoke/*/*/provenance.json", "models/smoke-*.json")
        for path in folder.glob(f"runs/{kind}")
    ]
    real_sum, cpu_sum = (sum(one[name] for one in made) for name in ("wall_seconds", "cpu_seconds"))
    return 100 * (real - real_sum) / real_sum, 100 * (cpu - cpu_sum) / cpu_sum


def told(table: pd.DataFrame) -> str:
    """The block of the README; empty where nothing was measured."""
    found = dict(zip(table.contender, table.found, strict=True))
    parts = {
        IDLE: "A batch with nothing to do takes {:.1f} s",
        START: "the start of a notebook {:.1f} s beyond `import torch`",
        OVER: "the smoke batch {:.0f} % more than its runs",
    }
    said = ", ".join(words.format(found[name]) for name, words in parts.items() if name in found)
    return f"<!-- batch: begin -->\n{said and f'{said} (`python -m benchmarks.batch --smoke`).{chr(10)}'}<!-- batch: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="also the overhead, in a quarter of an hour")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = project(Path(place).resolve())
        keep(IDLE, 5, nothing_to_do(folder, options.rounds))
        keep(START, 3, start(folder, options.rounds))
        if options.smoke:
            keep(OVER, 10, overhead(folder))


def keep(name: str, most: float, found: tuple[float, float]) -> None:
    """Write one measure at once, so that one that fails loses none before it."""
    rows = [
        {"group": "what was promised", "contender": name + of, "found": value, "asked": f"at most {most}"}
        for of, value in zip(("", CPU), found, strict=True)
    ]
    print(pd.DataFrame(rows).to_string(index=False))
    write([pd.DataFrame(rows)], "batch", replace="contender")
    README.write_text(BLOCK.sub(told(pd.read_csv(HOME / "results/benchmarks/batch.csv")), README.read_text()))


if __name__ == "__main__":
    main()
