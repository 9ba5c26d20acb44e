"""Maps that are known to be right or wrong: the order that metrics of place must give them, and what is wrong with those that do not."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cam_core import METHODS, Probe, metrics
from cam_core.data import inclusive_boxes
from cam_core.table import Table
from data_scripts.draw import draw
from reproduce import sources
from studies import trust
from studies.trust import COARSE, CUE, INVERSE, Known, chosen, cue_localization, follows, measure, records, tinted, wired

COUNT = 8
SQUARED, ROOT = f"{COARSE}[power=2]", f"{COARSE}[power=0.5]"
RIGHT, WRONG = (CUE, COARSE, SQUARED, ROOT), ("random_map", "fake_cam", INVERSE)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "drawn", small=True, processes=1, progress=False)


@pytest.fixture(scope="module")
def data(root):
    return {view: sources.images(trust.CREATURES, root, limit=COUNT)(view) for view in trust.VIEWS}


@pytest.fixture(scope="module")
def pictures(data):
    return {view: [tinted(dataset, i)[0] for i in range(COUNT)] for view, dataset in data.items()}


@pytest.fixture(scope="module")
def values(pictures):
    """Metric and setting -> map -> value, on the pictures of the wired network."""
    frame = records(measure(wired(), pictures, trust.localization(), progress=False))
    return {(m, s): dict(zip(part.method, part.value, strict=True)) for (m, s), part in frame.groupby(["metric", "setting"])}


def better(metric, first, second, values, *, strictly=True):
    """Whether ``first`` is better than ``second`` under one metric, in its own direction."""
    kinds = {one.name: one.higher_is_better for one in [*trust.localization(), metrics.PxAP(), metrics.PointingGame()]}
    gain = (values[metric][first] - values[metric][second]) * (1 if kinds[metric[0]] else -1)
    return gain > 0 if strictly else gain >= 0


def test_the_wired_network_sees_nothing_but_the_cue(data):
    network = wired().frozen()
    for dataset in data.values():
        for index in range(COUNT):
            picture, redrawn, answers = tinted(dataset, index)
            image, label = picture.example.image[None], picture.example.label
            with torch.no_grad():
                cells = network.activations(image)[0]
                assert not cells[:, F.adaptive_max_pool2d(picture.cue.float()[None], cells.shape[-2:])[0] == 0].any()
                assert not cells[[c for c in range(len(cells)) if c != label]].any()  # the other tints are at right angles
                assert cells[label].mean() == pytest.approx((trust.CHROMA - 0.001) * picture.cue.float().mean().item(), rel=1e-3)
                torch.testing.assert_close(network(redrawn[-1:]), network(image), rtol=1e-4, atol=1e-4)
            assert follows(network, picture, redrawn, answers)


def test_all_pictures_of_the_wired_network_are_chosen(data):
    kept, facts = chosen(wired(), tinted, data)
    assert {view: len(part) for view, part in kept.items()} == dict.fromkeys(trust.VIEWS, COUNT)
    assert facts.set_index("metric")["value"].to_dict() == {"accuracy": 100, "follows_cue_only": 100}


@pytest.mark.parametrize("wrong", [None, 0, 1, 2])
def test_one_wrong_answer_and_the_picture_is_not_chosen(pictures, wrong):
    picture = pictures["squash"][0]
    told = [picture.example.label, 1, picture.example.label]
    answers = [(c + (i == wrong)) % 4 for i, c in enumerate(told)]
    network = lambda images: F.one_hot(torch.tensor(answers[: len(images)]), 4)  # noqa: E731
    assert follows(network, picture, torch.zeros(2, *picture.example.image.shape), torch.tensor(told[1:])) == (wrong is None)


def test_metrics_of_place_put_every_right_map_before_every_wrong_one(values):
    assert {"pointing_game", "pxap", "energy_pointing_game", "box_iou"} < {name for name, _ in values}
    for metric, right, wrong in product(values, RIGHT, WRONG):
        if (metric[0], wrong) != ("max_box_acc_v2", INVERSE):  # a test of its own
            assert better(metric, right, wrong, values), (metric, right, wrong)


def test_metrics_of_place_put_the_mask_before_its_blur_and_noise_before_the_inverse(values):
    known = {"pixel_precision", "max_box_acc_v2", "pxap"}  # each in a test of its own
    largest = {"max_box_acc", "localization_error"}  # ask the largest piece alone, and a mask may lie in pieces
    for metric in values:
        if metric[0] not in known:
            assert metric[0] in largest or better(metric, CUE, COARSE, values, strictly=False), metric
            assert better(metric, "random_map", INVERSE, values, strictly=False), metric


def test_some_metrics_of_place_reward_a_sharper_map_of_the_same_order(values):
    """Those that ask the values; the others see the order alone, which a power leaves to all pixels but those between two cells."""
    sharp = [metric for metric in values if metric[0] in ("energy_pointing_game", "false_activation")]
    assert len(sharp) == 5
    for metric, (first, second) in product(sharp, ((SQUARED, COARSE), (COARSE, ROOT))):
        assert better(metric, first, second, values, strictly=False), metric
    for metric in (("pointing_game", "15px"), ("maximum_in_box", "")):
        assert values[metric][SQUARED] == values[metric][COARSE] == values[metric][ROOT] == 100
    assert max(abs(values["pxap", ""][one] - values["pxap", ""][COARSE]) for one in (SQUARED, ROOT)) < 2


def test_energy_of_the_mask_is_all_in_the_box_and_that_of_fake_cam_is_the_boxes_share(values, pictures):
    found = values["energy_pointing_game", ""]
    assert found[CUE] == pytest.approx(100)
    assert found[SQUARED] > found[COARSE] > found[ROOT] > found["fake_cam"] > found[INVERSE]
    boxes = [picture.example.boxes for picture in pictures["squash"]]
    share = np.mean([metrics.localization.inside(inclusive_boxes(box), (112, 112)).float().mean().item() for box in boxes])
    assert found["fake_cam"] == pytest.approx(100 * share, abs=0.01)


def test_against_a_box_a_mask_without_shades_loses_to_its_blur(values):
    """Ties: the box's pixels beside the creature stand with the background, where a blurred map still ranks them."""
    found = values["pixel_precision", ""]
    assert found[COARSE] > found[CUE] > found["random_map"] > found[INVERSE]


def test_in_pixels_the_mask_is_perfect_and_its_inverse_is_at_chance(values, pictures):
    """One tie of everything that is not background: the last threshold takes all pixels, and the average is their share."""
    found, share = values["pxap", ""], 100 * torch.stack([p.cue for p in pictures["squash"]]).float().mean().item()
    assert found[CUE] == 100
    assert 90 < found[COARSE] < 100
    assert found[INVERSE] == pytest.approx(share)
    assert found["random_map"] == pytest.approx(share, abs=4)


def test_v2_takes_the_hole_in_the_inverse_for_the_object(values):
    """Holes count as contours (as released), so a map that is on everywhere but on the object gets its box all the same."""
    assert values["max_box_acc_v2", ""][INVERSE] > 80 > values["max_box_acc_v2", ""]["random_map"]
    assert values["max_box_acc", ""][INVERSE] < 20


def test_cue_localization_tells_the_cue_from_noise_and_from_its_inverse(root):
    table = cue_localization(sources.images(trust.BIRDS, root, limit=10)("squash"), progress=False)
    found = {name: metric.compute() for (name, *_), metric in table.metrics.items()}
    assert min(found[one] for one in RIGHT) > 5 * max(found[one] for one in WRONG)
    assert found["random_map"] == pytest.approx(found["fake_cam"], abs=1)  # no difference of two maps: what chance gives


def test_a_changed_image_keeps_the_mask_of_the_one_it_stands_for(pictures):
    shown = pictures["crop"][:3]
    images = torch.stack([picture.example.image for picture in shown])
    known = Known(shown)
    probe = Probe(wired().frozen(), images)
    assert torch.equal(known(probe), torch.stack([picture.cue for picture in shown]).float())
    assert torch.equal(known(probe.like(images * 0.5)), known(probe))
    with pytest.raises(ValueError, match="hand the pictures over first"):
        Known(shown)(probe.like(images * 0.5))


def test_candidates_are_what_their_names_say(pictures):
    shown = pictures["crop"][:2]
    probe = Probe(wired().frozen(), torch.stack([picture.example.image for picture in shown]))
    heat = {one.name: one(probe) for one in trust.candidates(Known(shown))}
    mask = torch.stack([picture.cue for picture in shown]).float()
    assert torch.equal(heat[INVERSE], 1 - mask)
    torch.testing.assert_close(heat[COARSE], mask.reshape(2, 14, 8, 14, 8).mean((2, 4)))
    torch.testing.assert_close(METHODS["cam"](probe), trust.GAIN * (trust.CHROMA - 0.001) * heat[COARSE], rtol=1e-3, atol=1e-3)


def test_the_pointing_game_is_asked_in_pixels_of_the_original(pictures):
    """One class an image; in any batches; the maps that `evaluate` would hand over, by hand."""
    shown, tables = {view: part[:3] for view, part in pictures.items()}, [Table(), Table()]
    for table, batch in zip(tables, (2, 8), strict=True):
        trust.pixels_and_points(table, wired(), shown["squash"], trust.every_candidate(shown)[:2], batch)
    assert {name for _, name, _ in tables[0].metrics} == {"pxap", "pointing_game"}
    for key, metric in tables[0].metrics.items():
        for first, second in zip(metric.per_image(), tables[1].metrics[key].per_image(), strict=True):
            assert np.array_equal(first, second)
    labels = [picture.example.label for picture in shown["squash"]]
    ids, rows = tables[0].metrics[CUE, "pointing_game", "15px"].per_image()
    assert ids.tolist() == [1000 * i + label for i, label in enumerate(labels)]
    assert rows.tolist() == [[label, 1, 0] for label in labels]


def test_at_equal_mean_all_maps_but_those_of_zeros_and_ones_show_as_much(pictures):
    shown = {view: part[:3] for view, part in pictures.items()}
    frame = records(trust.equal_mean(wired(), trust.shown(shown), trust.every_candidate(shown), 0.2, progress=False))
    assert set(frame.setting) == {"equal mean"}
    assert set(frame.metric) == {"average_drop", "increase_in_confidence", "average_gain", "map_mean"}
    means = frame[frame.metric == "map_mean"].set_index("method")["value"]
    assert means.drop([CUE, INVERSE, "fake_cam"]).tolist() == pytest.approx([20.0] * 6, abs=1e-3)
    share = 100 * torch.stack([picture.cue for picture in shown["crop"]]).float().mean().item()
    assert means[[CUE, INVERSE, "fake_cam"]].tolist() == pytest.approx([share, 100 - share, 100], abs=0.01)
    drops = frame[frame.metric == "average_drop"].set_index("method")
    assert drops["value"]["random_map"] > drops["value"][CUE]
    assert drops.against_cue[CUE] == ""


def test_average_drop_is_asked_in_every_form():
    settings = {one.setting for one in trust.faithfulness() if one.name == "average_drop"}
    assert settings == {"100%", "50%", "15%", "100% mean fill", "50% mean fill score_cam"}


def test_win_counts_strictly_smaller_drops_over_all_other_maps():
    drops = {CUE: [0.0, 0.5, 0.2], "a": [0.0, 0.1, 0.3], "b": [0.5, 0.5, 0.1]}
    table = Table()
    for name, drop in drops.items():
        table.metrics[name, "average_drop", "100%"] = metric = metrics.AverageDrop()
        metric.record(torch.tensor([[1.0, 1 - d, 0.0] for d in drop], dtype=torch.float64), range(3))
    won = trust.win_rows(table, "100%").set_index("method")["value"].to_dict()
    assert won == pytest.approx({CUE: 100 * 2 / 6, "a": 100 * 3 / 6, "b": 100 * 2 / 6})


def test_a_verdict_needs_the_whole_interval():
    assert [trust.verdict(low, high, higher=True) for low, high in ((1, 2), (-1, 2), (-2, -1), (0, 1))] == ["better", "", "worse", ""]
    assert [trust.verdict(low, high, higher=False) for low, high in ((1, 2), (-1, 2), (-2, -1))] == ["worse", "", "better"]


def test_tints_are_told_apart_and_stay_in_range():
    image = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    cue = torch.eye(4, dtype=torch.bool)
    for label in range(len(trust.TINTS)):
        made = trust.tint(image, cue, label)
        assert 0 <= made.min() <= made.max() <= 1
        np.testing.assert_allclose(made[:, ~cue].std(0).numpy(), 0, atol=1e-7)
        colour = (made[:, cue] - made[:, cue].mean(0)).T @ trust.TINTS[label]
        np.testing.assert_allclose(colour.numpy(), 1.5 * trust.CHROMA, rtol=1e-5)
