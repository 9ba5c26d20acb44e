"""How the command of a job is started: `python -m reproduce.start --tasks 2 --gpus 2 python -m reproduce train ...`.

Inside a job of Slurm, several processes are started by srun, and Slurm has chosen the GPUs. Elsewhere the command gets GPUs that no other
job of this machine holds: Snakemake counts how many are free (`--resources gpu=2`), but does not say which. Does not load torch.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def here() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    told = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False)
    return told.stdout.split() if told.returncode == 0 else []


def hold(count: int) -> list[str]:
    """Lock ``count`` free GPUs for this process and for the command that replaces it; RuntimeError if fewer are free."""
    held: list[str] = []
    for name in here():
        lock = os.open(Path(tempfile.gettempdir(), f"cam-gpu-{os.getuid()}-{name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        os.set_inheritable(lock, True)  # kept open by the command, so that the lock ends with it
        held.append(name)
        if len(held) == count:
            return held
    raise RuntimeError(f"{count} GPUs were asked for, and {len(held)} of {len(here())} are free here: pass `--resources gpu={len(here())}`")


def command(options: argparse.Namespace, environment: Mapping[str, str]) -> list[str]:
    """What is executed: under Slurm by srun, if it is several processes; elsewhere Fabric starts the others itself."""
    if "SLURM_JOB_ID" in environment and options.tasks > 1:
        each = f"--ntasks-per-node={options.tasks // options.nodes}"  # Fabric wants to be told
        asked = [f"--ntasks={options.tasks}", f"--nodes={options.nodes}", each, f"--cpus-per-task={options.threads}"]
        return ["srun", "--kill-on-bad-exit=1", *asked, *options.command]
    return list(options.command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Replace this process by the command."""
    parser = argparse.ArgumentParser(prog="python -m reproduce.start", description=__doc__)
    for name in ("tasks", "nodes", "threads", "gpus"):
        parser.add_argument(f"--{name}", type=int, default=0 if name == "gpus" else 1)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if options.gpus and "SLURM_JOB_ID" not in os.environ:
        try:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(hold(options.gpus))
        except RuntimeError as error:
            sys.exit(f"error: {error}")
    words = command(options, os.environ)
    os.execvp(words[0], words)


if __name__ == "__main__":
    main()
