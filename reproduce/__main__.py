"""`python -m reproduce run | shard | batch | train | status | compare | publish`: runs of notebooks, batches, and their numbers."""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from reproduce import processes
from reproduce.processes import Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do it; 0 if all went well, 1 after one clear sentence on stderr."""
    options = _parser().parse_args(arguments)
    try:
        with processes.stopping():
            return int(options.do(options))
    except KeyboardInterrupt as error:
        if options.do in (_run, _batch, _train):
            kept = "start the same command again, and it resumes; what is finished is kept, trainings by the epoch"
            print(f"{str(error) or 'interrupted'}: {kept}", file=sys.stderr)
        return 128 + getattr(error, "number", signal.SIGINT)
    except (ValueError, OSError, RuntimeError) as error:
        from reproduce.files import no_room

        print(f"error: {(isinstance(error, OSError) and no_room(error, Path(error.filename or ''))) or error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    from reproduce import run

    print(f"{options.out}: {options.notebook}", file=sys.stderr, flush=True)
    made = run.run(options.notebook, options.out, _parameters(options), force=options.force, threads=options.threads)
    print(f"{options.out}: {'done' if made else 'complete already, nothing to do (--force runs it again)'}")
    return 0


def _shard(options: argparse.Namespace) -> int:
    from cam_core import files
    from reproduce import journal, provenance, shard
    from reproduce.layout import LOG

    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads)) if options.threads else {})
    mark, began = shard.mark(options.out, *options.shard), time.monotonic()
    log = options.out.with_name(options.out.name + ".failed") / LOG
    with _noted(log, "shard {} of {}".format(*options.shard)), journal.kept(mark.with_suffix(".progress")):
        from cam_core.environment import keep_pages

        keep_pages()
        shard.shard(options.notebook, options.out, _parameters(options), *options.shard)
    files.write_json(mark, provenance.cost(began))
    print("{}: shard {} of {} is measured".format(options.out, *options.shard))
    return 0


@contextmanager
def _noted(log: Path, what: str) -> Iterator[None]:
    """If what is done inside fails or is stopped, ``log`` ends with the reason."""
    try:
        yield
    except BaseException as error:
        from reproduce.files import no_room

        told = no_room(error, log) or (str(error) if isinstance(error, Stopped) else f"{type(error).__name__}: {error}")
        with suppress(OSError):  # no room
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"{traceback.format_exc()}\n{' '.join(told.split())}\n")
        if isinstance(error, Exception):
            raise RuntimeError(f"{what} stopped with {told}; traceback in {log}") from error
        raise


def _batch(options: argparse.Namespace) -> int:
    from reproduce import batch

    return batch.batch(options.profile, cores=options.cores, dry_run=options.dry_run, passed_on=options.snakemake)


def _train(options: argparse.Namespace) -> int:
    from cam_core import files
    from reproduce import journal, provenance, status

    log, began, given = options.marker.with_suffix(".log"), time.monotonic(), _parameters(options)
    state, words = status.failure(log) if options.attempt > 1 and log.exists() else ("", "")
    if state == "failed":
        raise RuntimeError(f"attempt {options.attempt}: not begun, as the one before has failed ({words}); {log}")
    log.unlink(missing_ok=True)
    first = int(os.environ.get("RANK", "") or os.environ.get("LOCAL_RANK", "0")) == 0
    with _noted(log, "training"), journal.kept(options.marker.with_suffix(".progress")) if first else nullcontext():
        import torch.distributed  # takes seconds, in which a signal may come

        from cam_core.environment import keep_pages
        from reproduce import jobs

        keep_pages()
        model = Path(jobs.train(options.paper, given, devices=options.devices, nodes=options.nodes))
    if torch.distributed.is_initialized() and torch.distributed.get_rank() > 0:  # the first process says it for all
        return 0
    facts = {"model": model.name, "digest": model.stem, **provenance.cost(began)}
    files.write_json(options.marker, {"paper": options.paper, **given, **facts})
    log.unlink(missing_ok=True)
    print(f"{options.marker}: model {model.name}")
    return 0


def _publish(options: argparse.Namespace) -> int:
    from reproduce import results

    published, refused = results.publish(options.profile, runs=options.runs, results=options.results, allow_dirty=options.allow_dirty)
    print("\n".join([*(f"published {folder}" for folder in published), *refused]))
    return 1 if refused else 0


def _compare(options: argparse.Namespace) -> int:
    from reproduce import compare

    text, agree = compare.report(options.ours, options.published)
    print(text)
    return 0 if agree else 1


def _status(options: argparse.Namespace) -> int:
    from reproduce import batch, status

    print(status.report(batch.read_profile(options.profile, check=False)))
    return 0


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    from reproduce.run import parse_value

    return {name: parse_value(value) for name, value in options.parameter}


def _part(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"expected a number of a count, as 3/7, got {text!r}")
    return int(number), int(of)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reproduce", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    named: dict[str, Any] = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}

    run = commands.add_parser("run", help="execute one notebook into a run folder")
    run.add_argument("notebook", type=Path)
    run.add_argument("--out", type=Path, required=True, help="run folder; has this name only once it is complete")
    run.add_argument("-p", "--parameter", **named)
    run.add_argument("--threads", type=_count, help="CPU threads of the notebook (default: all)")
    run.add_argument("--force", action="store_true", help="run again what is complete, with other parameters too")
    run.set_defaults(do=_run)

    shard = commands.add_parser("shard", help="measure a part of a run, which then only summarises it")
    shard.add_argument("notebook", type=Path)
    shard.add_argument("shard", type=_part, metavar="NUMBER/COUNT", help="which part, as 3/7")
    shard.add_argument("--out", type=Path, required=True, help="the folder of the run, as it is given to `run`")
    shard.add_argument("-p", "--parameter", **named)
    shard.add_argument("--threads", type=_count, help="as those of the run, for the same bits")
    shard.set_defaults(do=_shard)

    batch = commands.add_parser("batch", help="run what a profile lacks (options after -- go to Snakemake)")
    batch.add_argument("--profile", required=True, help="a file of profiles/, without .yaml")
    batch.add_argument("--cores", type=_count, help="CPU cores to use (default: all)")
    batch.add_argument("--dry-run", action="store_true", help="say what would run, and stop")
    batch.add_argument("snakemake", nargs="*", metavar="-- OPTION", help="e.g. -- --executor slurm --jobs 20")
    batch.set_defaults(do=_batch)

    train = commands.add_parser("train", help="train (or find) the models of one run")
    train.add_argument("paper", metavar="PAPER", help="increment_cam, l_cam, calm or lfi_cam")
    train.add_argument("-p", "--parameter", **named, help="as the notebook takes them: dataset, backbone, seed, epochs, device, ...")
    train.add_argument("--devices", type=_count, help="of each machine (default: as many as torchrun started, else one)")
    train.add_argument("--nodes", type=_count, help="machines (default: likewise)")
    train.add_argument("--attempt", type=_count, default=1, help="from 2 on only go on with what was killed or out of time")
    train.add_argument("--marker", type=Path, required=True, help="JSON file that will say which model it was")
    train.set_defaults(do=_train)

    status = commands.add_parser("status", help="what of a profile is done, runs, failed and is left; changes nothing")
    status.add_argument("--profile", required=True)
    status.set_defaults(do=_status)

    publish = commands.add_parser("publish", help="copy the numbers of a profile's complete runs into results/")
    publish.add_argument("--profile", required=True)
    publish.add_argument("--runs", type=Path, default=Path("runs"))
    publish.add_argument("--results", type=Path, default=Path("results"))
    publish.add_argument("--allow-dirty", action="store_true", help="also of code that differs from the commit")
    publish.set_defaults(do=_publish)

    compare = commands.add_parser("compare", help="does one folder of runs agree with another?")
    compare.add_argument("ours", type=Path)
    compare.add_argument("published", type=Path)
    compare.set_defaults(do=_compare)

    return parser


if __name__ == "__main__":
    sys.exit(main())
