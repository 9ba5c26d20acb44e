"""The training loop: the same bits after being killed, an order that follows from the seed, failures that name the batch."""

import json
import math
import threading
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from cam_core.learned import training
from cam_core.learned.batches import augment, batches, center, derived_seed, features
from cam_core.learned.calm import Calm
from cam_core.learned.lcam import LCam
from cam_core.learned.lfi import LfiCam, lfi_backbone
from cam_core.learned.plain import Plain
from cam_core.learned.recipes import CALM, L_CAM, LFI_CAM, PLAIN, Recipe
from cam_core.learned.training import CHECKPOINT, TrainingError, accuracy, fit, kept_state, trained

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
    with pytest.raises(TrainingError, match="another recipe"):
        fit(model(), replace(SHORT, lr=0.01), data(), out=tmp_path, device="cpu", progress=False)


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


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    victim = model()
    original, count = victim.loss, 0

    def loss(_, batch):
        nonlocal count
        count += 1
        if count == 3:  # a finite loss whose gradient is not
            weight = next(victim.parameters())
            return original(batch)[0] + (weight * 0).sum().sqrt(), {}
        return original(batch)

    victim.loss = types.MethodType(loss, victim)
    with pytest.raises(TrainingError, match="not finite"):
        fit(victim, SHORT, data(), out=tmp_path, every=0, device="cpu", progress=False)
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / CHECKPOINT).values())


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

    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained again"))
    second, again = trained(model, recipe, data(), seed=2, store=tmp_path, test=test_set, device="cpu", progress=False)
    assert again == json.loads(json.dumps(summary))
    images = test_set["images"] / 255
    assert torch.equal(first.classifier(images), second.classifier(images))


def test_whatever_a_training_depends_on_changes_its_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_, **__: {"history": []})
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
    assert len(set(digests)) == len(digests)
    assert one() == digests[0]


def test_a_frozen_classifier_is_not_stored_again(tmp_path):
    frozen = lfi_backbone("resnet8", 2).eval()
    recipe = L_CAM.shortened(2, flip=False, crop=None, lr=0.1)
    made, _ = trained(lambda: LCam(frozen), recipe, data(side=32), store=tmp_path, device="cpu", progress=False)
    assert set(kept_state(made)) == {"attention.weight", "attention.bias"} == set(load_file(next(tmp_path.glob("*/model.safetensors"))))


def test_who_comes_second_waits_and_loads(tmp_path):
    part, folder, got = tmp_path / "a.part", tmp_path / "a", []

    def second() -> None:
        with training._claimed(part, folder) as claimed:
            got.append(claimed)

    with training._claimed(part, folder) as claimed:
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


def test_recipes_are_the_papers():
    assert [LFI_CAM.rate(epoch) for epoch in (0, 149, 150, 225, 299)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert [L_CAM.rate(epoch) for epoch in (0, 1, 12, 25)] == pytest.approx([1, 0.95, 0.540360, 0.540360], rel=1e-6)
    assert [CALM.rate(epoch) for epoch in (28, 29)] == pytest.approx([1, 0.1])
    assert L_CAM.multiplier("attention.bias") == 2
    assert L_CAM.multiplier("attention.weight") == 1
    groups = {
        "conv1.weight": 1, "bn1.weight": 10, "layer3.5.conv2.weight": 1, "layer4.0.conv1.weight": 1, "layer4.0.conv2.weight": 10,
        "layer4.2.bn1.bias": 10,
    }  # fmt: skip
    for name, factor in groups.items():
        assert CALM.multiplier(f"classifier.trunk.{name}") == factor
    assert CALM.multiplier("classifier.head.class_head.weight") == CALM.multiplier("classifier.head.location_head.bias") == 10


def test_deviations_are_listed():
    assert LFI_CAM.differs_from(LFI_CAM) == []
    short = LFI_CAM.shortened(12, batch=64, nesterov=True)
    assert short.milestones == (6, 9)
    assert short.differs_from(LFI_CAM) == [
        "epochs: 12 instead of 300", "batch: 64 instead of 128", "milestones: 6 9 instead of 150 225", "nesterov: true instead of false",
    ]  # fmt: skip


def test_cycle_rises_and_falls():
    recipe = LFI_CAM.shortened(10, schedule="cycle")
    assert [recipe.rate(position) for position in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    with pytest.raises(ValueError, match="cycle"):
        replace(recipe, schedule="cosine").rate(0)


def test_path_may_be_a_string(tmp_path: Path):
    made, summary = trained(model, replace(SHORT, epochs=1), data(), store=str(tmp_path / "deep" / "er"), device="cpu", progress=False)
    assert isinstance(made, Plain)
    assert summary["updates"] == 3
