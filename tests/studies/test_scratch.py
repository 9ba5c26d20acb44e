"""What is planned, what is compared, and that a run killed in the middle publishes what is whole and goes on from there."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cam_core.learned import LfiCam, lfi_backbone
from cam_core.metrics import map_stability
from reproduce import jobs, results, sources
from reproduce.files import write_table
from studies import scratch
from studies.ablations import FixedImportance, Uniform, widened
from studies.scratch import Training
from training import TrainingError


def test_settings_come_under_the_first_seed_and_seeds_under_the_first_setting():
    planned = scratch.plan([0, 3], [5, 6])
    assert [t.model for t in planned[:3]] == ["plain", "lfi_cam", "abn"]
    assert list(dict.fromkeys((t.setting, t.seed) for t in planned)) == [(0, 5), (3, 5), (0, 6)]
    found = [(what, one.model) for what, one, _ in scratch.pairs(planned)]
    assert sorted(found) == sorted((what, model) for what in ("settings", "seeds") for model in scratch.MODELS)
    several = scratch.plan(range(5), range(3))
    counts = pd.Series([what for what, *_ in scratch.pairs(several)]).value_counts().to_dict()
    assert counts == {"settings": 3 * 10, "seeds": 3 * 3}


def test_an_attention_that_is_off_counts_as_empty():
    maps = torch.zeros(4, 2, 2)
    maps[0, 1, 0], maps[1] = 0.5, 0.7
    off, plain, later = (Training(model, 0, seed) for model, seed in (("lfi_cam[learned]", 0), ("plain", 0), ("lfi_cam[learned]", 1)))
    done = {off: scratch.Done({"accuracy": 9.0, "seconds": 1.0, "digest": "d"}, {"lfi_cam[learned]": maps})}
    rows = [row for row in scratch.training_rows([off, plain, later], done, {}) if row["metric"] == "empty_maps"]
    assert [(row["model"], row["seed"], row["value"]) for row in rows] == [("lfi_cam[learned]", 0, 3), ("lfi_cam[learned]", 1, None)]


def test_effective_channels():
    torch.manual_seed(0)
    model = Uniform(lfi_backbone("resnet8", 4)).eval()
    images = torch.rand(5, 3, 32, 32)
    assert scratch.effective_channels(model, images, batch=2) == pytest.approx(64)
    weigher = model.classifier.trunk.importance
    assert isinstance(weigher, FixedImportance)
    weigher.weights = torch.tensor([0.5, 0.25, 0.25] + [0.0] * 61)
    assert scratch.effective_channels(model, images) == pytest.approx(1 / 0.375)


def test_maps_and_controls_are_those_of_the_network():
    torch.manual_seed(0)
    model = LfiCam(lfi_backbone("resnet8", 4)).eval()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    found = scratch.looked_at("lfi_cam", model, images, batch=2)
    assert set(found) == {"lfi_cam", "lfi_cam: cam", "lfi_cam: mean_activation"}
    with torch.no_grad():
        x = model.classifier.normalize(images.float() / 255)
        features = model.classifier.trunk.features(x)
        attended, attention = model.classifier.trunk.attend(x)
        wanted = model.classifier.head(attended).argmax(1)
        weights = model.classifier.head.get_submodule("fc").weight[wanted]
    assert torch.allclose(found["lfi_cam"], attention, atol=1e-5)
    assert torch.allclose(found["lfi_cam: mean_activation"], features.mean(1), atol=1e-5)
    assert torch.allclose(found["lfi_cam: cam"], torch.einsum("bk,bkhw->bhw", weights, attended), atol=1e-4)


def test_another_plan_has_a_table_of_its_own():
    usual = scratch.table("cifar10", "resnet20", None, scratch.MODELS)
    assert usual.name == "scratch-cifar10-resnet20.csv"
    assert scratch.table("cifar10", "resnet20", 12, ["plain", "abn"], [0, 1]) == usual
    assert scratch.table("cifar10", "resnet20", None, scratch.MODELS, [0]).name == "scratch-cifar10-resnet20-seeds.csv"
    assert scratch.table("drawn_imagenet", "resnet8", None, scratch.MODELS, [0]).name == "scratch-drawn_imagenet-resnet8.csv"
    assert scratch.table("cifar10", "resnet20", 60, scratch.MODELS).name == "scratch-cifar10-resnet20-e60.csv"
    assert scratch.table("cifar10", "resnet20", None, [*scratch.MODELS, "plain[widened]"]).name == "scratch-cifar10-resnet20-ablations.csv"


def test_ablations_learn_and_are_compared_under_their_own_names(root, tmp_path):
    """Equal weights: the attention orders places as the mean of the features does. Widened: about as many parameters as LFI-CAM."""
    models = ["lfi_cam", "lfi_cam[uniform]", "lfi_cam[learned]", "lfi_cam[kernel=1]", "plain[widened]"]
    out, planned = tmp_path / "ablations.csv", scratch.plan([0], [0, 1], models)
    options = {"epochs": 1, "store": tmp_path / "models", "device": "cpu"}
    frame = scratch.study("cifar10", "resnet8", root, planned, out=out, **options)
    trainings = frame[frame.role == "training"]
    assert (trainings["state"] == "done").all()
    assert trainings["digest"].nunique() == len(planned)
    assert set(trainings[trainings.metric == "effective_channels"]["model"]) == set(scratch.CHOOSES)
    assert {"lfi_cam[uniform]", "lfi_cam[learned]: cam", "plain[widened]: mean_activation"} < set(frame[frame.role == "pair"]["method"])
    uniform, wide, whole = (
        scratch.train(Training(m, 0, 0), "cifar10", "resnet8", root, **options)[0] for m in (models[1], models[4], models[0])
    )
    assert uniform.name == models[1]
    found = scratch.looked_at(models[1], uniform, torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8))
    mean = found["lfi_cam[uniform]: mean_activation"]
    spread = mean.amax((1, 2), keepdim=True) - mean.amin((1, 2), keepdim=True)
    torch.testing.assert_close(found["lfi_cam[uniform]"], (mean - mean.amin((1, 2), keepdim=True)) / spread, rtol=1e-4, atol=1e-5)
    sizes = [sum(p.numel() for p in module.parameters()) for module in (wide, whole)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)
    with pytest.raises(ValueError, match="resnet18 cannot be widened: take one of resnet8"):
        widened("cifar10", "resnet18", root)


def test_time_left_is_that_of_the_same_model():
    planned = scratch.plan([0, 1, 2], [0])
    done = {
        Training("plain", 0, 0): scratch.Done({"seconds": 10.0}),
        Training("lfi_cam", 0, 0): scratch.Done({"seconds": 30.0}),
    }
    assert scratch.remaining(planned, done, {}) == pytest.approx(2 * 10 + 2 * 30 + 3 * 20)
    assert scratch.remaining(planned, done, {Training("abn", 0, 0): "diverged"}) == pytest.approx(2 * 10 + 2 * 30 + 2 * 20)


@pytest.fixture
def root(tmp_path):
    """Two classes of tiny images, told apart by their brightness, in the place of CIFAR-10's."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, kind in enumerate(("cats", "dogs")):
            folder = tmp_path / "CIFAR-10-subset" / split / kind
            folder.mkdir(parents=True)
            for number in range(8):
                Image.fromarray(random.integers(80 * label, 80 * label + 120, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    return tmp_path


def test_the_table_comes_of_the_published_maps_alone(root, tmp_path, monkeypatch):
    """Read back, they give every pair and mean to the bit; with another measure, other pairs and the same trainings. Nothing is trained."""
    out, planned = tmp_path / "scratch.csv", scratch.plan([0], [0, 1])
    options = {"epochs": 1, "store": tmp_path / "models", "device": "cpu"}
    scratch.study("cifar10", "resnet8", root, planned, out=out, limit=6, **options)
    table, kept = out.read_bytes(), sorted((tmp_path / "scratch").iterdir())
    assert [path.name for path in kept] == sorted(f"{model}-0-{seed}.npz" for model in scratch.MODELS for seed in (0, 1))
    ids, maps = results.read_maps(tmp_path / "scratch/lfi_cam-0-1.npz")
    assert ids == ["cats_0", "cats_3", "cats_6", "dogs_1", "dogs_4", "dogs_7"]  # every third of 16: both classes
    assert maps["lfi_cam"].shape == (6, 8, 8)
    assert (rows_of(out, "pair")["images"] == 6).all()

    monkeypatch.setattr(scratch, "train", None)
    frame = scratch.from_maps(out)
    write_table(out, frame)
    assert out.read_bytes() == table
    monkeypatch.setattr(scratch, "map_stability", lambda a, b, size: [m for m in map_stability(a, b, size) if m.kind == "iou"])
    fewer = scratch.from_maps(out)
    assert set(fewer[fewer.role == "pair"]["metric"]) == {"stability_iou"}
    pd.testing.assert_frame_equal(fewer[fewer.role == "training"], frame[frame.role == "training"])
    kept[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"abn-0-0\.npz: the table was published without these maps"):
        scratch.from_maps(out)


def test_published_maps_agree_as_the_maps_themselves_do(tmp_path):
    """Nearly constant maps, too: an IoU moves by the few pixels whose value lies within 1/4096 of the threshold."""
    random = torch.Generator().manual_seed(0)
    common = torch.rand(200, 8, 8, generator=random)
    raw = [0.9 + 1e-3 * (common + 0.3 * torch.rand(200, 8, 8, generator=random)) for _ in range(2)]
    ids, file = [str(n) for n in range(200)], tmp_path / "maps.npz"
    kept = [scratch.as_published(scratch.Done({}, {"abn": one}), ids, file).maps["abn"] for one in raw]
    before, after = (map_stability(*pair, (32, 32)) for pair in (raw, kept))
    for one, other in zip(before, after, strict=True):
        assert other.compute() == pytest.approx(one.compute(), abs=0.002 if one.kind == "correlation" else 0.2)


def test_what_a_study_publishes_stays_small(tmp_path):
    """All tables of CIFAR-10, ablations under three seeds among them, below 10 MB, at 64 (ABN: 256) random places a map."""
    random, ids = np.random.default_rng(0), [str(n) for n in range(scratch.IMAGES)]

    def size(**sides):
        file = tmp_path / "maps.npz"
        results.write_maps(file, (ids, {name: random.random((len(ids), side, side)) for name, side in sides.items()}))
        return file.stat().st_size

    plain, lfi_cam, abn = size(a=8, b=8), size(a=8, b=8, c=8), size(a=16)
    usual = (5 + 3) * (plain + lfi_cam + abn)  # five settings, three seeds
    longer, ablations = 2 * (plain + lfi_cam), 3 * (plain + 4 * lfi_cam)
    assert usual + longer + ablations < 10e6


def rows_of(out, role):
    frame = pd.read_csv(out)
    return frame[frame.role == role]


def test_killed_diverged_and_whole(root, tmp_path, monkeypatch):
    out, planned = tmp_path / "scratch.csv", scratch.plan([0, 1], [0])
    options = {"out": out, "epochs": 1, "store": tmp_path / "models", "device": "cpu"}
    train, calls = scratch.train, []

    def killed(training, *given, **more):
        calls.append(training)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return train(training, *given, **more)

    monkeypatch.setattr(scratch, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        scratch.study("cifar10", "resnet8", root, planned, **options)
    states = rows_of(out, "training").drop_duplicates(["model", "setting"])["state"].tolist()
    assert states == ["done"] * 4 + ["not run"] * 2
    assert set(rows_of(out, "pair")["model"]) == {"plain"}  # the only model with two trainings
    half, kept = out.read_bytes(), {path: path.stat().st_mtime_ns for path in (tmp_path / "models").glob("*/model.safetensors")}
    assert len(kept) == 4

    seen = []

    def diverging(training, *given, **more):
        seen.append(out.read_bytes())
        if training == Training("lfi_cam", 1, 0):
            raise TrainingError("the loss is nan")
        return train(training, *given, **more)

    monkeypatch.setattr(scratch, "train", diverging)
    scratch.study("cifar10", "resnet8", root, planned, **options)
    assert seen[:4] == [half] * 4  # nothing is taken back while it is loaded again
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    trainings = rows_of(out, "training")
    broken = trainings[trainings.state == "failed"].drop_duplicates("model")
    assert broken[["model", "setting", "why"]].to_numpy().tolist() == [["lfi_cam", 1, "the loss is nan"]]
    assert set(rows_of(out, "pair")["model"]) == {"plain", "abn"}

    monkeypatch.setattr(scratch, "train", train)
    frame = scratch.study("cifar10", "resnet8", root, planned, **options)
    assert (frame[frame.role == "training"]["state"] == "done").all()
    whole = out.read_bytes()
    scratch.study("cifar10", "resnet8", root, planned[:3], **options)
    assert out.read_bytes() == whole  # a smaller plan takes nothing away
    pair = frame[frame.role == "pair"]
    assert set(pair["method"]) == {"plain: cam", "plain: mean_activation", "lfi_cam", "lfi_cam: cam", "lfi_cam: mean_activation", "abn"}
    models = [jobs.lfi_cam("cifar10", "resnet8", root, setting=s, epochs=1, store=tmp_path / "models", device="cpu")[0] for s in (0, 1)]
    of = sources.source("cifar10")
    data = sources.images("cifar10", root)(of.view)
    images = torch.stack([data[i].image for i in range(len(data))])
    with torch.no_grad():
        maps = [model.classifier.trunk.attend(model.classifier.normalize(images))[1] for model in models]
    expected = {(m.name, m.of): m.compute() for m in map_stability(*maps, (32, 32))}
    own = pair[pair["method"] == "lfi_cam"].set_index(["metric", "of"])["value"].to_dict()
    assert own == pytest.approx(expected, abs=0.5)  # pixels at the threshold may fall on either side
