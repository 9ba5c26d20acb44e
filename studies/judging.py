"""How well does a metric order maps? Its order of a list of maps against the order of a known truth, over several networks.

What `studies.parts` (the causal truth of drawn birds) and `studies.grids` (the truth by construction) have in common.
"""

import copy
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_core import METHODS, metrics
from cam_core.classifier import Classifier
from cam_core.learned.plain import Loss, Plain
from cam_core.maps import at_mean
from cam_core.methods import Method, method
from cam_core.methods.perturbation import rise
from cam_core.metrics.f_fidelity import MOST
from cam_core.metrics.statistics import Array, bootstrap
from cam_core.probe import Probe
from cam_core.table import Table
from reproduce import jobs
from training import recipes
from training.batches import Tensors
from training.store import trained

ONE_PASS = (
    "cam", "grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "eigen_cam", "ablation_cam", "fd_cam", "saliency",
    "guided_backprop",
)  # fmt: skip
SCORED = ("score_cam", "increment_cam", "group_cam")  # a pass for every channel, or for groups of them
CONTROLS = ("mean_activation", "random_map", "edges", "center_gaussian", "all_ones", "fake_cam", "grad_cam[power=2]", "grad_cam[power=0.5]")
RISE_MASKS, STEP, SUBSETS = 100, 896, 50  # fewer than published, to be quick
MEAN = 0.3
Key = tuple[str, str]  # name and setting of a metric


def maps_to_judge(*learned: Method, leave_out: Sequence[str] = ()) -> list[Method]:
    """One-pass methods, those that score channels, RISE with few masks, what was learned, and the controls.

    ``leave_out``: names of methods that do not exist, or are another one, for these networks.
    """
    few = replace(METHODS["rise"], function=partial(rise, samples=RISE_MASKS), passes=str(RISE_MASKS))
    return [one for one in [*map(method, (*ONE_PASS, *SCORED)), few, *learned, *map(method, CONTROLS)] if one.name not in leave_out]


class DropAtEqualMean(metrics.AverageDrop):
    """Average Drop of every map brought to the mean `MEAN`: no map gains by hiding little."""

    def __init__(self) -> None:
        super().__init__()
        self.setting = "equal mean"

    @property
    def shares(self) -> Hashable:
        """With no other metric: these are other maps."""
        return self.setting

    def _measure(self, maps: Tensor, probe: Probe, labels: Tensor | Sequence[int] | None = None) -> Tensor:
        return super()._measure(at_mean(maps, MEAN), probe, labels)


def asking_the_network(surrogate: Classifier, step: int = STEP) -> list[metrics.Metric]:
    """Every metric of faithfulness, those of agreement among them; max-sensitivity moves an image four times instead of ten.

    ``surrogate``: F-Fidelity's second network (`bearing`); ``step``: pixels that insertion and deletion change at once.
    """
    masked = (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.AverageGain, metrics.CorrectUnderMask)
    return [
        *(kind(keep) for keep in (1.0, 0.5, 0.15) for kind in masked),
        *(metrics.AverageDrop(fill="mean"), metrics.AverageDrop(0.5, "mean", "score_cam"), DropAtEqualMean()),
        *(metrics.Insertion(step), metrics.Deletion(step), metrics.CorrectAfterRemoval(0.1), metrics.CorrectAfterRemoval(0.5)),
        *(kind(0.2) for kind in (metrics.RoadMorf, metrics.RoadLerf, metrics.RoadCombined)),
        *(metrics.ADCC(), metrics.Coherency(), metrics.Complexity(), metrics.ARCC()),
        *(metrics.SensitivityN(0.2, SUBSETS), metrics.SensitivityN(0.5, SUBSETS), metrics.Infidelity(sides=2)),
        *(metrics.FFidelityPlus(surrogate, samples=4), metrics.FFidelityMinus(surrogate, samples=4), metrics.MaxSensitivity(samples=4)),
    ]


def on_the_object() -> list[metrics.Metric]:
    """Every metric of place that an object's box or mask can answer."""
    return [
        *(metrics.EnergyPointingGame(), metrics.MaximumInBox(), metrics.PixelPrecision(), metrics.FalseActivation(0.2, "image")),
        *(metrics.MaxBoxAcc(), metrics.MaxBoxAccV2(), metrics.BoxIoU(), metrics.LocalizationError(), metrics.PxAP()),
    ]


# ---------------------------------------------------------------- F-Fidelity's second network


class Bearing(Plain):
    """A copy of a network that learns to bear what F-Fidelity removes: up to `MOST` of 14 x 14 cells show the mean colour."""

    name = "bearing"

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Cross-entropy of images with a random share of their cells removed."""
        images = batch["images"]
        noise = torch.rand(len(images), 1, 14, 14, device=images.device)
        kept = (noise >= MOST * torch.rand(len(images), 1, 1, 1, device=images.device)).to(images)
        shown = torch.nn.functional.interpolate(kept, images.shape[-2:])
        return super().loss({**batch, "images": torch.lerp(self.classifier.mean.expand_as(images), images, shown)})


def bearing(classifier: Classifier, train: Tensors, epochs: int = 4) -> Classifier:
    """`Bearing`, fine-tuned from ``classifier``, kept in the store of trainings."""
    recipe = recipes.drawn_recipe(recipes.LFI_CAM, epochs, lr=0.01, pad=0)
    model, _ = trained(lambda: Bearing(copy.deepcopy(classifier)), recipe, train, store=jobs.STORE, device="cpu", progress=False)
    return model.classifier.frozen()


# ---------------------------------------------------------------- agreement


def kendall(first: Array, second: Array, close: float = 1e-9) -> Array:
    """Kendall's tau-b of values [...,M] of M maps; 0 where one side does not order them at all. Equal up to rounding is a tie."""
    i, j = np.triu_indices(first.shape[-1], 1)

    def signs(values: Array) -> Array:
        apart = values[..., i] - values[..., j]
        return np.where(np.abs(apart) <= close * np.maximum(1, np.abs(values).max(-1, keepdims=True)), 0, np.sign(apart))

    a, b = signs(np.asarray(first)), signs(np.asarray(second))
    norm = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.asarray(np.where(norm > 0, (a * b).sum(-1) / np.where(norm > 0, norm, 1), 0.0))


def common_ids(tables: Iterable[Table], names: Sequence[str], keys: Iterable[Key]) -> list[NDArray[np.int64]]:
    """Of each table the images that every map has a row for under every metric."""
    every = [[table.metrics[name, *key].per_image()[0] for name in names for key in keys] for table in tables]
    return [first[np.all([np.isin(first, other) for other in others], axis=0)] for first, *others in every]


Asked = list[tuple[metrics.Metric, Array]]  # of every map: the metric, and its rows of the images in common


def asked(table: Table, names: Sequence[str], key: Key, ids: NDArray[np.int64]) -> Asked:
    """What `values` orders, read once."""
    kept = [table.metrics[name, *key] for name in names]
    return [(metric, rows[np.searchsorted(own, ids)]) for metric in kept for own, rows in [metric.per_image()]]


def values(found: Asked, weights: Array | None) -> Array:
    """The metric's number for each map, with the sign turned where lower is better: [M], or [R,M] under weights [R,n]."""
    made = [(1 if metric.higher_is_better else -1) * metric.value(rows, weights) for metric, rows in found]
    return np.stack(np.broadcast_arrays(*made), -1)


def agreement(tables: Mapping[str, Table], names: Sequence[str], truth: Key, keys: Sequence[Key], resamples: int = 500) -> pd.DataFrame:
    """Kendall's tau between each metric's order of the maps and the truth's: a row for each network, and their mean ("all").

    The interval of each is by bootstrap over the images; an image of several networks is drawn with all of its answers.
    """
    ids = common_ids(tables.values(), names, [truth, *keys])
    rows = []
    networks = np.repeat(np.arange(len(ids)), [len(part) for part in ids])
    images = np.array([table.image_ids[i] for table, part in zip(tables.values(), ids, strict=True) for i in part])
    of_truth = [asked(table, names, truth, part) for table, part in zip(tables.values(), ids, strict=True)]
    for key in keys:
        of_key = [asked(table, names, key, part) for table, part in zip(tables.values(), ids, strict=True)]

        def taus(chosen: Array, weights: Array | None, of_key: Sequence[Asked] = of_key) -> Array:
            """The mean tau over the networks in ``chosen`` (positions)."""
            each = []
            for number, (found, true) in enumerate(zip(of_key, of_truth, strict=True)):
                own = networks[chosen.astype(int)] == number
                if own.any():
                    of = None if weights is None else weights[:, own]
                    each.append(kendall(values(found, of), values(true, of)))
            return np.asarray(np.mean(each, 0))

        for number, network in [*enumerate(tables), (-1, "all")]:
            chosen = np.flatnonzero((networks == number) | (number < 0)).astype(np.float64)
            low, high = bootstrap(chosen, taus, groups=images[chosen.astype(int)], resamples=resamples)
            rows.append({"network": network, "truth": truth[0], "metric": key[0], "setting": key[1], "kendall": float(taus(chosen, None)),
                         "ci_low": low, "ci_high": high, "n": len(np.unique(images[chosen.astype(int)])), "maps": len(names)})  # fmt: skip
    return pd.DataFrame(rows)


def numbers(tables: Mapping[str, Table], names: Sequence[str], keys: Sequence[Key]) -> pd.DataFrame:
    """What every metric says of every map, on each network: what `agreement` has ordered."""
    rows = []
    for network, table in tables.items():
        for name in names:
            for key in keys:
                kept = table.metrics[name, *key]
                rows.append({"network": network, "method": name, "metric": key[0], "setting": key[1], "value": kept.compute(),
                             "better": "higher" if kept.higher_is_better else "lower", "n": len(kept.per_image()[0])})  # fmt: skip
    return pd.DataFrame(rows)
