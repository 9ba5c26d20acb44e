"""Progress bars: drawn on terminals and in notebooks, never into logs; a file may say how far a program is.

The file is named by the variable CAM_PROGRESS of the environment and must exist, as JSON; what a bar knows is added to it.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from cam_core.files import write_json

JOURNAL = "CAM_PROGRESS"
EVERY = 5.0  # seconds between two entries


class Bar(tqdm):  # type: ignore[type-arg]  # it is generic in its stubs alone
    """tqdm, drawn where somebody looks; TQDM_DISABLE in the environment switches the drawing off, not the file."""

    _told: ClassVar[float] = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        seen = (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")) and not os.environ.get("TQDM_DISABLE")
        nowhere = {} if seen else {"file": Nowhere()}
        super().__init__(*arguments, **{"disable": False, **options, **nowhere})

    def display(self, *arguments: Any, **options: Any) -> Any:
        """Draw, and tell the file."""
        if time.monotonic() - Bar._told >= EVERY and os.environ.get(JOURNAL):
            Bar._told = time.monotonic()
            of = self.format_dict
            left = (of["total"] - of["n"]) / of["rate"] if of["rate"] and of["total"] else None
            known = {name: of[name] for name in ("prefix", "n", "total", "unit", "postfix")}
            _tell(Path(os.environ[JOURNAL]), {**known, "seconds_left": left})
        return super().display(*arguments, **options)


class Nowhere:
    """A stream for bars that nobody looks at."""

    def write(self, _text: str) -> None:
        """Drop it."""

    def flush(self) -> None:
        """Nothing is kept."""


def _tell(file: Path, known: dict[str, Any]) -> None:
    try:  # a bar stops no work: the file may be gone with its run, the disk may be full
        write_json(file, {**json.loads(file.read_text()), **known, "updated": time.time()})
    except (OSError, ValueError):
        return
