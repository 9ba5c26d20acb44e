"""The ways of leaving ML, each at the size of a few updates: which of them end where ML ends, and which do not."""

import math

import pytest
import torch

from cam_core.learned import Calm
from studies import em_ml
from tests.learned.test_calm import batch, gradients, literal, model
from training import recipes
from training.recipes import CALM


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return {"images": images, "labels": torch.arange(24) % 4}


@pytest.fixture
def recipe():
    return em_ml.small(recipes.drawn_recipe(CALM, 3, lr=0.1, groups=(), batch=8))


@pytest.fixture(scope="module")
def found(data):
    recipe = em_ml.small(recipes.drawn_recipe(CALM, 3, lr=0.1, groups=(), batch=8))
    rows = em_ml.steps("resnet8", data, data, recipe)
    return {(row["way"], row["update"]): row["value"] for row in rows if row["part"] == "steps"}, rows


def test_ml_is_its_own_base_and_every_way_is_compared_at_every_step(found):
    distances, _ = found
    assert {update for _, update in distances} == {1, 3, 9}  # 9 updates in all
    assert all(value == 0 for (way, _), value in distances.items() if way in ("ML", "ML, float64"))
    assert {way for way, _ in distances} == {"ML", "ML, float64", *(way.name for way in em_ml.WAYS)}


def test_em_is_ml_up_to_rounding_and_what_is_not_em_is_not(found):
    distances, _ = found
    assert distances["EM, float64", 9] < 1e-9
    assert distances["EM, as released", 1] < 1e-6
    assert 0 < distances["ML, first weights 1e-7 off", 1] < 1e-6
    assert distances["ML, in probabilities, as released", 1] < 1e-6
    assert distances["ML, in probabilities, as released", 9] > 0
    for way in ("EM, epsilon 0.01", "ML, other batches"):
        assert distances[way, 1] > 1e-5
    assert distances["EM, posterior up to 10 updates old", 1] == pytest.approx(distances["EM, as released", 1], abs=1e-6)
    assert distances["EM, posterior up to 10 updates old", 3] > 1e-4


def test_a_constant_s_is_another_gradient_for_both_objectives_alike(found):
    distances, _ = found
    ml, em = (distances[f"{objective}, S a constant, as released", 1] for objective in ("ML", "EM"))
    assert ml > 1e-5
    assert em == pytest.approx(ml, rel=1e-3)


def test_the_walk_takes_the_steps_of_the_training_loop(data, recipe):
    torch.manual_seed(0)
    from training.loop import fit

    for updated in em_ml.walk(em_ml.Way("ML"), "resnet8", data, recipe, 3):
        walked = updated
    torch.manual_seed(3)
    fitted = em_ml.build("resnet8", 4, objective="ml")
    fit(fitted, recipe, data, seed=3, device="cpu", progress=False)
    assert torch.allclose(em_ml.weights(walked), em_ml.weights(fitted), atol=1e-6)


def test_quality_is_of_the_marginal(data):
    model = em_ml.build("resnet8", 4, objective="ml").eval()
    with torch.no_grad():
        joint = model.head.log_joint(model.classifier.activations(data["images"].float() / 255)).exp().double().sum((2, 3))
    found = em_ml.quality(model.classifier, data)
    expected = -sum(math.log(joint[i, label]) for i, label in enumerate(data["labels"].tolist())) / 24
    assert found["nll"] == pytest.approx(expected, rel=1e-5)
    assert found["accuracy"] == pytest.approx(
        100 * sum(int(row.argmax()) == int(y) for row, y in zip(joint, data["labels"], strict=True)) / 24
    )


def test_spread_is_over_seeds_and_pairs_share_their_seed():
    values = {way: [18.0] * 3 for way in em_ml.OBJECTIVES} | {"calm_ml": [10.0, 20.0, 30.0], "calm_em": [11.0, 22.0, 33.0]}
    rows = [
        {"part": "seeds", "way": way, "seed": seed, "metric": "accuracy", "value": value}
        for way, each in values.items()
        for seed, value in enumerate(each)
    ]
    out = {row["way"]: row for row in em_ml.spread([*rows, {"part": "end", "way": "ML", "metric": "accuracy", "value": 99.0}])}
    assert (out["calm_ml"]["value"], out["calm_ml"]["deviation"]) == (20, 10)
    assert (out["calm_em minus calm_ml"]["value"], out["calm_em minus calm_ml"]["deviation"]) == (2, 1)
    assert out["calm_em minus calm_ml"]["ci_low"] is None  # three seeds have no interval
    assert (out["calm_ml"]["least"], out["calm_ml"]["most"]) == (10, 30)
    assert (out["calm_em[detached] minus calm_ml"]["value"], out["calm_em[detached] minus calm_ml[detached]"]["value"]) == (-2, 0)


def test_a_killed_run_goes_on(data, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(em_ml, "OBJECTIVES", {"calm_ml": {"objective": "ml"}, "calm_em": {"objective": "em"}})
    rows = em_ml.seeds("resnet8", data, data, recipe, 2, tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/model.safetensors")}
    assert len(kept) == 4
    assert em_ml.seeds("resnet8", data, data, recipe, 2, tmp_path) == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/model.safetensors")} == kept


def test_released_ml_sums_probabilities():
    """The same value and gradient as in log space, place by place; where p(y*|x) underflows it is infinite, log space is not."""
    made, plain = model("ml", em_ml.InProbabilities), model("ml")
    by_hand = [math.log(literal(made, b)[2][label]) for b, label in enumerate(batch()["labels"].tolist())]
    assert float(made.loss(batch())[0]) == pytest.approx(-sum(by_hand) / 4, rel=1e-9)
    torch.testing.assert_close(gradients(made), gradients(plain), rtol=1e-8, atol=1e-12)
    for one in (made, plain):
        with torch.no_grad():
            one.head.class_head.bias.zero_()[3] = -1e4
    assert float(made.loss(batch())[0]) == math.inf
    assert math.isfinite(float(plain.loss(batch())[0]))


def lagged(**options) -> em_ml.Lagged:
    return model("em", lambda backbone, classes, _, **more: em_ml.Lagged(backbone, classes, **more), **options)


def changed(made: Calm) -> None:
    with torch.no_grad():
        for parameter in made.classifier.parameters():
            parameter.mul_(1.1).add_(0.01)


def opened(made: Calm) -> None:
    """Every place open, before and after `changed`."""
    with torch.no_grad():
        made.head.location_head.weight.abs_()


def test_lagged_posterior_of_one_update_is_em():
    em, late = model("em"), lagged(lag=1).train()
    for _ in range(3):
        torch.testing.assert_close(gradients(em), gradients(late), rtol=1e-12, atol=1e-14)
        assert em.loss(batch())[0].item() == pytest.approx(late.loss(batch())[0].item(), rel=1e-12)
        changed(em)
        changed(late)


def test_lagged_posterior_is_that_of_the_earlier_parameters():
    """Loss -sum_z q_old log joint_new, with q_old by the literal definition; renewed before the third update, never in eval mode."""
    made = lagged(lag=2, epsilon=0.0)
    opened(made)
    made.train()
    labels = batch()["labels"]

    def posterior() -> list[torch.Tensor]:
        joints = [literal(made, b)[0][labels[b]] for b in range(4)]
        return [joint / joint.sum() for joint in joints]

    def expected(q: list[torch.Tensor]) -> float:
        return -sum(float((q[b] * literal(made, b)[0][labels[b]].log()).sum()) for b in range(4)) / 4

    old = posterior()
    assert made.loss(batch())[0].item() == pytest.approx(expected(old), rel=1e-6)
    changed(made)
    assert made.eval().loss(batch())[0].item() == pytest.approx(expected(old), rel=1e-6)  # counts no update
    assert made.train().loss(batch())[0].item() == pytest.approx(expected(old), rel=1e-6)
    assert expected(old) != pytest.approx(expected(posterior()), rel=1e-6)
    assert made.loss(batch())[0].item() == pytest.approx(expected(posterior()), rel=1e-6)
    assert not any(p.requires_grad for p in made.earlier.parameters())
    ml = model("ml")
    opened(ml)
    changed(ml)
    made.earlier.updates.fill_(1)
    torch.testing.assert_close(gradients(made), gradients(ml), rtol=1e-11, atol=1e-14)  # up to date, as after every renewal
    for one in (made, ml):
        changed(one)
    made.earlier.updates.fill_(1)
    assert (gradients(made) - gradients(ml)).abs().max() > 1e-6  # a lag, unlike EM as released, does change the gradient
