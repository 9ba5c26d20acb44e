"""Train the plain network, LFI-CAM and ABN from scratch under several settings and seeds; how alike are the maps of two trainings?

    CAM_DATA=... python -m studies.scratch cifar10 resnet20 --settings 0 1 2 3 4 --seeds 0
    CAM_DATA=... python -m studies.scratch cifar10 resnet20 --settings 0 --seeds 0 1 2
    CAM_DATA=... python -m studies.scratch cat_dog resnet18 --settings 0 1 2 --seeds 0
    python -m studies.scratch cifar10 resnet20 --settings 0 1 2 3 4 --seeds 0 --from-maps

Trainings: every setting under the first seed, then the other seeds under the first setting, each for the three models; on two cores the
first command takes an hour and a half to two hours, the second one hour, the third (images of 64 pixels) an hour and a half, and each
writes its own table. Every finished training is stored and a killed one resumes from its last checkpoint: repeat the command. ``--models``
adds the ablations of LFI-CAM (`studies.ablations`): equal weights, one learned 1x1 map, the 1x1 importance network, a plain network of as
many parameters.

After each training the table is written anew: results/studies/scratch-<dataset>-<backbone>.csv, with "-e<epochs>" appended for another
number of epochs than usual, "-seeds" if only the seeds differ though the data set has settings, and "-ablations" for other models, so that
no table replaces another. A folder of the same name has the maps of each training, of 500 test images (``--images``) evenly spaced over the
list, at their native resolution (`results.write_maps`; all tables of CIFAR-10 come to 5 MB, to 7 MB with ablations under three seeds).
Everything about maps is computed from these files: ``--from-maps`` recomputes it, to the same bits, without training.

Rows of ``role`` "training": one per planned training and number, without a value until it is done. "pair": agreement of the maps of two
finished trainings on the same test images (`map_stability`: IoU at the threshold, by LFI-CAM's script, at a fixed area, correlation; of the
pair, of shuffled images, and the excess), for pairs that differ in the setting ("settings") or in the seed ("seeds"). "mean": mean, least
and most over those pairs.
"""

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from cam_core import METHODS, Probe
from cam_core.classifier import Classifier
from cam_core.learned import LfiCam
from cam_core.maps import is_empty
from cam_core.metrics import map_stability
from reproduce import jobs, results, sources
from reproduce.files import write_table
from studies.ablations import LEARNS
from studies.lfi_features import bare
from training import TrainingError, recipes
from training.batches import as_float, in_memory

IMAGES = 500  # whose maps are published and compared: 50 of each of CIFAR-10's classes
MODELS = ("plain", "lfi_cam", "abn")
CHOOSES = ("lfi_cam", "lfi_cam[kernel=1]")  # models with an importance network, whose weights differ between images
DATASETS = ("cifar10", "cifar100", "stl10", "cat_dog", "drawn_imagenet", "drawn_cub")
Row = dict[str, object]
Explains = Callable[[Probe], Tensor]


class Training(NamedTuple):
    """What is trained, and how: the setting is a number in `recipes.SETTINGS`."""

    model: str
    setting: int
    seed: int


@dataclass
class Done:
    """A finished training: what it reached, and its maps [N,h,w] of the test images, by name."""

    summary: dict[str, Any]
    maps: dict[str, Tensor] = field(default_factory=dict)
    effective: float | None = None  # channels that share FIN's weight


def plan(settings: Sequence[int], seeds: Sequence[int], models: Sequence[str] = MODELS) -> list[Training]:
    """All trainings, in an order that allows comparisons early: the models take turns, settings come before seeds."""
    ways = [(setting, seeds[0]) for setting in settings] + [(settings[0], seed) for seed in seeds[1:]]
    return [Training(model, setting, seed) for setting, seed in dict.fromkeys(ways) for model in models]


def pairs(trainings: Sequence[Training]) -> Iterator[tuple[str, Training, Training]]:
    """(what differs, one, other) of the trainings of one model that differ in the setting alone or in the seed alone."""
    for one, other in itertools.combinations(trainings, 2):
        differs = {"settings": one.setting != other.setting, "seeds": one.seed != other.seed}
        if one.model == other.model and sum(differs.values()) == 1:
            yield next(what for what, yes in differs.items() if yes), one, other


# --- one training ----------------------------------------------------------------------------------------------------------------------


def train(training: Training, dataset: str, name: str, root: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The trained model (plain: its classifier) and its summary; loaded if it is stored already."""
    return LEARNS[training.model](dataset, name, root, seed=training.seed, setting=training.setting, **options)


def explainers(name: str, model: Any) -> list[tuple[str, Classifier, Explains]]:
    """(name, network, map) of everything whose stability is asked for: the model's own map, and controls on the same network."""
    if isinstance(model, Classifier):
        return [(f"{name}: {key}", model, METHODS[key]) for key in ("cam", "mean_activation")]
    own = (name, model.classifier, model.explain)
    if not isinstance(model, LfiCam):
        return [own]
    return [own, (f"{name}: cam", model.classifier, METHODS["cam"]), (f"{name}: mean_activation", bare(model), METHODS["mean_activation"])]


def looked_at(name: str, model: Any, images: Tensor, batch: int = 100) -> dict[str, Tensor]:
    """Name -> raw maps [N,h,w] of images [N,3,H,W]."""
    return {key: jobs.explained(network, explain, images, batch) for key, network, explain in explainers(name, model)}


@torch.no_grad()
def effective_channels(model: LfiCam, images: Tensor, batch: int = 100) -> float:
    """1 / sum of w², the effective number of channels that share FIN's weight, mean over images [N,3,H,W]: C if all weights are equal."""
    found: list[Tensor] = []
    hook = model.classifier.trunk.importance.register_forward_hook(lambda _module, _given, w: found.append(1 / w.double().square().sum(1)))
    try:
        for part in images.split(batch):
            model.classifier.activations(as_float(part.to(model.classifier.mean.device)))
    finally:
        hook.remove()
    return float(torch.cat(found).mean())


def finished(training: Training, images: Tensor, dataset: str, name: str, root: Path, **options: Any) -> Done:
    """Train, or load, and explain the test images."""
    model, summary = train(training, dataset, name, root, **options)
    effective = effective_channels(model, images) if training.model in CHOOSES else None
    return Done(summary, looked_at(training.model, model, images), effective)


# --- its maps on disk ------------------------------------------------------------------------------------------------------------------


def as_published(found: Done, ids: Sequence[str], file: Path) -> Done:
    """The finished training with its maps, written to ``file`` and read back; ``ids`` of the images."""
    results.write_maps(file, (ids, {key: maps.numpy() for key, maps in found.maps.items()}))
    return replace(found, maps=published_maps(file))


def maps_file(out: Path, training: Training) -> Path:
    """Where the maps of a training of the table ``out`` lie."""
    return out.with_suffix("") / f"{training.model}-{training.setting}-{training.seed}.npz"


def published_maps(file: Path) -> dict[str, Tensor]:
    """Name -> raw maps [N,h,w]."""
    return {key: torch.from_numpy(maps) for key, maps in results.read_maps(file)[1].items()}


# --- the table -------------------------------------------------------------------------------------------------------------------------


def training_rows(planned: Sequence[Training], done: dict[Training, Done], failed: dict[Training, str]) -> list[Row]:
    """Accuracy, seconds, effective channels and empty maps of every planned training, where its model has them.

    ``state`` is "done", "failed" (``why``) or "not run". ``empty_maps``: how many of the model's own maps are constant, so that its
    attention has no effect.
    """
    rows: list[Row] = []
    for one in planned:
        found = done.get(one)
        state = "done" if found else "failed" if one in failed else "not run"
        facts = {"role": "training", "model": one.model, "setting": one.setting, "seed": one.seed, "state": state}
        facts |= {"why": failed.get(one, "")}
        has = {"effective_channels": one.model in CHOOSES, "empty_maps": not one.model.startswith("plain")}
        values = dict.fromkeys(key for key in ("accuracy", "seconds", *has) if has.get(key, True))
        if found:
            reached = {
                "accuracy": found.summary.get("accuracy"),
                "seconds": found.summary["seconds"],
                "effective_channels": found.effective,
                "empty_maps": int(is_empty(found.maps[one.model]).sum()) if one.model in found.maps else None,
            }
            values = {key: reached[key] for key in values}
        digest = found.summary["digest"][:20] if found else ""
        rows += [{**facts, "metric": metric, "value": value, "digest": digest} for metric, value in values.items()]
    return rows


def compared(training: Training, done: dict[Training, Done], size: tuple[int, int]) -> list[Row]:
    """`pair_rows` of a training with those that were done before it."""
    among = [(what, one, other) for what, one, other in pairs(list(done)) if training in (one, other)]
    return [row for what, one, other in among for row in pair_rows(one, other, what, done, size)]


def pair_rows(one: Training, other: Training, what: str, done: dict[Training, Done], size: tuple[int, int]) -> list[Row]:
    """Every kind of stability of every map that two finished trainings of one model share."""
    facts = {"role": "pair", "model": one.model, "differs": what, "setting": one.setting, "seed": one.seed}
    facts |= {"other_setting": other.setting, "other_seed": other.seed}
    found = [(name, metric) for name, maps in done[one].maps.items() for metric in map_stability(maps, done[other].maps[name], size)]
    return [
        {**facts, "method": name, "metric": metric.name, "detail": metric.setting, "of": metric.of, "value": metric.compute()}
        for name, metric in found
    ]


def mean_rows(paired: Sequence[Row], planned: Sequence[Training]) -> list[Row]:
    """Mean, least and most over the pairs of each map and measure; ``n`` pairs of the ``planned`` ones."""
    if not paired:
        return []
    wanted = Counter((what, one.model) for what, one, _ in pairs(planned))
    keys = ["model", "method", "differs", "metric", "detail", "of"]
    rows: list[Row] = []
    for key, part in pd.DataFrame(paired).groupby(keys, sort=False):
        facts = dict(zip(keys, key, strict=True))
        found = {"value": part.value.mean(), "least": part.value.min(), "most": part.value.max(), "n": len(part)}
        rows.append({"role": "mean", **facts, **found, "planned": wanted[facts["differs"], facts["model"]]})
    return rows


def remaining(planned: Sequence[Training], done: dict[Training, Done], failed: dict[Training, str]) -> float:
    """Expected seconds of the remaining trainings, from those of the same model, or of any model if it has none yet."""
    taken = [(one.model, found.summary["seconds"]) for one, found in done.items()]
    if not taken:
        return float("nan")
    everyone = sum(seconds for _, seconds in taken) / len(taken)
    total = 0.0
    for one in planned:
        if one not in done and one not in failed:
            own = [seconds for model, seconds in taken if model == one.model]
            total += sum(own) / len(own) if own else everyone
    return total


def study(
    dataset: str,
    name: str,
    root: Path,
    planned: Sequence[Training],
    *,
    out: Path,
    epochs: int | None = None,
    limit: int = IMAGES,
    **options: Any,
) -> pd.DataFrame:
    """Train all that is planned, one by one, and write ``out`` after each. ``limit``: maps of how many test images.

    A training that diverges is recorded as failed and the others go on. The table is not rewritten while it would hold less than an earlier
    run has published, that is, while finished trainings are loaded.
    """
    of = sources.source(dataset)
    data = jobs.spread(sources.images(dataset, root)(of.view), limit)
    images = in_memory(data, progress=False)["images"]
    size = (images.shape[-2], images.shape[-1])
    count = epochs or recipes.SCRATCH_EPOCHS[dataset]
    facts = {"dataset": dataset, "backbone": name, "epochs": count, "images": len(images)}
    known = published(out, facts)
    done, failed, paired = dict[Training, Done](), dict[Training, str](), list[Row]()
    began = time.monotonic()
    for number, training in enumerate(planned, start=1):
        try:
            found = finished(training, images, dataset, name, root, epochs=epochs, **options)
            done[training] = as_published(found, data.ids, maps_file(out, training))
        except TrainingError as error:
            failed[training] = str(error)
        else:
            paired += compared(training, done, size)
        frame = pd.DataFrame([*training_rows(planned, done, failed), *mean_rows(paired, planned), *paired]).assign(**facts)
        if len(done) >= known:
            write_table(out, frame)
        left = f"{(time.monotonic() - began) / 60:.0f} min so far, about {remaining(planned, done, failed) / 60:.0f} min left"
        print(f"{number} of {len(planned)}: {told(training, done, failed)}; {left}", flush=True)
    if len(done) < known:
        print(f"{out.name} holds {known} finished trainings, these are {len(done)}: it stays as it is; ask for all of them, or remove it")
    return frame


def from_maps(out: Path) -> pd.DataFrame:
    """The table at ``out`` with all pairs and means computed anew, from the maps published beside it; nothing is trained."""
    frame = pd.read_csv(out, float_precision="round_trip")
    trainings = frame[frame.role == "training"]
    facts = {key: frame[key].iloc[0] for key in ("dataset", "backbone", "epochs", "images")}
    side = sources.source(facts["dataset"]).side
    planned, done, paired = list[Training](), dict[Training, Done](), list[Row]()
    for row in trainings.drop_duplicates(["model", "setting", "seed"]).itertuples():
        planned.append(Training(str(row.model), int(row.setting), int(row.seed)))
        if row.state == "done":
            file = maps_file(out, planned[-1])
            if not file.exists():
                raise FileNotFoundError(f"{file}: the table was published without these maps; run the study without --from-maps")
            done[planned[-1]] = Done({}, published_maps(file))
            paired += compared(planned[-1], done, (side, side))
    return pd.DataFrame([*trainings.to_dict("records"), *mean_rows(paired, planned), *paired]).assign(**facts)


def told(training: Training, done: dict[Training, Done], failed: dict[Training, str]) -> str:
    """One training in words, and its result."""
    found = f"accuracy {done[training].summary['accuracy']:.1f}" if training in done else f"failed ({failed[training]})"
    return f"{training.model}, setting {training.setting}, seed {training.seed}: {found}"


def published(out: Path, facts: dict[str, object]) -> int:
    """How many finished trainings the table at ``out`` already holds; none if it is of another kind."""
    if not out.exists():
        return 0
    frame = pd.read_csv(out)
    same = all((frame[key] == value).all() for key, value in facts.items())
    return int(((frame.role == "training") & (frame.state == "done") & (frame.metric == "accuracy")).sum()) if same else 0


def table(dataset: str, name: str, epochs: int | None, models: Sequence[str], settings: Sequence[int] = ()) -> Path:
    """Where the table goes: a file of its own for another number of epochs, for seeds under one of the settings, and for the ablations."""
    other = [f"e{epochs}"] if epochs not in (None, recipes.SCRATCH_EPOCHS[dataset]) else []
    seeds = ["seeds"] if len(settings) == 1 and not other and dataset in recipes.SETTINGS else []
    ablations = ["ablations"] if set(models) - set(MODELS) else []
    return sources.HOME / f"results/studies/{'-'.join(['scratch', dataset, name, *other, *seeds, *ablations])}.csv"


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("backbone", help="resnet20 on cifar10 and cifar100, resnet18 on cat_dog and stl10, resnet8 on drawn data")
    parser.add_argument("--settings", type=int, nargs="+", default=[0], help="numbers in recipes.SETTINGS; drawn data have one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="the first is that of all settings")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(LEARNS))
    parser.add_argument("--epochs", type=int, help="the data set's default if left out")
    parser.add_argument("--images", type=int, default=IMAGES, help="how many test images are explained, evenly spaced over the list")
    parser.add_argument("--from-maps", action="store_true", help="compute the table's pairs anew from its published maps; trains nothing")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    known = len(recipes.SETTINGS.get(given.dataset, (None,)))
    if not set(given.settings) <= set(range(known)):
        parser.error(f"{given.dataset} has settings 0 to {known - 1}")
    out = table(given.dataset, given.backbone, given.epochs, given.models, given.settings)
    if given.from_maps:
        write_table(out, from_maps(out))
        return
    study(
        given.dataset, given.backbone, sources.find_root(given.dataset), plan(given.settings, given.seeds, given.models),
        out=out, epochs=given.epochs, limit=given.images, device=given.device,
    )  # fmt: skip


if __name__ == "__main__":
    main()
