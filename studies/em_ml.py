"""CALM by EM compared with CALM by ML: an A/A test, because with the posterior at the current parameters the two gradients are equal.

    python -m studies.em_ml [--seeds 10] [--epochs 6] [--images 800]

Drawn objects at half size, a small ResNet; results/studies/em_ml.csv, one row per number. ``part`` "steps": same start, same batches; the
distance of the weights from ML's after so many updates, |theta - theta_ml| / |theta_ml|, for every way of departing from ML that we know.
For comparison: ML started with a rounding error, and ML on other batches. "end": the final results of these trainings. "seeds": accuracy
and mean -log p(y|x) on the test images, one training per objective and seed. "spread": mean and standard deviation of these over the seeds,
and of each minus ML under the same seeds; of EM with S a constant, as released, minus ML with S a constant.
"""

import argparse
import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cam_core.classifier import Classifier
from cam_core.learned import Calm, lfi_backbone
from cam_core.learned.calm import CalmHead, em_loss, of_class, posterior
from cam_core.metrics.statistics import bootstrap
from reproduce import jobs, sources
from reproduce.files import write_table
from training import recipes
from training.batches import Tensors, as_float, batches, in_memory, size
from training.loop import predict
from training.recipes import CALM, Recipe
from training.store import trained

OUT = sources.HOME / "results/studies/em_ml.csv"
AT = (1, 3, 10, 30, 100)  # updates after which the weights are compared, besides the last
SIDE = 56
Row = dict[str, object]


@dataclass(frozen=True)
class Way:
    """One training compared with ML: its objective, the relative error of its first weights, and its order of batches."""

    name: str
    objective: str = "ml"
    epsilon: float = 1e-10
    lag: int = 0  # updates between two posteriors; 0: always the current one
    nudge: float = 0.0
    order: int = 0
    probabilities: bool = False  # the released arithmetic of ML
    detached: bool = False  # S a constant for the gradient, as released
    exact: bool = False  # in float64, against ML in float64; slow, so only up to the last of AT


WAYS = (
    Way("ML, first weights 1e-7 off", nudge=1e-7),
    Way("ML, in probabilities, as released", probabilities=True),
    Way("EM, as released", "em"),
    Way("EM, without epsilon", "em", epsilon=0.0),
    Way("EM, float64", "em", exact=True),
    Way("EM, epsilon 0.01", "em", epsilon=1e-2),
    Way("EM, posterior up to 10 updates old", "em", lag=10),
    Way("EM, posterior up to 100 updates old", "em", lag=100),
    Way("ML, S a constant, as released", detached=True),
    Way("EM, S a constant, as released", "em", detached=True),
    Way("ML, other batches", order=1),
)
# the trainings from different seeds: name in the results -> how CALM is built
OBJECTIVES: dict[str, dict[str, Any]] = {
    "calm_ml": {"objective": "ml"},
    "calm_ml[probabilities]": {"objective": "ml", "probabilities": True},
    "calm_em": {"objective": "em"},
    "calm_em[lag=100]": {"objective": "em", "lag": 100},
    "calm_ml[detached]": {"objective": "ml", "detach_scale": True},
    "calm_em[detached]": {"objective": "em", "detach_scale": True},
}
DIFFERENCES = [(key, "calm_ml") for key in OBJECTIVES if key != "calm_ml"] + [("calm_em[detached]", "calm_ml[detached]")]


def small(recipe: Recipe) -> Recipe:
    """The recipe for images of half the side: with half the border."""
    return recipe.shortened(recipe.epochs, pad=4)


# --- two ways of training CALM that the package does not have ----------------------------------------------------------------------------


class InProbabilities(Calm):
    """CALM-ML by the released arithmetic: probabilities are summed over places and the logarithm is taken last.

    It differs from `calm.ml_loss` by rounding alone, but where p(y*|x) underflows the loss is infinite.
    """

    def criterion(self, log_class: Tensor, log_location: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """``-log sum_z p(y*,z|x)``, all classes multiplied."""
        return F.nll_loss((log_class + log_location[:, None]).exp().sum((2, 3)).log(), batch["labels"])

    def extra_repr(self) -> str:
        """The options, for the digest under which a trained model is kept."""
        return f"{super().extra_repr()}, probabilities"


class Earlier(nn.Module):
    """A copy of the classifier from up to ``lag`` updates ago, and the number of updates so far; not trained, but stored with the model."""

    updates: Tensor

    def __init__(self, classifier: Classifier, lag: int) -> None:
        super().__init__()
        self.classifier, self.lag = copy.deepcopy(classifier).requires_grad_(requires_grad=False), lag
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def extra_repr(self) -> str:
        """The option, for the digest under which a trained model is kept."""
        return f"lag={self.lag}"

    def follow(self, current: Classifier) -> None:
        """Count an update; before the first and every ``lag``-th after it, copy the current parameters and statistics."""
        if int(self.updates) % self.lag == 0:
            self.classifier.load_state_dict(current.state_dict())
        self.updates += 1


class Lagged(Calm):
    """CALM-EM with the posterior at parameters that are renewed every ``lag`` updates: an E-step followed by ``lag`` gradient steps.

    A lag of 1 is CALM-EM.
    """

    keeps = ("earlier",)

    def __init__(self, backbone: Classifier, num_classes: int, *, lag: int = 100, **options: Any) -> None:
        super().__init__(backbone, num_classes, "em", **options)
        self.earlier = Earlier(self.classifier, lag)

    @property
    def deviations(self) -> list[str]:
        """What differs from the release beyond the recipe."""
        return [*super().deviations, f"posterior of parameters up to {self.earlier.lag} updates old"]

    def criterion(self, log_class: Tensor, log_location: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """`calm.em_loss` with the earlier posterior."""
        joint = of_class(log_class, log_location, batch["labels"])
        # positions where the attention has become 0 since have no finite logarithm and are left out
        return em_loss(joint, torch.where(joint.isfinite(), self._earlier(batch), 0.0))

    @torch.no_grad()
    def _earlier(self, batch: dict[str, Tensor]) -> Tensor:
        if self.training:
            self.earlier.follow(self.classifier)
        activations, head = self.earlier.classifier.activations(batch["images"]), self.earlier.classifier.head
        assert isinstance(head, CalmHead)
        return posterior(of_class(head.log_class(activations), head.log_location(activations), batch["labels"]), self.epsilon)


def build(
    name: str, classes: int, objective: str = "em", *, lag: int = 0, probabilities: bool = False, detach_scale: bool = False, **options: Any
) -> Calm:
    """CALM as in the runs on drawn data: S in the gradient, uniform p(z|x) if the attention is zero everywhere.

    ``lag``: EM by `Lagged`. ``probabilities``: ML by `InProbabilities`.
    """
    options = {"uniform": True, "detach_scale": detach_scale, **options}
    backbone = lfi_backbone(name, classes)
    if lag:
        return Lagged(backbone, classes, lag=lag, **options)
    return (InProbabilities if probabilities else Calm)(backbone, classes, objective, **options)


# --- one start, the same batches -------------------------------------------------------------------------------------------------------


def walk(way: Way, name: str, data: Tensors, recipe: Recipe, seed: int) -> Iterator[Calm]:
    """Yields the model after each update of one training by ``recipe``; it is always the same object."""
    classes, kind = int(data["labels"].max()) + 1, torch.float64 if way.exact else torch.float32
    torch.manual_seed(seed)
    options = {"objective": way.objective, "epsilon": way.epsilon, "lag": way.lag, "probabilities": way.probabilities}
    model = build(name, classes, detach_scale=way.detached, **options).to(kind).train()
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learns if way.nudge else []:
        parameter.data *= 1 + way.nudge * torch.randn(parameter.shape, dtype=kind)
    optimizer = torch.optim.SGD(learns, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov)
    per_epoch = math.ceil(size(data) / recipe.batch)
    for epoch in range(recipe.epochs):
        for number, (_, batch) in enumerate(batches(data, recipe, seed + 1000 * way.order, epoch)):
            batch["images"] = as_float(batch["images"]).to(kind, memory_format=torch.channels_last)
            optimizer.param_groups[0]["lr"] = recipe.lr * recipe.rate(epoch + (number + 0.5) / per_epoch)
            optimizer.zero_grad()
            model.loss(batch)[0].backward()
            optimizer.step()
            yield model


def weights(model: nn.Module) -> Tensor:
    """All trainable parameters, concatenated, in float64."""
    return torch.cat([parameter.detach().double().flatten() for parameter in model.parameters() if parameter.requires_grad])


def steps(name: str, data: Tensors, test: Tensors, recipe: Recipe, ways: Sequence[Way] = WAYS, seed: int = 0) -> list[Row]:
    """Rows of the parts "steps" and "end": every way compared with ML in the same precision."""
    last = recipe.epochs * math.ceil(size(data) / recipe.batch)
    at = [*(update for update in AT if update < last), last]
    rows: list[Row] = []
    for exact in (False, True):
        followed, base = [way for way in ways if way.exact == exact], dict[int, Tensor]()
        for way in tqdm([Way("ML" + ", float64" * exact, exact=exact), *followed] if followed else [], desc="ways", unit="training"):
            way_on = itertools.islice(walk(way, name, data, recipe, seed), AT[-1] if exact else None)
            for update, model in enumerate(way_on, start=1):
                if update in at:
                    here = weights(model)
                    there = base.setdefault(update, here)  # ML comes first
                    distance = float((here - there).norm() / there.norm())
                    rows.append({"part": "steps", "way": way.name, "update": update, "metric": "distance", "value": distance})
            ending = {} if exact else quality(model.eval().classifier, test)
            rows += [{"part": "end", "way": way.name, "update": last, "metric": m, "value": v} for m, v in ending.items()]
    return rows


def quality(classifier: Classifier, test: Tensors) -> dict[str, float]:
    """Accuracy in percent and mean -log p(y|x) of a CALM network, whose logits are log p(y|x)."""
    scores = predict(classifier, test["images"])
    right = (scores.argmax(1) == test["labels"]).double().mean()
    return {"accuracy": 100 * float(right), "nll": float(F.nll_loss(scores.double(), test["labels"]))}


# --- different seeds -------------------------------------------------------------------------------------------------------------------


def seeds(name: str, data: Tensors, test: Tensors, recipe: Recipe, count: int, store: Path | str = jobs.STORE) -> list[Row]:
    """Rows of the part "seeds"; every training is stored, so that a killed run can be continued."""
    classes, rows = int(data["labels"].max()) + 1, list[Row]()
    plan = [(seed, key) for seed in range(count) for key in OBJECTIVES]
    for seed, key in tqdm(plan, desc="seeds", unit="training"):
        make = partial(build, name, classes, **OBJECTIVES[key])
        model, _ = trained(make, recipe, data, seed=seed, store=store, device="cpu", progress=False)
        found = quality(model.classifier, test)
        rows += [{"part": "seeds", "way": key, "seed": seed, "metric": m, "value": v} for m, v in found.items()]
    return rows


def spread(rows: list[Row]) -> list[Row]:
    """Rows of the part "spread": mean, standard deviation and, from ten seeds on, the interval of the mean over seeds.

    Of each objective, and of the `DIFFERENCES` under the same seeds.
    """
    frame = pd.DataFrame(rows)
    frame = frame[frame.part == "seeds"]
    out: list[Row] = []
    for metric, part in frame.groupby("metric", sort=False):
        wide = part.pivot_table(index="seed", columns="way", values="value")[list(OBJECTIVES)]
        columns = {key: wide[key] for key in OBJECTIVES} | {f"{key} minus {base}": wide[key] - wide[base] for key, base in DIFFERENCES}
        for key, column in columns.items():
            values = column.to_numpy(np.float64)
            low, high = bootstrap(values) if len(values) >= 10 else (None, None)
            deviation = float(values.std(ddof=1)) if len(values) > 1 else None
            facts = {"value": float(values.mean()), "deviation": deviation, "ci_low": low, "ci_high": high, "n": len(values)}
            out.append({"part": "spread", "way": key, "metric": metric, "least": values.min(), "most": values.max(), **facts})
    return out


def data_of(root: Path | str, count: int | None, side: int = SIDE) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Training and test images of the drawn objects, squashed to ``side`` pixels."""
    of = sources.source("drawn_imagenet")
    read = [of.reader(root, split, "squash", side, None) for split in (of.train, of.test)]
    train, test = (in_memory(part, progress=False) for part in read)
    kept = torch.randperm(len(train["labels"]), generator=torch.Generator().manual_seed(0))[:count]
    return {key: values[kept] for key, values in train.items()}, test


def main() -> None:
    """All parts, one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, help="of the training set; all by default")
    parser.add_argument("--backbone", default="resnet8")
    given = parser.parse_args()
    train, test = data_of(sources.find_root("drawn_imagenet"), given.images)
    recipe = small(recipes.drawn_recipe(CALM, given.epochs, lr=0.1, groups=()))
    rows = steps(given.backbone, train, test, recipe)
    rows += seeds(given.backbone, train, test, recipe, given.seeds)
    facts = {"dataset": "drawn_imagenet", "backbone": given.backbone, "epochs": given.epochs, "images": len(train["labels"])}
    frame = pd.DataFrame([*rows, *spread(rows)]).assign(**facts, tested=len(test["labels"]))
    write_table(OUT, frame)
    print(frame[frame.part == "spread"][["way", "metric", "value", "deviation", "n"]].to_string(index=False))


if __name__ == "__main__":
    main()
