"""The journal of a run or training while it runs: which process does it, since when, and (`cam_core.progress`) how far it is.

It is removed at the end; one that remains tells that its process was killed.
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from cam_core.files import write_json
from cam_core.progress import JOURNAL

NAME = "progress.json"  # in the folder of a run


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Inside, ``path`` says that this process is at work, and its progress bars and those of its children write there."""
    me = psutil.Process()
    facts = {"pid": me.pid, "created": me.create_time(), "host": platform.node(), "slurm_job": os.environ.get("SLURM_JOB_ID")}
    before = os.environ.get(JOURNAL)
    try:
        write_json(path, {**facts, "begun": time.time(), "updated": time.time()})
        os.environ[JOURNAL] = str(path.resolve())
        yield
    finally:
        os.environ.pop(JOURNAL, None)
        if before is not None:
            os.environ[JOURNAL] = before
        path.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any] | None:
    """The journal, or None if there is none."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None


def alive(journal: dict[str, Any]) -> bool | None:
    """Whether the process of a journal runs; None if it is, or was, one of another machine."""
    if journal["host"] != platform.node():
        return None
    try:
        return bool(abs(psutil.Process(journal["pid"]).create_time() - journal["created"]) < 1)
    except psutil.Error:
        return False
