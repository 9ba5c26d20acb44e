"""Provenance of a number: commit, packages, machine, threads, memory, parameters; no absolute paths. Does not load torch."""

import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cam_core.environment import versions

CODE = ("cam_core", "training", "reproduce", "data_scripts", "notebooks", "requirements.lock")  # what can change a number; prose cannot


def process_facts() -> dict[str, Any]:
    """Threads, device and peak memory (MiB) of this process; torch is used only if it is already loaded."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    facts: dict[str, Any] = {"device": "cpu", "threads": os.cpu_count(), "peak_memory_mib": round(peak, 1)}
    facts["engine"] = "+".join(["torch", *getattr(sys.modules.get("cam_core.engine"), "answered", ())])
    if torch := sys.modules.get("torch"):
        facts["threads"] = torch.get_num_threads()
        if torch.cuda.is_initialized():
            facts["device"] = torch.cuda.get_device_name()
            facts["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return facts


def cost(since: float, peak: float = 0.0) -> dict[str, float]:
    """What a run or training took, its children included: seconds since ``since`` (of `time.monotonic`), CPU seconds, peak memory (MiB).

    The peak is that of the largest process; ``peak`` may know of a larger one.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    largest = max(of.ru_maxrss for of in used) / (2**20 if sys.platform == "darwin" else 2**10)
    return {
        "wall_seconds": round(time.monotonic() - since, 1),
        "cpu_seconds": round(sum(of.ru_utime + of.ru_stime for of in used), 1),
        "peak_memory_mib": round(max(largest, peak), 1),
    }


def provenance(parameters: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """Everything needed to judge or repeat a run; `facts` (from the notebook and the runner) come on top.

    Absolute paths are cut to their last component, so that published files reveal nothing about anyone's disk.
    """
    commit, dirty = git_state(Path(__file__).resolve().parent.parent)
    unknown = dict.fromkeys(("device", "threads", "chunk", "data_digest", "weights_digest"))
    content = {
        **unknown,
        "parameters": dict(parameters),
        "seed": parameters.get("seed"),
        "commit": commit,
        "dirty": dirty,
        "packages": versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **facts,
    }
    return {name: public(value) for name, value in content.items()}


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """(commit, whether code, notebooks or lock differ from it) of the repository `folder`; (None, None) without git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--", *CODE)
    return git("rev-parse", "--verify", "HEAD"), None if changes is None else bool(changes)


def public(value: Any) -> Any:
    """The same value with every absolute path, in whatever depth, cut to its last component."""
    if isinstance(value, Mapping):
        return {str(name): public(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [public(entry) for entry in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and re.match(r"[/~]|[A-Za-z]:[\\/]", value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value
