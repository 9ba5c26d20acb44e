"""The training loop: the same bits after being killed, an order that follows from the seed, failures that name the batch."""

import json
import math
import re
import threading
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms.v2 import functional as geometry
from tqdm import tqdm

from cam_core.data import Dataset, Example
from cam_core.data.example import Annotation
from cam_core.learned.calm import Calm
from cam_core.learned.lcam import LCam
from cam_core.learned.lfi import LfiCam, lfi_backbone
from cam_core.learned.plain import Plain
from studies.em_ml import Lagged
from training import store
from training.batches import apart, augment, batches, center, derived_seed, in_memory, in_order, middle, window
from training.cached import features
from training.loop import BEST, CHECKPOINT, TrainingError, accuracy, fit, kept_state
from training.recipes import L_CAM, LFI_CAM_IMAGENET, PLAIN, Recipe
from training.store import SUMMARY, trained

SHORT = PLAIN.shortened(3, batch=8, lr=0.05, pad=2)


def data(count: int = 20, side: int = 16) -> dict[str, torch.Tensor]:
    """Images of two classes told apart by which half is bright."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 90, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, : side // 2] += 150 * label.to(torch.uint8)
        image[:, side // 2 :] += 150 * (1 - label).to(torch.uint8)
    return {"images": images, "labels": labels}


def model(kind: str = "plain") -> nn.Module:
    torch.manual_seed(1)
    backbone = lfi_backbone("resnet8", 2)
    with_dropout = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Dropout(0.3), nn.Linear(64, 2))
    if kind == "plain":
        backbone.head = with_dropout
        return Plain(backbone)
    if kind == "calm":
        return Calm(backbone, 2, uniform=True)
    return LfiCam(backbone) if kind == "lfi" else LCam(backbone, "img")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop catches it, nothing is written on the way out."""


def killed_after(steps: int, victim: nn.Module) -> nn.Module:
    original, count = victim.loss, 0

    def loss(_, batch):
        nonlocal count
        if count == steps:
            raise Killed
        count += 1
        return original(batch)

    victim.loss = types.MethodType(loss, victim)
    return victim


@pytest.mark.parametrize("kind", ["plain", "lfi", "calm", "lcam"])
@pytest.mark.parametrize("steps", [2, 3, 7])
def test_killed_and_resumed_ends_with_the_same_bits(kind, steps, tmp_path):
    """Three batches an epoch: killed inside the first epoch, between two, inside the third. Dropout and momentum are in play."""
    whole = model(kind)
    expected = fit(whole, SHORT, data(), seed=3, device="cpu", progress=False)
    with pytest.raises(Killed):
        fit(killed_after(steps, model(kind)), SHORT, data(), out=tmp_path, every=0, seed=3, device="cpu", progress=False)
    torch.manual_seed(99)  # the state of the global generator must not matter
    torch.rand(5)
    resumed = model(kind)
    summary = fit(resumed, SHORT, data(), out=tmp_path, every=0, seed=3, device="cpu", progress=False)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert summary["history"] == expected["history"]
    assert not list(tmp_path.glob(".*"))


def test_another_seed_gives_another_model():
    states = []
    for seed in (0, 0, 1):
        made = model()
        fit(made, SHORT, data(), seed=seed, device="cpu", progress=False)
        states.append(torch.cat([value.flatten().double() for value in made.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_fit_leaves_the_global_generator_alone():
    made, state = model(), torch.random.get_rng_state()
    fit(made, replace(SHORT, epochs=1), data(), device="cpu", progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_checkpoint_of_another_recipe_is_refused(tmp_path):
    fit(model(), SHORT, data(), out=tmp_path, device="cpu", progress=False)
    with pytest.raises(TrainingError, match="another model, recipe"):
        fit(model(), replace(SHORT, lr=0.01), data(), out=tmp_path, device="cpu", progress=False)


def test_checkpoint_of_another_objective_is_refused(tmp_path):
    """CALM by EM and by ML have the same tensors; a finished training of one must not pass for the other's."""
    em, ml = (Calm(lfi_backbone("resnet8", 2), 2, objective, uniform=True) for objective in ("em", "ml"))
    fit(em, SHORT.shortened(1), data(), out=tmp_path, device="cpu", progress=False)
    with pytest.raises(TrainingError, match="another model, recipe"):
        fit(ml, SHORT.shortened(1), data(), out=tmp_path, device="cpu", progress=False)


def test_nan_loss_names_the_batch_and_keeps_the_checkpoint(tmp_path):
    victim = model()
    original, count = victim.loss, 0

    def loss(_, batch):
        nonlocal count
        count += 1
        value, log = original(batch)
        return (value * math.nan if count == 5 else value), log

    victim.loss = types.MethodType(loss, victim)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(derived_seed(0, 1))).tolist()[8:16]
    with pytest.raises(TrainingError, match=f"loss is nan in epoch 1, batch 1 \\(examples \\{str(order)[:-1]}"):
        fit(victim, SHORT, data(), out=tmp_path, every=0, device="cpu", progress=False)
    with safe_open(tmp_path / CHECKPOINT, "pt") as content:
        at = json.loads(content.metadata()["progress"])
    assert (at["epoch"], at["batch"]) == (1, 1)
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / CHECKPOINT).values())


class Told(nn.Module):
    """Losses of 0.25, 0.5, ... and accuracies of 10, 20, ... percent; a step adds 0.01 s to ``clock``; killed after ``last`` of them."""

    def __init__(self, clock: list[float], last: int) -> None:
        super().__init__()
        self.weight, self.clock, self.last = nn.Parameter(torch.zeros(())), clock, last

    def loss(self, batch):
        step = len(self.clock)
        if step > self.last:
            raise Killed
        self.clock.append(0.01)
        return 0.25 * step + 0 * self.weight, {"accuracy": torch.tensor(10.0 * step)}


def test_the_bar_counts_batches_and_says_loss_accuracy_and_images_a_second(monkeypatch, tmp_path, capsys):
    """20 images in batches of 8, 8 and 4, twice. Killed after four and resumed it goes on there, and the time between does not count."""
    said, clock = [], [0.0]

    class Bar(tqdm):
        def set_postfix_str(self, s="", refresh=True):
            super().set_postfix_str(s, refresh)
            said.append((self.n, self.total, str(self)))

    monkeypatch.setattr("training.loop.Bar", Bar)
    monkeypatch.setattr("training.loop.time", types.SimpleNamespace(monotonic=lambda: sum(clock)))
    recipe, options = Recipe("told", 2, 8, lr=0.1, weight_decay=0), {"out": tmp_path, "every": 0, "device": "cpu"}
    with pytest.raises(Killed):
        fit(Told(clock, 4), recipe, {"x": torch.arange(20)}, **options)
    clock[0] = 100.0
    fit(Told(clock, 6), recipe, {"x": torch.arange(20)}, **options)
    assert [(n, total) for n, total, _ in said] == [(n, 6) for n in range(1, 7)]
    expected = [  # 8, 16, 20, 28, 36, 40 images in 0.01 to 0.06 s
        "epoch 0, loss 0.25, accuracy 10, 800 images/s", "epoch 0, loss 0.5, accuracy 20, 800 images/s",
        "epoch 0, loss 0.75, accuracy 30, 667 images/s", "epoch 1, loss 1, accuracy 40, 700 images/s",
        "epoch 1, loss 1.25, accuracy 50, 720 images/s", "epoch 1, loss 1.5, accuracy 60, 667 images/s",
    ]  # fmt: skip
    for (n, _, line), text in zip(said, expected, strict=True):
        assert line.startswith("told:")
        assert f" {n}/6 " in line
        assert text in line
        assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, ", line), line  # time passed < time left
    shown = capsys.readouterr()
    assert expected[-1] in shown.err
    assert shown.out == ""


def test_without_progress_nothing_is_shown(capsys):
    fit(Told([0.0], 6), Recipe("told", 2, 8, lr=0.1, weight_decay=0), {"x": torch.arange(20)}, device="cpu", progress=False)
    assert capsys.readouterr() == ("", "")


class Looked(nn.Module):
    """Keeps the images that its loss is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.zeros(())), []

    def loss(self, batch):
        self.seen.append(batch["images"])
        return 0 * self.weight, {}


@pytest.mark.parametrize("floating", [False, True])
def test_images_reach_the_loss_channels_last_and_in_0_to_1(floating):
    """Pixels 0..255 as v / 255 in float32; floating images as they are. Two batches of training, one of held-out images."""
    rows, recipe = data(), replace(SHORT, epochs=1, flip=False, pad=0, held_out=0.4, criterion="loss")
    expected = torch.from_numpy(rows["images"].numpy() / 255)  # float64
    if floating:
        rows["images"] = expected
    made = Looked()
    fit(made, recipe, rows, device="cpu", progress=False)
    among, held_out = apart(rows, 0.4, 0)
    order = [index for part in (among, held_out) for index, _ in batches(rows, recipe, 0, 0, among=part)]
    assert [len(index) for index in order] == [8, 4, 8]
    for index, images in zip(order, made.seen, strict=True):
        assert images.dtype == (torch.float64 if floating else torch.float32)
        assert images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(images.double(), expected[index], rtol=1e-7, atol=0)


@pytest.mark.parametrize("precision, dtype", [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_the_recipes_precision_is_what_the_convolutions_compute_in(precision, dtype):
    victim, seen = model("lfi"), {True: set(), False: set()}
    for module in victim.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda conv, _given, made: seen[conv.training].add(made.dtype))
    fit(victim, replace(SHORT, epochs=1, precision=precision, held_out=0.2), data(), device="cpu", progress=False)
    assert seen == {True: {dtype}, False: {dtype}}  # on images trained on, and on those held out
    assert {p.dtype for p in victim.parameters()} == {torch.float32}


@pytest.mark.parametrize(("step", "where"), [(2, "epoch 0, batch 1"), (9, "epoch 2, batch 2")])
@pytest.mark.parametrize("kept", [True, False])
def test_a_gradient_that_is_not_finite_names_its_batch(step, where, kept, tmp_path):
    """The loss is finite, the weights after it are not: in the middle, and at the last update, after which no loss would tell."""
    victim = model()
    original, count = victim.loss, 0

    def loss(_, batch):
        nonlocal count
        count += 1
        value, log = original(batch)
        return (value + (next(victim.parameters()) * 0).sum().sqrt() if count == step else value), log

    victim.loss = types.MethodType(loss, victim)
    with pytest.raises(TrainingError, match=f"a weight is not finite after {where} "):
        fit(victim, SHORT, data(), out=tmp_path if kept else None, every=0, device="cpu", progress=False)
    files = list(tmp_path.iterdir())
    assert len(files) == kept
    assert all(torch.isfinite(value).all() for file in files for value in load_file(file).values())


def test_a_criterion_that_the_model_does_not_log_is_refused_at_once():
    rows = {"images": data()["images"], "targets": torch.eye(2)[data()["labels"]]}
    several = Plain(lfi_backbone("resnet8", 2), multi_label=True)
    with pytest.raises(ValueError, match="Plain logs no accuracy, by which 'plain' chooses its best weights: take a criterion among loss"):
        fit(several, replace(SHORT, held_out=0.4), rows, device="cpu", progress=False)
    summary = fit(several, replace(SHORT, held_out=0.4, criterion="loss"), rows, device="cpu", progress=False)
    assert set(summary["best"]) == {"epoch", "loss"}
    with pytest.raises(ValueError, match="got the criterion 'nll'"):
        replace(SHORT, criterion="nll")


def test_first_updates_are_sgd_by_hand():
    """One batch of everything, two updates in float64: v = g + wd·w, w -= lr (g + .9 v) for nesterov, biases at twice the rate."""
    recipe = Recipe("hand", 2, 4, lr=0.1, weight_decay=0.01, milestones=(1,), decay=0.5, nesterov=True, groups=((r"bias$", 2.0),))

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = (
                nn.Parameter(torch.tensor(1.0, dtype=torch.float64)),
                nn.Parameter(torch.tensor(0.0, dtype=torch.float64)),
            )

        def loss(self, batch):
            return ((self.weight * batch["x"] + self.bias - batch["y"]) ** 2).mean(), {}

    x, y = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([2.0, 3, 5, 9]).double()
    made = Line()
    history = fit(made, recipe, {"x": x, "y": y}, device="cpu", progress=False)["history"]
    w, b, v, losses = 1.0, 0.0, [0.0, 0.0], []
    for rate in (0.1, 0.05):
        error = [w * float(i) + b - float(j) for i, j in zip(x, y, strict=True)]
        losses.append(sum(e * e for e in error) / 4)
        gradient = [sum(2 * e * float(i) for e, i in zip(error, x, strict=True)) / 4 + 0.01 * w, sum(2 * e for e in error) / 4 + 0.01 * b]
        v = [0.9 * old + g for old, g in zip(v, gradient, strict=True)]
        w, b = w - rate * (gradient[0] + 0.9 * v[0]), b - 2 * rate * (gradient[1] + 0.9 * v[1])
    assert (made.weight.item(), made.bias.item()) == pytest.approx((w, b), rel=1e-12)
    assert [epoch["loss"] for epoch in history] == pytest.approx(losses, rel=1e-12)


def test_frozen_batchnorm_keeps_its_statistics():
    made = model("lfi")
    before = {key: value.clone() for key, value in made.state_dict().items() if "running" in key}
    fit(made, replace(SHORT, epochs=1, frozen_batchnorm=True), data(), device="cpu", progress=False)
    after = made.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    fit(made, replace(SHORT, epochs=1), data(), device="cpu", progress=False)
    assert not any(torch.equal(value, made.state_dict()[key]) for key, value in before.items())


def test_every_example_once_an_epoch_and_resumed_in_the_middle():
    recipe, rows = replace(SHORT, flip=False, pad=0), {"x": torch.arange(20)}
    whole = list(batches(rows, recipe, 4, 1))
    assert sorted(i for index, _ in whole for i in index) == list(range(20))
    assert all(batch["x"].tolist() == index for index, batch in whole)
    rest = list(batches(rows, recipe, 4, 1, first=2))
    assert [index for index, _ in rest] == [index for index, _ in whole[2:]]
    assert [i for i, _ in batches(rows, recipe, 4, 2)] != [i for i, _ in whole]


def test_processes_share_a_batch_with_the_same_augmentation():
    alone = [batch for _, batch in batches(data(), SHORT, 0, 0)]
    shares = [[batch for _, batch in batches(data(), SHORT, 0, 0, rank=rank, world=2)] for rank in (0, 1)]
    for number, batch in enumerate(alone):
        for rank in (0, 1):
            assert torch.equal(batch["images"][rank::2], shares[rank][number]["images"])


def test_augmentation_by_hand():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    draws = torch.tensor([[0.7, 0.0, 0.99], [0.2, 0.5, 0.5]])
    padded = augment(images, draws, flip=True, pad=1)  # corners (0, 2) and (1, 1) in the 6 x 6 canvas; the second mirrored
    assert torch.equal(padded[0, :, 1:, :3], images[0, :, :3, 1:])
    assert (padded[0, :, 0] == 0).all()
    assert (padded[0, :, :, 3] == 0).all()
    assert torch.equal(padded[1], images[1].flip(-1))
    assert torch.equal(augment(images, draws, crop=2)[0], images[0, :, 0:2, 2:4])
    assert torch.equal(center(images, 2), images[:, :, 1:3, 1:3])
    with pytest.raises(ValueError, match="does not fit"):
        augment(images, draws, crop=5)


def test_window_of_a_resized_crop_by_hand():
    """First try too large, second fits: area 0.5 of 20 x 30, aspect 1; then row and column out of what room there is."""
    draw = torch.full((23,), 0.5, dtype=torch.float64)
    draw[1:3] = torch.tensor([0.99, 0.0])
    draw[3:5] = torch.tensor([0.99, 0.5])  # shares between 0 and 1: the share itself
    draw[13] = 0.0  # aspect 3/4: 24 pixels and more high
    side = round(math.sqrt(300))
    assert window((20, 30), draw, (0.0, 1.0)) == (int(0.99 * (20 - side + 1)), 0, side, side)
    draw[3:13], draw[13:] = 1.0, 0.0  # no try fits: the largest middle window of an aspect within 3/4 and 4/3
    assert window((20, 60), draw, (0.0, 1.0)) == (0, 16, 20, 27)
    assert window((60, 20), torch.cat([draw[:13], torch.full((10,), 1.0)]), (0.0, 1.0)) == (16, 0, 27, 20)


def test_windows_are_torchvisions():
    """The same distribution as RandomResizedCrop's: means of area, aspect and centre over 4000 draws; all inside."""
    from torchvision.transforms import v2

    generator = torch.Generator().manual_seed(0)
    ours = [window((90, 128), draw, (0.08, 1.0)) for draw in torch.rand(4000, 23, generator=generator, dtype=torch.float64)]
    transform, image = v2.RandomResizedCrop(8, scale=(0.08, 1.0)), torch.zeros(3, 90, 128)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [transform.make_params([image]) for _ in range(4000)]
    theirs = [tuple(draw[key] for key in ("top", "left", "height", "width")) for draw in drawn]
    for windows in (ours, theirs):
        top, left, height, width = torch.tensor(windows).T
        assert ((top >= 0) & (left >= 0) & (top + height <= 90) & (left + width <= 128)).all()
    means = [
        torch.stack([h * w / 90 / 128, (w / h).log(), (t + h / 2) / 90, (x + w / 2) / 128]).mean(1)
        for t, x, h, w in (torch.tensor(windows).double().T for windows in (ours, theirs))
    ]
    assert torch.allclose(*means, atol=0.015)


def test_resized_crop_is_in_the_recipe():
    images = torch.randint(0, 256, (4, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    recipe = LFI_CAM_IMAGENET.shortened(1, batch=4, crop=8)
    (index, batch), *_ = batches({"images": images, "labels": torch.arange(4)}, recipe, 0, 0)
    assert batch["images"].shape == (4, 3, 8, 8)
    assert batch["images"].dtype == torch.uint8
    draws = torch.rand(4, 23, generator=torch.Generator().manual_seed(derived_seed(0, 0, 0)))
    top, left, height, width = window((20, 30), draws[2].double(), (0.08, 1.0))
    cut_out = images[index[2]][:, top : top + height, left : left + width]
    expected = geometry.resize(cut_out, [8, 8], antialias=True)
    assert torch.equal(batch["images"][2], expected.flip(-1) if draws[2, 0] < 0.5 else expected)
    whole = augment(images, torch.zeros(4, 23), crop=20, resized=(1.0, 1.0))
    assert whole.shape == (4, 3, 20, 20)


class Coloured(Dataset):
    """Images of one size or several, each of one colour that grows with its number."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        super().__init__(Path(), "train", "original")
        self.classes, self.sizes = ["a", "b"], sizes
        self.ids = [str(number) for number in range(len(sizes))]
        self.annotations = [Annotation(Path(), number % 2) for number in range(len(sizes))]

    def __getitem__(self, index: int) -> Example:
        height, width = self.sizes[index]
        image = torch.arange(3 * height * width).reshape(3, height, width).add(9 * index).remainder(256) / 255
        return Example(self.ids[index], image, self.annotations[index].label, size=(height, width))

    def digest(self) -> str:
        return repr(self.sizes)


def test_read_from_disk_is_what_memory_gives():
    """The workers augment; a batch is the same to the bit as one cut out of the decoded data set, for each of two processes too."""
    read, decoded = Coloured([(20, 30)] * 7), in_memory(Coloured([(20, 30)] * 7), progress=False)
    for recipe in (replace(SHORT, batch=4), LFI_CAM_IMAGENET.shortened(1, batch=4, crop=8), replace(SHORT, batch=4, flip=False, pad=0)):
        for rank in (0, 1):
            two = [list(batches(data, recipe, 3, 1, rank=rank, world=2)) for data in (read, decoded)]
            for (index, one), (same, other) in zip(*two, strict=True):
                assert index == same
                assert {*one} == {*other} == {"images", "labels"}
                assert all(torch.equal(one[key], other[key]) for key in one)
    whole = [torch.cat([part[key] for part in in_order(read, 3)]) for key in ("images", "labels")]
    assert all(torch.equal(got, decoded[key]) for got, key in zip(whole, ("images", "labels"), strict=True))


@pytest.mark.parametrize("gpu", [True, False])
def test_the_loader_asks_for_pinned_memory_where_there_is_a_gpu(gpu, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("training.batches.DataLoader", lambda *_, **how: asked.append(how.get("pin_memory", False)) or [])
    assert not list(batches(Coloured([(16, 16)] * 4), replace(SHORT, batch=4), 0, 0))
    assert asked == [gpu]


def test_images_of_different_sizes_need_a_window():
    read = Coloured([(20, 30), (24, 20), (20, 20)])
    _, batch = next(batches(read, LFI_CAM_IMAGENET.shortened(1, batch=3, crop=8), 0, 0))
    assert batch["images"].shape == (3, 3, 8, 8)
    with pytest.raises(ValueError, match="take a recipe that cuts windows"):
        next(batches(read, replace(SHORT, batch=3, flip=False, pad=0), 0, 0))


def test_what_does_not_fit_into_memory_is_streamed(monkeypatch, tmp_path):
    """A quarter of the memory is the limit; the same weights either way."""
    data = Coloured([(16, 16)] * 8)
    pages = {"SC_PAGE_SIZE": 4, "SC_PHYS_PAGES": 8 * 3 * 16 * 16}
    monkeypatch.setattr(store.os, "sysconf", pages.__getitem__)
    assert store.fits(data)
    assert not store.fits(data, processes=2)
    decoded, decode = [], store.in_memory
    monkeypatch.setattr(store, "in_memory", lambda *given, **more: decoded.append(1) or decode(*given, **more))
    first, one = trained(model, SHORT, data, store=tmp_path / "a", test=data, device="cpu", progress=False)
    assert len(decoded) == 2
    pages["SC_PHYS_PAGES"] -= 1
    second, two = trained(model, SHORT, data, store=tmp_path / "b", test=data, device="cpu", progress=False)
    assert len(decoded) == 2
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_best_on_test_is_an_extra_value(tmp_path):
    """It is the highest accuracy after any epoch, and neither the weights nor the training's other numbers know of it."""
    options = {"test": data(40), "device": "cpu", "progress": False}
    recipe = SHORT.shortened(4, lr=0.1)
    first, plain = trained(model, recipe, data(), store=tmp_path, **options)
    second, asked = trained(model, recipe, data(), store=tmp_path, best_on_test=True, **options)
    assert "best_on_test" not in plain
    seen = [epoch["watched_accuracy"] for epoch in asked["history"]]
    assert asked["best_on_test"] == {"epoch": seen.index(max(seen)), "accuracy": max(seen), "n": 40}
    assert seen[-1] == asked["accuracy"] == plain["accuracy"]
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    with pytest.raises(ValueError, match="best_on_test needs test images"):
        trained(model, recipe, data(), store=tmp_path, best_on_test=True, device="cpu")


# --- the best on held-out training images ----------------------------------------------------------------------------------------------


def test_held_out_images_are_never_trained_on():
    among, held_out = apart(data(), 0.3, 5)
    assert len(held_out) == 6
    assert sorted([*among.tolist(), *held_out.tolist()]) == list(range(20))
    assert not torch.equal(held_out, apart(data(), 0.3, 6)[1])
    seen = {i for epoch in range(3) for index, _ in batches(data(), SHORT, 5, epoch, among=among) for i in index}
    assert seen == set(among.tolist())
    assert torch.equal(apart(data(), 0.0, 5)[0], torch.arange(20))
    with pytest.raises(ValueError, match=r"held_out = 0\.01 of 20 images holds out 0"):
        apart(data(), 0.01, 5)


@pytest.mark.parametrize("criterion", ["accuracy", "loss"])
def test_best_weights_are_kept_beside_the_last(tmp_path, criterion):
    """The weights in best.safetensors give the best value of the history on the held-out images; the model ends with the last."""
    recipe, rows = replace(SHORT.shortened(5, lr=0.1), held_out=0.4, criterion=criterion), data()
    made = model()
    summary = fit(made, recipe, rows, out=tmp_path, device="cpu", progress=False)
    values = [epoch[f"held_out_{criterion}"] for epoch in summary["history"]]
    best = (max if criterion == "accuracy" else min)(values)
    assert summary["best"] == {"epoch": values.index(best), criterion: best}
    assert summary["images"] == 12
    held_out = apart(rows, 0.4, 0)[1]
    subset = {"images": rows["images"][held_out] / 255, "labels": rows["labels"][held_out]}

    def value() -> float:
        loss, log = made.loss(subset)
        return float({**log, "loss": loss.detach()}[criterion])

    assert value() == pytest.approx(values[-1], rel=1e-5)
    made.load_state_dict(load_file(tmp_path / BEST), strict=False)
    assert value() == pytest.approx(best, rel=1e-5)


def test_best_survives_being_killed(tmp_path):
    recipe = replace(SHORT, held_out=0.4, criterion="loss")  # two batches of training and one of measuring an epoch
    whole = fit(model(), recipe, data(), out=tmp_path / "whole", device="cpu", progress=False)
    with pytest.raises(Killed):
        fit(killed_after(4, model()), recipe, data(), out=tmp_path / "cut", every=0, device="cpu", progress=False)
    resumed = fit(model(), recipe, data(), out=tmp_path / "cut", every=0, device="cpu", progress=False)
    assert resumed["best"] == whole["best"]
    assert resumed["history"] == whole["history"]
    files = [load_file(tmp_path / name / BEST) for name in ("whole", "cut")]
    assert all(torch.equal(value, files[1][key]) for key, value in files[0].items())


def test_trained_gives_the_last_or_the_best(tmp_path):
    recipe = replace(SHORT.shortened(4, lr=0.1), held_out=0.4, criterion="loss")
    options = {"store": tmp_path, "test": data(40), "device": "cpu", "progress": False}
    last, summary = trained(model, recipe, data(), **options)
    best, again = trained(model, recipe, data(), best=True, **options)
    assert again["digest"] == summary["digest"]
    assert summary["best"]["test_accuracy"] == accuracy(best.classifier, data(40))
    assert summary["accuracy"] == accuracy(last.classifier, data(40))
    by_hand = model()
    fit(by_hand, recipe, data(), device="cpu", progress=False)
    kept_last = load_file(next(tmp_path.glob("*/model.safetensors")))
    for found in (kept_state(last), kept_last):  # a CPU's tensors are shared, and measuring the best must not leave them in their place
        assert all(torch.equal(value, found[key]) for key, value in kept_state(by_hand).items())
    assert "held_out: 0.4 instead of 0" in summary["deviations"]
    kept_best = load_file(next(tmp_path.glob("*/best.safetensors")))
    assert all(torch.equal(value, kept_best[key]) for key, value in kept_state(best).items())
    with pytest.raises(ValueError, match="holds no training images out"):
        trained(model, SHORT, data(), best=True, **options)


def test_lagged_posterior_is_resumed(tmp_path):
    """The earlier parameters are part of the checkpoint, though they do not learn."""

    def calm() -> Calm:
        torch.manual_seed(1)
        return Lagged(lfi_backbone("resnet8", 2), 2, uniform=True, lag=2)

    whole = calm()
    fit(whole, SHORT, data(), device="cpu", progress=False)
    with pytest.raises(Killed):
        fit(killed_after(4, calm()), SHORT, data(), out=tmp_path, every=0, device="cpu", progress=False)
    resumed = calm()
    fit(resumed, SHORT, data(), out=tmp_path, every=0, device="cpu", progress=False)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())
    assert int(whole.earlier.updates) == 9


def test_shares_of_a_batch_must_not_be_empty():
    with pytest.raises(ValueError, match="the last batch has 4 examples for 5 processes"):
        next(batches(data(), SHORT, 0, 0, world=5))


def test_cached_activations_cannot_be_augmented():
    with pytest.raises(ValueError, match="one view"):
        next(batches({"activations": torch.zeros(4, 2, 3, 3)}, SHORT, 0, 0))


def test_features_are_the_trunks():
    backbone = lfi_backbone("resnet8", 3).eval()
    images = data(5, 32)["images"]
    expected = backbone.activations(images / 255).detach()
    activations, predicted = features(backbone, images, batch=2, progress=False)
    torch.testing.assert_close(activations, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(predicted, backbone.head(expected).argmax(1))
    torch.testing.assert_close(features(backbone, images, pool=True, progress=False)[0], expected.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_trained_models_are_kept_and_found(tmp_path, monkeypatch):
    recipe, test_set = SHORT.shortened(6), data(40)
    first, summary = trained(model, recipe, data(), seed=2, store=tmp_path, test=test_set, device="cpu", progress=False)
    assert summary["accuracy"] == accuracy(first.classifier, test_set) > 90
    assert "epochs: 6 instead of 300" in summary["deviations"]
    assert not first.training
    folder = next(tmp_path.iterdir())
    assert sorted(file.name for file in folder.iterdir()) == ["model.safetensors", "summary.json"]
    assert summary["digest"].startswith(folder.name)

    monkeypatch.setattr(store, "fit", lambda *_, **__: pytest.fail("trained again"))
    second, again = trained(model, recipe, data(), seed=2, store=tmp_path, test=test_set, device="cpu", progress=False)
    assert again == json.loads(json.dumps(summary))
    images = test_set["images"] / 255
    assert torch.equal(first.classifier(images), second.classifier(images))


def test_killed_between_the_last_update_and_the_end_nothing_is_trained_again(monkeypatch, tmp_path):
    def killed(*_):
        raise Killed

    whole, expected = trained(model, SHORT, data(), store=tmp_path / "whole", device="cpu", progress=False)
    monkeypatch.setattr(store, "write_json", killed)
    with pytest.raises(Killed):
        trained(model, SHORT, data(), store=tmp_path / "cut", device="cpu", progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(Plain, "loss", lambda *_: pytest.fail("trained again"))
    resumed, summary = trained(model, SHORT, data(), store=tmp_path / "cut", device="cpu", progress=False)
    assert summary["history"] == expected["history"]
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in resumed.state_dict().items())
    (folder,) = (tmp_path / "cut").iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["model.safetensors", SUMMARY]


def test_whatever_a_training_depends_on_changes_its_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "fit", lambda *_, **__: {"history": []})
    other = data()
    other["labels"] = 1 - other["labels"]
    torch.manual_seed(7)
    frozen = lfi_backbone("resnet8", 2).eval()

    def one(build=model, recipe=SHORT, rows=None, **options):
        return trained(build, recipe, rows or data(), store=tmp_path, device="cpu", progress=False, **options)[1]["digest"]

    plain = replace(SHORT, flip=False, pad=0)

    def calm(objective: str, **options) -> Calm:
        torch.manual_seed(1)
        return Calm(lfi_backbone("resnet8", 2, **options), 2, objective, uniform=True)

    digests = [
        one(),
        one(seed=1),
        one(recipe=replace(SHORT, lr=0.06)),
        one(rows=other),
        one(extra={"note": 1}),
        one(lambda: model("lfi")),
        one(lambda: calm("em")),
        one(lambda: calm("ml")),
        one(lambda: calm("ml", stem_stride=1)),
        one(lambda: LCam(frozen), plain),
        one(lambda: LCam(frozen, masks="own"), plain),
    ]
    with torch.no_grad():
        next(frozen.parameters()).add_(1)
    digests.append(one(lambda: LCam(frozen), plain))
    assert one() == digests[0]
    monkeypatch.setattr(store, "TRAINING_VERSION", store.TRAINING_VERSION + 1)
    digests.append(one())
    assert len(set(digests)) == len(digests)


def test_other_test_images_are_measured_anew(tmp_path):
    options = {"store": tmp_path, "device": "cpu", "progress": False}
    recipe = replace(SHORT.shortened(4, lr=0.1), held_out=0.4, criterion="loss")
    few, many = ({key: value[part] for key, value in data(40).items()} for part in (slice(7), slice(40)))
    assert "accuracy" not in trained(model, recipe, data(), **options)[1]
    for test in (few, many):
        last, summary = trained(model, recipe, data(), test=test, **options)
        best, _ = trained(model, recipe, data(), test=test, best=True, **options)
        assert summary["accuracy"] == accuracy(last.classifier, test)
        assert summary["best"]["test_accuracy"] == accuracy(best.classifier, test)
    assert len(list(tmp_path.iterdir())) == 1  # trained once


def test_precision_that_could_not_be_kept_is_refused():
    with pytest.raises(ValueError, match="take bf16-mixed"):
        fit(model(), replace(SHORT, precision="16-mixed"), data(), progress=False)
    with pytest.raises(ValueError, match="asks for bf16-mixed, the fabric computes in 32-true"):
        fit(model(), replace(SHORT, precision="bf16-mixed"), data(), fabric=Fabric(accelerator="cpu"), progress=False)


def test_held_out_images_are_measured_in_the_view_that_tests_use():
    """The middle window; where windows are resized, of the image at a short side 256/224 as long, as `view("crop")` makes it."""
    images = torch.randint(0, 256, (2, 3, 30, 40), dtype=torch.uint8)
    assert torch.equal(middle(images, replace(SHORT, crop=20)), images[:, :, 5:25, 10:30])
    assert torch.equal(middle(images, SHORT), images)
    resized = middle(images, LFI_CAM_IMAGENET.shortened(1, crop=14))
    assert torch.equal(resized, geometry.center_crop(geometry.resize(images, [16], antialias=True), [14, 14]))
    read = Coloured([(20, 30), (24, 20), (20, 20), (26, 22), (30, 20)])
    recipe = LFI_CAM_IMAGENET.shortened(1, batch=2, crop=8, held_out=0.6)
    assert len(fit(model(), recipe, read, device="cpu", progress=False)["history"]) == 1


def test_a_training_job_trains_again_what_other_threads_have_trained(tmp_path):
    """A notebook, which does not say its threads, loads whatever is stored."""
    recipe, before = PLAIN.shortened(1, batch=10, lr=0.02), torch.get_num_threads()
    made = []

    def asked(threads=None):
        summary = trained(model, recipe, data(), store=tmp_path, device="cpu", progress=False, threads=threads)[1]
        made.append((summary["threads"], summary["seconds"]))

    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            asked(threads)
    finally:
        torch.set_num_threads(before)
    asked(2)
    asked()
    assert [threads for threads, _ in made] == [1, 2, 2, 2]
    assert made[1] == made[2] == made[3] != made[0]  # loaded, not trained again
    assert [path.suffix for path in tmp_path.iterdir()] == [""]


def test_a_frozen_classifier_is_not_stored_again(tmp_path):
    frozen = lfi_backbone("resnet8", 2).eval()
    recipe = L_CAM.shortened(2, flip=False, crop=None, lr=0.1)
    made, _ = trained(lambda: LCam(frozen), recipe, data(side=32), store=tmp_path, device="cpu", progress=False)
    assert set(kept_state(made)) == {"attention.weight", "attention.bias"} == set(load_file(next(tmp_path.glob("*/model.safetensors"))))


def test_who_comes_second_waits_and_loads(tmp_path):
    part, folder, got = tmp_path / "a.part", tmp_path / "a", []

    def second() -> None:
        with store._claimed(part, folder) as claimed:
            got.append(claimed)

    with store._claimed(part, folder) as claimed:
        assert claimed == part
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        part.rename(folder)
    waiting.join(5)
    assert got == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_damaged_model_is_named(tmp_path):
    trained(model, SHORT, data(), store=tmp_path, device="cpu", progress=False)
    file = next(tmp_path.glob("*/model.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"model.safetensors cannot be read .* remove"):
        trained(model, SHORT, data(), store=tmp_path, device="cpu", progress=False)


def test_path_may_be_a_string(tmp_path: Path):
    made, summary = trained(model, replace(SHORT, epochs=1), data(), store=str(tmp_path / "deep" / "er"), device="cpu", progress=False)
    assert isinstance(made, Plain)
    assert summary["updates"] == 3
