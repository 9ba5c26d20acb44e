"""The base class of all metrics: rows per image, stored by image id, summarised at the end."""

from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor

from cam_core.data import Dataset, Example
from cam_core.metrics import store
from cam_core.metrics.statistics import Array, bootstrap, mean, wilson
from cam_core.probe import Probe
from cam_core.protocol import PROTOCOLS, Explained

CLASSES = 1000  # if an image has a row for each of its classes, the id is image * CLASSES + class


class Metric(torchmetrics.Metric):
    """A metric: what each image contributes (`measure`, rows [n,...]), and the number computed from all rows (`value`).

    A subclass sets ``name``, ``protocol`` (a name in PROTOCOLS), ``higher_is_better`` (None: neither), ``needs`` (in words, what it takes
    beside the maps) and, if it has one, ``setting``. It implements ``_measure`` and, unless it is the mean of a ``column`` of its rows in
    percent (``unit`` 1: not in percent), `each` or `value`. In `evaluate` a measure gets the probe; override `measured` (or ``truth`` of an
    `Annotated` metric) to pass something else. Metrics with equal ``shares`` have the same measure: measure once, `record` on each. Rows
    are on the CPU and are read sorted by image id, each id once, so that any split of the images over batches or processes gives the same
    bits. Many long rows lie in temporary files (`store`), which are deleted with the metric.

    A metric with several rows per image (its classes, its pairs) sets ``stride``: their ids are image * stride + index.
    """

    full_state_update = False
    name: str = ""
    protocol: str = ""
    needs: str = "probe"
    setting: str = ""
    stride: int = 1
    column: ClassVar[int] = 0
    unit: ClassVar[float] = 100
    histograms: ClassVar[bool] = False  # rows are counts of pixels and are not published per image
    row_type: ClassVar[torch.dtype] = torch.float64  # float32 if rows are long and exactly representable
    ids: list[Tensor]
    rows: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"compute_with_cache": False, **kwargs})
        self.add_state("ids", default=[], dist_reduce_fx="cat")
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @property
    def shares(self) -> Hashable:
        """Equal for metrics whose `measure` is the same."""
        return type(self).__name__, self.setting

    def measure(self, maps: Any, *needs: Any) -> Tensor:
        """Maps [B,...] and what else is needed -> what each image contributes, float64 [B,...] on the CPU. ValueError on NaN, infinity."""
        self.refuse(maps)
        return self._measure(maps, *needs).detach().cpu().double()

    def refuse(self, maps: Any) -> None:
        """ValueError if a map (or one of a list) contains NaN or infinity."""
        for part in [maps] if isinstance(maps, Tensor) else maps:
            if not torch.isfinite(part).all():
                raise ValueError(
                    f"{self.name}: a map contains NaN or infinity; pass it through maps.min_max, which makes such maps zeros, and count it"
                )

    def _refuse_size(self, maps: Tensor, probe: Probe) -> None:
        """ValueError unless there is a map [B,H,W] of the image's size for each of the probe's."""
        if maps.shape != (len(probe.images), *(size := tuple(probe.images.shape[-2:]))):
            raise ValueError(f"{self.name}: maps must have the images' size {size}, got {tuple(maps.shape)}; finish them first")

    def _refuse_range(self, maps: Tensor) -> None:
        """ValueError unless maps lie in [0, 1]."""
        if maps.numel() and not 0.0 <= float(maps.amin()) <= float(maps.amax()) <= 1.0:
            raise ValueError(
                f"{self.name}: maps must lie in [0, 1], got {float(maps.amin()):.4g} to {float(maps.amax()):.4g}; use maps.min_max"
            )

    def _measure(self, maps: Any, *needs: Any) -> Tensor:
        raise NotImplementedError

    def measured(self, maps: Any, explained: Explained) -> tuple[Sequence[int], Tensor]:
        """Ids and rows of an explained batch: `measure` of the finished ``maps`` with what else this metric takes."""
        return explained.ids, self.measure(maps, explained.probe)

    def lacking(self, dataset: Dataset) -> str:
        """What this metric needs and the data set does not have, and what to do; empty if nothing is missing."""
        return PROTOCOLS[self.protocol].lacking(dataset)

    def each(self, rows: Array) -> Array:
        """What each of the rows [n,...] counts, [n]."""
        return rows.reshape(len(rows), -1)[:, self.column]

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """The number computed from rows [n,...]: ``unit`` times the mean of `each`, unless a subclass overrides it.

        Under weights [R,n] (how often each row counts) R numbers. See `statistics`.
        """
        return self.unit * mean(self.each(rows), weights)

    def summary(self, rows: Array) -> float:
        """The number of rows [n,...]; shares in percent, never NaN."""
        return float(self.value(np.asarray(rows), None))

    def update(self, maps: Any, *needs: Any, ids: Tensor | Sequence[int] | None = None) -> None:
        """Measure a batch and keep its rows under ``ids`` (int [B], >= 0); without ids, images are numbered in the order they come."""
        self.record(self.measure(maps, *needs), ids)

    def record(self, rows: Tensor, ids: Tensor | Sequence[int] | None = None) -> None:
        """Keep what `measure` returned: of this metric or of one with equal ``shares``."""
        keys = torch.full((len(rows),), -1) if ids is None else torch.as_tensor(ids, dtype=torch.int64).cpu()
        if keys.shape != (len(rows),) or (ids is not None and bool((keys < 0).any())):
            raise ValueError(f"{self.name}: ids must be one integer >= 0 for each of {len(rows)} rows, got {tuple(keys.shape)}")
        if len(rows):
            self._keep(keys, rows)

    def _keep(self, keys: Tensor, rows: Tensor) -> None:
        store.append(self.ids, keys)
        store.append(self.rows, rows.detach().to("cpu", self.row_type))
        self._update_count = max(self._update_count, 1)  # set by hand, because torchmetrics warns if update was never called

    def per_image(self) -> tuple[NDArray[np.int64], Array]:
        """(ids int64 [n], rows [n,...]) over all processes, sorted by id; an id recorded twice (padded samplers) counts once.

        Rows are float64, long ones (``row_type``) float32; they must not be written to.
        """
        with nullcontext() if self._is_synced else self.sync_context():
            keys = store.taken(store.parts(self.ids)).astype(np.int64)
            if not len(keys):
                raise ValueError(f"{self.name}: nothing was recorded; call update(maps, ...) before reading a result")
            if keys.min() < 0 <= keys.max():
                raise ValueError(f"{self.name}: some batches came with ids and some without; pass ids always or never")
            first = np.arange(len(keys)) if keys[0] < 0 else np.unique(keys, return_index=True)[1]
            rows = store.taken(store.parts(self.rows), first)
            if not self._is_synced:  # sorted once, however often it is read
                self.ids, self.rows = [torch.from_numpy(keys[first])], [torch.from_numpy(rows)]
        rows = rows.view()
        rows.flags.writeable = False
        return np.arange(len(keys)) * self.stride if keys[0] < 0 else keys[first], rows

    def groups(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The image of every row: what a bootstrap draws."""
        return ids // self.stride

    def compute(self) -> float:
        """The summary of everything recorded."""
        return self.summary(self.per_image()[1])

    def interval(self, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Interval (low, high) of the summary over the images."""
        ids, rows = self.per_image()
        return bootstrap(rows, self.value, groups=self.groups(ids), level=level, resamples=resamples, seed=seed)


class Explaining(Metric):
    """A metric that explains other images too: its measure takes the probe and a function probe -> finished maps."""

    needs = "method"

    def measured(self, maps: Any, explained: Explained) -> tuple[Sequence[int], Tensor]:
        """`measure` with the method, under this metric's protocol."""
        return explained.ids, self.measure(maps, explained.probe, partial(PROTOCOLS[self.protocol].again, explained))


class Annotated(Metric):
    """A metric that compares maps with an annotation of the image, its ``truth``; images without it are left out.

    Under a protocol that explains every present class each class is a row, kept under image * `CLASSES` + class.
    """

    def __init__(self, protocol: str = "") -> None:
        super().__init__()
        self.protocol = protocol or self.protocol
        self._several = PROTOCOLS[self.protocol].target == "present"
        self.stride = CLASSES if self._several else 1

    def truth(self, example: Example, target: int) -> Any:
        """The annotation of one image that the measure takes, explained for class ``target``; None if the image has none."""
        raise NotImplementedError

    def beside(self, _explained: Explained, _held: Sequence[int]) -> tuple[Any, ...]:
        """What the measure takes beside the truths, for the ``held`` maps."""
        return ()

    def measured(self, maps: Tensor, explained: Explained) -> tuple[Sequence[int], Tensor]:
        """`measure` with the truths of the images that have one."""
        targets = explained.probe.targets.tolist()
        truths = [self.truth(example, target) for example, target in zip(explained.examples, targets, strict=True)]
        held = [i for i, truth in enumerate(truths) if truth is not None]
        ids = [explained.ids[i] * CLASSES + targets[i] if self._several else explained.ids[i] for i in held]
        if not held:
            return ids, torch.empty(0)
        return ids, self.measure(maps[held], [truths[i] for i in held], *self.beside(explained, held))


class Rate(Metric):
    """A metric that is the share of its rows, in percent, 0 to 100, of which `each` is a hit (0 or 1); its interval is Wilson's.

    If an image has several rows (its classes), the bootstrap draws them together, as for every metric.
    """

    def interval(self, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Wilson's interval of the rate (``resamples`` and ``seed`` are not used); with several rows per image, the bootstrap."""
        if self.stride > 1:
            return super().interval(level, resamples, seed)
        _, rows = self.per_image()
        return wilson(int(self.each(rows).sum()), len(rows), level)
