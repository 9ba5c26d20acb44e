"""Contenders in processes of their own, called in turn: what one leaves behind (threads, memory, environment) is not the other's.

A contender is a function ``prepare(*words) -> call`` written ``module:function:word,word``; its process prepares once and then times
``call`` whenever it is asked, with the words of the asking, if any.
"""

import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from cam_core.environment import ALLOCATOR, versions
from reproduce.files import write_table
from reproduce.provenance import process_facts

HOME = Path(__file__).resolve().parents[1]
BFLOAT16 = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX"}  # flags of /proc/cpuinfo; without one of them bfloat16 saves no time


class Contender:
    """A process that waits to be asked; ``ours`` is started with the allocator's settings, as every process of ours is."""

    def __init__(self, name: str, prepare: str, *, ours: bool) -> None:
        self.name = name
        environment = {**os.environ, **(ALLOCATOR if ours else {})}
        command = [sys.executable, "-m", "benchmarks.race", prepare]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=HOME)
        self._answer()  # prepared

    def measure(self, *words: str) -> dict[str, float]:
        """Seconds, CPU seconds and megabytes above the level before the call, and the numbers that the call returns by name."""
        assert self.process.stdin is not None
        self.process.stdin.write(",".join(words) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"{self.name} stopped with code {self.process.wait()}; its error stands above")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def race(group: str, contenders: Mapping[str, tuple[str, bool]], rounds: int) -> pd.DataFrame:
    """Call every contender (name -> (module:function:words, ours)) ``rounds`` times in turn; one row a contender.

    Columns: group, contender, seconds and cpu_seconds (the least, so that a slow first call costs nobody anything), median_seconds,
    extra_mb (the most: the first call counts, as an allocator that keeps its pages asks for no more in the second), rounds.
    """
    running = [Contender(name, prepare, ours=ours) for name, (prepare, ours) in contenders.items()]
    taken: dict[str, list[dict[str, float]]] = {one.name: [] for one in running}
    try:
        for _ in tqdm(range(rounds), desc=group, unit="round"):
            for one in running:
                taken[one.name].append(one.measure())
    finally:
        for one in running:
            one.close()
    rows = []
    for name, found in taken.items():
        frame = pd.DataFrame(found)
        least, most = frame.min(), frame.max()
        rows.append({"group": group, "contender": name, "seconds": least.seconds, "cpu_seconds": least.cpu, "extra_mb": most.mb,
                     "median_seconds": frame.seconds.median(), "rounds": len(frame)})  # fmt: skip
    return pd.DataFrame(rows)


def write(frames: list[pd.DataFrame], name: str, *, replace: str = "file", known: Collection[str] | None = None) -> None:
    """results/benchmarks/<name>.csv, machine and versions in every row.

    What these rows ``replace``: the whole "file", the "group"s that they belong to, or each the row of its own "contender". Of what was
    there before, only groups that are ``known`` stay, if that is given.
    """
    path = HOME / f"results/benchmarks/{name}.csv"
    facts = process_facts()
    machine = f"{os.cpu_count()} cores, {_processor()}"
    packages = " ".join(f"{k} {v}" for k, v in versions().items() if k in ("torch", "torchvision"))
    table = pd.concat(frames, ignore_index=True).assign(machine=machine, device=facts.get("device", "cpu"), packages=packages)
    if replace != "file" and path.exists():
        before = pd.read_csv(path, float_precision="round_trip")
        before = before if known is None else before[before.group.isin(known)]
        before = before if replace == "contender" else before[~before.group.isin(table.group)]
        rows = pd.concat([before, table]).set_index(["group", "contender"])
        order = rows.index.unique()  # a row keeps its place: the first of a group is what the others are set beside
        table = rows[~rows.index.duplicated(keep="last")].loc[order].reset_index()
    write_table(path, table)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    fast = [name for flag, name in BFLOAT16.items() if flag in said.get("flags", "").split()]
    return f"{said.get('model name', 'unknown processor')} with {' and '.join(fast) or 'no'} instructions for bfloat16"


class Peak:
    """The most memory that ``read`` tells while it lasts, looked at every 2 ms: ``top``, and ``extra`` above the start, in megabytes."""

    def __init__(self, read: Callable[[], float]) -> None:
        self.read = read

    def __enter__(self) -> "Peak":
        self.start = self.top = self.read()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.002):
            self.top = max(self.top, self.read())

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.extra = self.top - self.start


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _serve(prepare: str) -> None:
    module, function, words = prepare.split(":")
    call: Any = getattr(importlib.import_module(module), function)(*filter(None, words.split(",")))
    print("{}", flush=True)
    for asked in sys.stdin:
        given = [word for word in asked.strip().split(",") if word]
        gc.collect()
        with Peak(_resident) as memory:
            began, cpu = time.perf_counter(), time.process_time()
            told = call(*given)
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        more = told if isinstance(told, dict) else {}
        print(json.dumps({"seconds": seconds, "cpu": cpu, "mb": memory.extra, **more}), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
