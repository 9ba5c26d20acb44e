"""What all notebooks have in common, in a few calls.

    images, examples, batch = notebook.open_images(wanted)
    plain, learned, summaries = jobs.models(wanted)
    known, facts = notebook.worth(wanted, images, networks, summaries)
    notebook.save(wanted, images("squash"), classifier, [records, facts], table.per_image(), differences, summaries)

The rest of a notebook is its own subject.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cam_core import metrics
from cam_core.classifier import Classifier
from cam_core.data import Dataset, Example
from cam_core.data.example import View
from cam_core.engine import VARIABLE
from cam_core.environment import versions
from cam_core.kept import Kept
from cam_core.metrics import Metric
from cam_core.probe import Probe
from cam_core.table import Table
from data_scripts.draw import draw
from data_scripts.redrawn import follows_cue
from reproduce import jobs, report, results, sources
from reproduce.accuracy import best_on_test, network_table
from reproduce.parameters import DRAWN, Parameters
from reproduce.provenance import process_facts
from reproduce.sources import HOME

Images = Callable[[View], Dataset]
Summaries = Mapping[str, Mapping[str, Any]]  # of the trainings, by model


CONTROLS = ["random_map", "center_gaussian", "mean_activation", "grad_cam[power=2]", "grad_cam[power=0.5]"]


def faithfulness() -> list[Metric]:
    """Average Drop, Increase in Confidence and the map's mean, with the whole map, its highest half and its highest 15 %."""
    kinds = (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.MapMean)
    return [kind(keep) for keep in (1.0, 0.5, 0.15) for kind in kinds]


def open_images(wanted: Parameters, view: View = "squash") -> tuple[Images, list[Example], Tensor]:
    """The test images by view, and the first ones, which are shown, as examples and as a batch [B,3,H,W]; missing drawn data is drawn.

    A set without boxes whose networks are trained and tested on crops (`Source.view`) has this one view, whatever a protocol asks.
    """
    root = sources.find_root(wanted.dataset, wanted.data_root)
    if wanted.dataset in DRAWN and not root.exists():
        draw(root)
    images = sources.images(wanted.dataset, root, limit=wanted.limit, subset=wanted.subset, allow_partial=wanted.allow_partial)
    own = sources.source(wanted.dataset).view
    if own != "squash":
        images, view = partial(_always, images(own)), own
    data = images(view)
    examples = [data[i] for i in range(min(wanted.shown, len(data)))]
    print(f"{ran(wanted, data)} images of {wanted.dataset}, {len(data.classes)} classes")
    return images, examples, torch.stack([example.image for example in examples]).to(wanted.device)


def _always(data: Dataset, _view: View) -> Dataset:
    return data


def ran(wanted: Parameters, data: Dataset) -> str:
    """For the run card: "60 of 620", and of a list that is not all there "60 of 620, of the 50,000 of val"."""
    of = sources.coverage(wanted.dataset, data, wanted.subset)
    whole = "" if of["present"] == of["of"] else f", of the {of['of']:,} of {of['list']}"
    return f"{of['used']:,} of {of['present']:,}{whole}"


def kept(wanted: Parameters, summaries: Summaries) -> Kept | None:
    """Where `evaluate` keeps this run's rows, if it does: a folder for each state of code, packages, parameters, models and threads."""
    if wanted.rows_dir is None:
        return None
    given = wanted.rows_dir if isinstance(wanted.rows_dir, Kept) else Kept(Path(wanted.rows_dir))
    code = [
        path.read_bytes() for name in ("cam_core", "training", "reproduce", "data_scripts") for path in sorted((HOME / name).rglob("*.py"))
    ]
    asked = {name: value for name, value in vars(wanted).items() if name not in ("profile", "data_root", "out_dir", "rows_dir", "shown")}
    models = [(name, summary.get("digest")) for name, summary in summaries.items()]
    state = repr((asked, models, versions(), os.environ.get(VARIABLE), torch.get_num_threads())).encode()
    return replace(given, folder=given.folder / hashlib.sha256(b"".join([*code, state])).hexdigest()[:12])


def worth(
    wanted: Parameters, images: Images, networks: Mapping[str, Classifier], summaries: Summaries, view: View = "squash"
) -> tuple[dict[str, Table], pd.DataFrame]:
    """The quality of ``networks`` without any map: `network_table` of each under ``view``, and a frame of these and all other such facts.

    The others: best on test, if ``summaries`` have it; for drawn data, whether the answer follows the cue, in the squashed image.
    """
    known = {name: network_table(classifier, images(view), name) for name, classifier in networks.items()}
    facts = [table.records() for table in known.values()]
    facts += [best_on_test(name, summary) for name, summary in summaries.items() if "best_on_test" in summary]
    if wanted.dataset in DRAWN:
        facts += [follows_cue(classifier, images("squash"), wanted.dataset).assign(method=name) for name, classifier in networks.items()]
    return known, pd.concat(facts, ignore_index=True)


def deviations(summaries: Summaries) -> pd.DataFrame:
    """How the trainings deviate from the paper, and for which models."""
    told = [(name, deviation) for name, summary in summaries.items() for deviation in summary["deviations"]]
    frame = pd.DataFrame(told, columns=["deviates from the paper", "how"])
    return frame.groupby("how", sort=False).agg(", ".join).rename_axis(None)


def save(
    wanted: Parameters,
    data: Dataset,
    classifier: Classifier,
    records: Sequence[pd.DataFrame],
    per_image: Iterable[pd.DataFrame],
    differences: pd.DataFrame,
    summaries: Summaries,
    explain: Mapping[str, tuple[Classifier, Callable[[Probe], Tensor]]] | None = None,
    **more: object,
) -> pd.DataFrame:
    """Complete the numbers of a run and write them with their provenance (`results.save`). Returns the run card, with ``more`` at its end.

    ``records``, ``differences``: without the columns that are constant; without a column ``weights`` those of ``classifier`` are added.
    ``explain``: for each map published with a training, its network and the function that makes it.
    """
    split = sources.source(wanted.dataset).test + (f" {Path(wanted.subset).stem}" if wanted.subset else "")
    of = {"paper": wanted.paper, "dataset": wanted.dataset, "split": split, "backbone": wanted.backbone}
    weights = {"weights": classifier.weights}

    def complete(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**of, **({} if "weights" in frame else weights), recipe=wanted.recipe_name, seed=wanted.seed)

    told = ("digest", "recipe", "updates", "deviations")
    models = {name: {key: summary[key] for key in told if key in summary} for name, summary in summaries.items()}
    known = {"images": sources.coverage(wanted.dataset, data, wanted.subset), "models": models}
    digests = {"data_digest": data.digest(), "weights_digest": classifier.digest()}
    kept = jobs.spread(data)
    heat = {name: jobs.explained(network, one, kept) for name, (network, one) in (explain or {}).items()}
    frame = pd.concat([complete(one) for one in records], ignore_index=True)
    answers = {name: jobs.answered(network, kept) for name, (network, _) in (explain or {}).items()}
    results.save(wanted.out_dir, frame, per_image, known | digests, complete(differences), (kept.ids, heat) if heat else None, answers)
    return report.card({**of, **weights, "images": ran(wanted, data), "seed": wanted.seed, **process_facts(), **more})
