"""What stands in the way of a batch, found before its first job: data, weights, device, room on the disk, folders without write access."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reproduce.batch import Job, Profile

# Bytes, measured: a notebook with its pictures and maps 5 MB, the values of one image under all methods 25 kB. Three networks as large as
# ResNet-50 and the checkpoint of the one that trains (weights, momentum) take 0.5 GB; the networks for drawn data and CIFAR are small.
PRETRAINED = ("imagenet", "voc07", "cub")
ROOM, PER_IMAGE, LARGE, SMALL = 5e6, 25e3, 0.5e9, 10e6
IMAGES = {"imagenet": 50_000, "voc07": 4952, "cub": 5794, "cifar10": 5000, "cifar100": 10_000, "stl10": 8000, "cat_dog": 2000}


def faults(profile: "Profile", pending: set[str], *, queued: bool = False) -> list[str]:
    """A sentence for each thing that is wrong with what is ``pending``. ``queued``: elsewhere, so device and engine are not looked for."""
    jobs = [job for job in profile.jobs if f"{job.folder}/provenance.json" in pending or job.marker in pending]
    unset = [variable for variable in profile.needs if not os.environ.get(variable)]
    found = [f"profile {profile.name} needs {name} in the environment (profiles/{profile.name}.yaml says what for)" for name in unset]
    for job in jobs:
        found += _of_job(job, queued, unset)
    found += _folders(jobs)
    return list(dict.fromkeys(found))


def _of_job(job: "Job", queued: bool, unset: list[str]) -> Iterator[str]:
    from cam_core.pretrained import weights_fault
    from reproduce import parameters

    wanted = parameters.read(job.paper, job.parameters, here=False)
    wrong = dict(parameters.machine_faults(wanted))
    for what in ("device", "engine"):
        if what in wrong and not queued:
            yield str(wrong[what])
    if "data" in wrong:
        yield from [] if "CAM_DATA" in unset else [str(wrong["data"])]
    else:
        yield from _data_fault(wanted.dataset, wanted.data_root, job.train)
    if wanted.dataset in PRETRAINED and job.paper != "lfi_cam":  # which trains from scratch
        yield from filter(None, [weights_fault(wanted.backbone)])


@cache
def _data_fault(dataset: str, data_root: Path | str | None, trains: bool) -> tuple[str, ...]:
    """What is wrong with the lists of a data set; that of the training images alone if something ``trains``."""
    from reproduce.sources import find_root, images

    root = find_root(dataset, data_root)
    if not root.is_dir():
        return (f"{root} is missing, and a training needs it: python -m data_scripts.draw --out {root}",) if trains else ()
    try:
        for split in ("test", "train") if trains else ("test",):
            images(dataset, root, split, limit=1)("squash")
    except (OSError, ValueError) as error:
        return (str(error),)
    return ()


def _folders(jobs: "list[Job]") -> Iterator[str]:
    places = {Path(name) for job in jobs for name in (job.folder, job.marker)}
    for place in sorted({next(p for p in folder.absolute().parents if p.exists()) for folder in places} | {Path().absolute()}):
        if not place.is_dir():
            yield f"{place} is no folder: move that file"
            continue
        try:
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            yield f"{place} cannot be written ({error.strerror}): make it writable, or make room"
    need = sum(room(job) for job in jobs)
    free = shutil.disk_usage(Path("runs") if Path("runs").exists() else Path()).free
    if free < need:
        yield f"runs/ has {free / 1e9:.1f} GB free, and these runs need about {need / 1e9:.1f} GB: make room, or link runs/ to another disk"


def room(job: "Job") -> float:
    """Bytes that a run and its training take at most."""
    images = job.extra.get("limit") or IMAGES.get(job.dataset, 100)
    return ROOM + PER_IMAGE * images + job.train * (SMALL if job.dataset not in PRETRAINED else LARGE)
