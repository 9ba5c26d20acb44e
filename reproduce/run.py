"""Execute one notebook: work in `<out>.part/`, check the results, and only then rename the folder.

A run folder under its final name is complete. A failing run ends as `<out>.failed/` with its log and partial notebook;
a killed one leaves `<out>.part/`, which the next attempt replaces.
"""

import ast
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cam_core import files
from cam_core.environment import ALLOCATOR
from reproduce import content, journal, layout, processes, provenance, shard
from reproduce.files import no_room, replace_folder
from reproduce.layout import LOG, is_complete


class RunError(RuntimeError):
    """A run that produced no result; the message is one sentence."""


def run(notebook: Path, out: Path, parameters: Mapping[str, Any], *, force: bool = False, threads: int | None = None) -> bool:
    """Execute `notebook` with `parameters` (and out_dir) into the folder `out`; False if it is complete for these parameters.

    threads: CPU threads of the kernel (default: the environment's). Raises RunError, in one sentence, with everything
    up to the failure kept in `<out>.failed/`; ValueError or FileNotFoundError for a wrong call, before anything runs.
    """
    if is_complete(out) and not force:
        _check_same(notebook, out, parameters)
        return False
    part, failed = out.with_name(out.name + ".part"), out.with_name(out.name + ".failed")
    os.environ.update(ALLOCATOR)
    if threads:
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)))  # the kernel inherits it
    checked = False
    with _claimed(part), _logged(part / LOG) as log:
        try:
            with journal.kept(part / journal.NAME):  # first of all, so that what is killed while it imports leaves a word of its own
                accepted, kept = _check_call(notebook, out, parameters), shard.folder(notebook, out)
                checked = True
                if out.exists() and not is_complete(out):
                    shutil.rmtree(out)  # left by a batch system that removes single outputs: an incomplete run must not keep the final name
                _execute(notebook, part, out, parameters, {"rows_dir": str(kept)} if "rows_dir" in accepted else {})
        except BaseException as error:
            if not checked and isinstance(error, ValueError | FileNotFoundError):
                shutil.rmtree(part)
                raise
            sentence = f"{notebook.name}: {no_room(error, part) or (error if isinstance(error, RunError) else _one_line(error))}"
            log.exception("the run failed")
            log.error(sentence)
            shutil.rmtree(failed, ignore_errors=True)
            part.rename(failed)
            if isinstance(error, Exception):
                raise RunError(f"{sentence}; log and partial notebook are in {failed}") from error
            raise
        replace_folder(part, out)
        shutil.rmtree(failed, ignore_errors=True)
        shutil.rmtree(shard.kept(out), ignore_errors=True)
    return True


def _execute(notebook: Path, part: Path, out: Path, parameters: Mapping[str, Any], kept: Mapping[str, str]) -> None:
    papermill = _papermill()  # takes seconds to import; a complete run is recognised without it

    started, clock = datetime.now(UTC), time.monotonic()
    known = provenance.provenance(parameters)  # the state of git when the run starts
    named = parameters.get("dataset")
    depends = content.of(notebook, named, parameters.get("data_root")) if named else None
    target = part / layout.NOTEBOOK
    drawn = sys.stderr.isatty() and not os.environ.get("TQDM_DISABLE")
    ended: list[int] = []
    try:
        papermill.execute_notebook(
            notebook,
            target,
            parameters={**parameters, "out_dir": str(part), **kept},
            kernel_name="python3",
            language="python",
            kernel_manager_class=_same_interpreter(ended),
            progress_bar=drawn,
            log_output=True,
            stderr_file=sys.stderr if drawn else None,  # the notebook's own progress bars
        )
    except Exception as error:
        raise RunError(_where(target, error, ended)) from error
    written = json.loads(target.read_text())
    meta = written["metadata"].get("papermill", {})
    if meta.get("exception") or not meta.get("end_time"):
        raise RunError("the executed notebook has no end time or carries an exception: it did not run to its end")
    if not (part / layout.METRICS).exists():
        raise RunError(f"the notebook wrote no {layout.METRICS}; call results.save(out_dir, ...) in its last cell")
    from reproduce import results  # and with it pandas

    try:
        results.read_records(part / layout.METRICS)
    except ValueError as error:
        raise RunError(str(error)) from error
    files.write_json(target, _tidy(written, part, out))
    for file in part.iterdir():
        files.flush(file)
    facts = json.loads((part / layout.FACTS).read_text()) if (part / layout.FACTS).exists() else {}
    facts |= {
        "notebook": notebook.name,
        "depends": depends,
        "notebook_digest": hashlib.sha256(notebook.read_bytes()).hexdigest(),
        "started": started.isoformat(timespec="seconds"),
        **provenance.cost(clock, facts.get("peak_memory_mib", 0.0)),
    }
    if shards := [json.loads(mark.read_text()) for mark in sorted(shard.kept(out).glob("*-of-*.json"))]:
        facts["shards"] = shards  # what each of them took
    files.write_json(part / layout.PROVENANCE, known | provenance.public(facts))


def _check_same(notebook: Path, out: Path, parameters: Mapping[str, Any]) -> None:
    """ValueError if the finished run in `out` is one of another notebook, or with other parameters."""
    made = json.loads((out / layout.PROVENANCE).read_text())
    before = {"notebook": made["notebook"], **made["parameters"]}
    now = {"notebook": notebook.name, **json.loads(json.dumps(provenance.public(parameters)))}
    told = {name: tuple(of.get(name, "not given") for of in (before, now)) for name in {**before, **now}}
    if changed := [f"{name} {then}, now {this}" for name, (then, this) in told.items() if then != this]:
        raise ValueError(f"{out} holds a run with other parameters ({'; '.join(changed)}): name another folder, or replace it with --force")


def _check_call(notebook: Path, out: Path, parameters: Mapping[str, Any]) -> list[str]:
    """The parameters that the notebook takes; ValueError or FileNotFoundError for a wrong call."""
    _papermill()
    from nbformat import NotebookNode
    from papermill.translators import PythonTranslator

    if not notebook.is_file():
        raise FileNotFoundError(f"{notebook}: no such notebook")
    if out.suffix in layout.UNFINISHED:
        raise ValueError(f"{out}: a run folder may not end in {out.suffix}, that marks an unfinished run")
    try:
        cells = json.loads(notebook.read_text())["cells"]
        own = next((cell for cell in cells if "parameters" in _tags(cell)), None)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook} is no notebook of format 4 ({_one_line(error)})") from error
    if own is None:
        raise ValueError(f"{notebook} has no cell tagged `parameters`; tag the cell that holds them")
    accepted = sorted(p.name for p in PythonTranslator.inspect(NotebookNode(own | {"source": "".join(own["source"])})))
    unknown = sorted({*parameters, "out_dir"} - set(accepted))
    if unknown:
        raise ValueError(f"{notebook} has no parameter {', '.join(unknown)}; it takes {', '.join(accepted)}")
    return accepted


def _papermill() -> Any:
    """The package, without the grammar of web addresses that jsonschema, where it finds one, builds in a second: notebooks need none."""
    grammar = "rfc3987_syntax"
    known = sys.modules.get(grammar)
    try:
        sys.modules[grammar] = known  # type: ignore[assignment]  # None: an import of it fails
        import papermill
    finally:
        if known is None:
            del sys.modules[grammar]
    return papermill


def _same_interpreter(ended: list[int]) -> Any:
    """A kernel manager that starts this very Python, whatever kernelspecs there are, and notes the exit code of a kernel that ``ended``."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class SameInterpreter(AsyncKernelManager):  # type: ignore[misc, unused-ignore]
        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=CRITICAL", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python", name="python3")

        async def _async_is_alive(self) -> bool:
            code = await self.provisioner.poll() if self.has_kernel and self.provisioner else None
            ended[:] = [] if code is None else [code]
            return bool(await super()._async_is_alive())

        is_alive = _async_is_alive

    return SameInterpreter


@contextmanager
def _claimed(part: Path) -> Iterator[None]:
    """An empty `part`, held by this process: if another process holds it, stop; replace what a dead process left."""
    if part.exists():
        stale = os.open(part, os.O_RDONLY)
        try:
            fcntl.flock(stale, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{part} is being written by another process; wait for it or end it") from error
        finally:
            os.close(stale)
        shutil.rmtree(part)
    try:
        part.mkdir(parents=True)
    except FileExistsError as error:
        raise RunError(f"{part} was just begun by another process; wait for it or end it") from error
    held = os.open(part, os.O_RDONLY)  # a lock on the folder leaves no file behind and ends with the process
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(held)


@contextmanager
def _logged(path: Path) -> Iterator[logging.Logger]:
    log = logging.getLogger("papermill")
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is told once, at the end
    handler.addFilter(lambda record: not record.getMessage().startswith("\r"))  # a progress bar's every redraw
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield log
    finally:
        log.removeHandler(handler)
        with suppress(OSError):  # what the handler kept, and a full disk does not take
            handler.close()


def _where(target: Path, error: Exception, ended: Sequence[int]) -> str:
    """Cell number and exception, in one line, from the partial notebook; ``ended``: the exit code of a kernel that ended by itself."""
    name, value = getattr(error, "ename", type(error).__name__), _one_line(getattr(error, "evalue", error))
    what = f"stopped with {name}: {value}"
    if ended and "Kernel died" in value:
        what = (
            f"stopped: its kernel was {processes.words(-ended[0])}" if ended[0] < 0 else f"stopped: its kernel ended (exit code {ended[0]})"
        )
    if not target.exists():
        return f"the kernel did not start ({what})"
    try:
        cells = [c for c in json.loads(target.read_text())["cells"] if not _error_banner(c)]
    except ValueError:  # torn by a full disk, which `no_room` tells
        return what
    states = [cell["metadata"].get("papermill", {}).get("status", "pending") for cell in cells]
    begun = [number for number, state in enumerate(states, start=1) if state != "pending"]
    number = states.index("failed") + 1 if "failed" in states else max(begun, default=0)  # a dead kernel fails no cell
    return f"cell {number} of {len(cells)} {what}" if number else what


def _tags(cell: Mapping[str, Any]) -> list[str]:
    return list(cell["metadata"].get("tags", []))


def _error_banner(cell: Mapping[str, Any]) -> bool:
    return any(tag.startswith("papermill-error-cell") for tag in _tags(cell))


def _tidy(notebook: dict[str, Any], part: Path, out: Path) -> dict[str, Any]:
    """The executed notebook with the path of its final folder, and without absolute paths."""
    meta = notebook["metadata"]["papermill"]
    meta["output_path"] = str(out / layout.NOTEBOOK)
    meta["parameters"]["out_dir"] = str(out)
    meta["parameters"].pop("rows_dir", None)  # an intermediate folder, gone when the run is complete
    notebook["metadata"]["papermill"] = provenance.public(meta)
    for cell in notebook["cells"]:
        if "injected-parameters" in _tags(cell):
            lines = "".join(cell["source"]).replace(str(part), provenance.public(str(out))).splitlines(keepends=True)
            cell["source"] = "".join(line for line in lines if not line.startswith("rows_dir = "))
    return notebook


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def parse_value(text: str) -> Any:
    """A parameter from the command line: a Python literal (0, 0.5, None, True, [1, 2]), else the text itself."""
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
