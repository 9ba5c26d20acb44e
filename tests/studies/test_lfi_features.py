"""The attention taken out of an LFI-CAM network, its linear probe, and that differences are those of the two trunks."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cam_core.data import ImageNet
from cam_core.learned import LfiCam, lfi_backbone
from data_scripts.draw import draw
from reproduce import jobs, sources
from studies import lfi_features


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "drawn", small=True, progress=False)


def test_without_attention_the_features_and_the_head_remain():
    torch.manual_seed(0)
    model = LfiCam(lfi_backbone("resnet8", 4)).eval()
    images = torch.rand(2, 3, 64, 64)
    attended, attention = model.classifier.trunk.attend(model.classifier.normalize(images))
    own = lfi_features.bare(model)
    assert not own.training
    assert torch.allclose(own.activations(images) * (1 + attention[:, None]), attended, atol=1e-5)
    assert own.head is model.classifier.head


def test_the_probe_is_a_regression_on_averages_of_the_trunk(root):
    sklearn = pytest.importorskip("sklearn.linear_model")
    train = ImageNet(root, "train", "squash", 64, 40)
    torch.manual_seed(1)
    trunk = lfi_backbone("resnet8", len(train.classes)).eval()
    found = lfi_features.probed(trunk, train)
    images = torch.stack([train[i].image for i in range(len(train))])
    labels = np.array([train[i].label for i in range(len(train))])
    with torch.no_grad():
        pooled = trunk.activations(images).mean((2, 3)).double()
        scores = found(images).double().numpy()
    standard = ((pooled - pooled.mean(0)) / pooled.std(0).clamp_min(1e-6)).numpy()
    for label in np.unique(labels):
        options = [sklearn.LogisticRegression(C=1 / (decay * len(labels)), tol=1e-8, max_iter=10_000) for decay in (1e-4, 1e-3, 1e-2, 1e-1)]
        theirs = [option.fit(standard, labels == label).decision_function(standard) for option in options]
        assert min(np.abs(scores[:, label] - other).max() for other in theirs) < 0.05


def test_rows_and_differences(root, tmp_path):
    frame = lfi_features.study(
        "drawn_imagenet", "resnet8", root, [0], ["plain", "lfi_cam", "lfi_cam[uniform]"], limit=10, epochs=1, store=tmp_path
    )
    assert len(list(tmp_path.glob("*/model.safetensors"))) == 3
    heads = frame[frame.than == ""].groupby("trunk")["head"].unique().map(set).to_dict()
    assert heads == {"plain": {"own", "probe"}, **{key: {"own", "probe", "attended"} for key in ("lfi_cam", "lfi_cam[uniform]")}}
    keys = ["head", "method", "metric"]
    values = frame[frame.than == ""].set_index(["trunk", *keys])["value"]
    for row in frame[frame.than == "plain"].itertuples():
        other = values["plain", "own" if row.head == "attended" else row.head, row.method, row.metric]  # the plain trunk has no attention
        assert row.value == pytest.approx(values[row.trunk, row.head, row.method, row.metric] - other, abs=1e-9)
    assert {"network", "cam"} < {*frame[frame.than == "plain"].method}
    assert {*frame[frame.than == "plain"]["head"]} == {"own", "probe", "attended"}
    accuracy = frame[(frame.metric == "accuracy") & (frame.trunk == "plain") & (frame["head"] == "own")]
    plain, _ = jobs.network("drawn_imagenet", "resnet8", root, epochs=1, store=tmp_path)
    assert len(list(tmp_path.glob("*/model.safetensors"))) == 3  # loaded
    test = sources.images("drawn_imagenet", root, limit=10)("squash")
    right = [int(F.softmax(plain(test[i].image[None]), 1).argmax()) == test[i].label for i in range(10)]
    assert accuracy["value"].item() == pytest.approx(100 * sum(right) / 10)
