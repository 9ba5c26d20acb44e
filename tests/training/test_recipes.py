"""The papers' recipes, and which a model gets on which data: contenders get the same (see also test_paper_recipes)."""

from dataclasses import replace

import pytest

from training import recipes
from training.recipes import (
    ABN,
    ABN_IMAGENET,
    CALM,
    CALM_INCEPTION,
    CALM_VGG,
    CALM_WSOL,
    L_CAM,
    L_CAM_VGG,
    LFI_CAM,
    LFI_CAM_IMAGENET,
    PAPERS,
    Seen,
)  # fmt: skip


def test_contenders_learn_alike():
    for dataset, settings in recipes.SETTINGS.items():
        for setting in range(len(settings)):
            plain, *others = (recipes.scratch_recipe(kind, dataset, None, setting) for kind in ("plain", "lfi_cam", "abn"))
            for other in others:
                assert [line.split(":")[0] for line in other.differs_from(plain)] == ["name"]
    recipe = recipes.scratch_recipe("abn", "cat_dog")
    assert (recipe.name, recipe.epochs, recipe.milestones, recipe.crop) == ("abn_imagenet", 30, (15, 22), 64)
    assert recipe.precision == "bf16-mixed"
    assert recipes.scratch_recipe("lfi_cam", "cifar10").differs_from(LFI_CAM) == [
        "epochs: 12 instead of 300",
        "milestones: 6 9 instead of 150 225",
        "precision: bf16-mixed instead of 32-true",
    ]
    birds = recipes.scratch_plan("lfi_cam", "cub", "resnet18")  # fine-tuned: CALM's recipe, but FIN's BatchNorm has to learn
    assert birds.recipe.differs_from(recipes.calm_plan("cub", "resnet18", birds.recipe.epochs).recipe) == [
        "name: lfi_cam instead of calm",
        "frozen_batchnorm: false instead of true",
    ]
    assert birds.deviations == ("data: CUB, on which the paper does not train; fine-tuned by CALM's recipe",)
    with pytest.raises(ValueError, match="settings 0 to 4, got 5"):
        recipes.scratch_recipe("plain", "cifar10", 1, 5)
    with pytest.raises(ValueError, match="no reduced recipe for imagenet"):
        recipes.scratch_recipe("lfi_cam", "imagenet")
    with pytest.raises(ValueError, match="drawn_imagenet has settings 0 to 0, got 2"):
        recipes.scratch_recipe("lfi_cam", "drawn_imagenet", 1, 2)


def test_random_windows_are_cut_out_of_whole_images_only_with_the_papers_own_recipe():
    assert recipes.scratch_plan("abn", "cat_dog", "resnet18").seen == Seen()
    assert recipes.scratch_plan("abn", "cifar10", "resnet110", paper="paper").seen == Seen()
    assert recipes.scratch_plan("abn", "cat_dog", "resnet18", paper="paper").seen == Seen("full", "original", "crop", stream=True)
    with pytest.raises(ValueError, match="abn has no published recipe for drawn_cub: take one of cifar10, cifar100"):
        recipes.scratch_plan("abn", "drawn_cub", "resnet8", paper="paper")


def test_abn_has_a_recipe_for_each_of_its_networks():
    """By its released commands; the others learn all networks alike, and so does ABN where contenders are to."""
    told = {
        name: recipes.scratch_recipe("abn", "cifar10", paper="paper", network=name)
        for name in ("resnet110", "densenet100_12", "resnext29_8x64d")
    }
    assert {name: (recipe.batch, recipe.weight_decay) for name, recipe in told.items()} == {
        "resnet110": (128, 1e-4), "densenet100_12": (64, 1e-4), "resnext29_8x64d": (128, 5e-4),
    }  # fmt: skip
    assert all(PAPERS[recipe.name] == recipe for recipe in told.values())
    assert recipes.scratch_recipe("abn", "cifar10", network="densenet100_12") == recipes.scratch_recipe("abn", "cifar10")


def test_calm_is_reduced_by_the_data_it_learns():
    drawn, birds = recipes.calm_plan("drawn_cub", "resnet8"), recipes.calm_plan("cub", "resnet50", 3)
    assert (drawn.recipe.epochs, drawn.recipe.groups, drawn.deviations) == (22, (), ())
    assert (birds.recipe.epochs, birds.recipe.groups, birds.deviations) == (3, CALM.groups, ("maps: 14x14 instead of 28x28",))
    assert recipes.calm_plan("cub", "vgg16_bn").deviations == birds.deviations  # the released commands take it with BatchNorm
    assert birds.recipe.frozen_batchnorm
    for name, released in (("vgg16", CALM_VGG), ("inception_v3", CALM_INCEPTION)):  # their pretrained layers learn at the base rate, too
        assert recipes.calm_plan("cub", name).recipe.groups == released.groups
    assert recipes.calm_plan("cub", "resnet50", paper="paper").recipe == CALM
    with pytest.raises(ValueError, match="CALM has no reduced recipe for imagenet"):
        recipes.calm_plan("imagenet", "resnet50")


def test_the_wsol_benchmark_s_schedule_and_rates_go_by_the_data():
    """Ten epochs on ImageNet, a tenth of the rate from every third on; CUB's fifty fall every fifteenth."""
    for name, rate, decay in (("resnet50", 3.108411e-5, 1e-4), ("vgg16", 1.654502e-5, 5e-4), ("inception_v3", 3.606503e-4, 5e-4)):
        recipe = recipes.calm_plan("imagenet", name, paper="wsol").recipe
        assert (recipe.epochs, recipe.batch, recipe.lr, recipe.weight_decay) == (10, 32, rate, decay)
        assert [recipe.rate(epoch) for epoch in (0, 1, 2, 4, 5, 8, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001, 0.001])
        assert recipe.groups == recipes.calm_plan("cub", name, paper="wsol").recipe.groups
        assert PAPERS[recipe.name] == recipe
    assert recipes.calm_plan("cub", "resnet50", paper="wsol").recipe.milestones == (14, 29, 44)
    with pytest.raises(ValueError, match="the WSOL benchmark has no recipe for voc07: take one of cub, imagenet"):
        recipes.calm_plan("voc07", "resnet50", paper="wsol")


def test_l_cam_s_variants_differ_in_their_epochs_alone():
    fm, img = (recipes.l_cam_plan(variant, "resnet50") for variant in ("fm", "img"))
    assert (fm.recipe.epochs, img.recipe.epochs) == (25, 5)
    assert [line.split(":")[0] for line in img.recipe.differs_from(fm.recipe)] == ["epochs", "milestones"]
    assert img.recipe.milestones == (1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2)  # twelve falls in the first 12 of 26 epochs
    assert fm.seen == img.seen
    assert recipes.l_cam_plan("img", "vgg16", 2, "paper").recipe.milestones == (1, 1, 1, 1, 1, 2, 2)
    assert img.recipe.rate(0) == img.recipe.rate(0.99) == 1  # the stated rate is that of the first epoch
    assert recipes.l_cam_plan("fm", "resnet50", paper="paper").recipe == L_CAM


def test_a_network_that_the_paper_does_not_have_is_a_deviation():
    """Named beside the paper's of the same family, by its own recipe and by a reduced one; the papers' own networks are none."""
    plan = {
        "l_cam": lambda name, paper: recipes.l_cam_plan("fm", name, paper=paper),
        "calm": lambda name, paper: recipes.calm_plan("cub", name, paper=paper),
        "lfi_cam": lambda name, paper: recipes.scratch_plan("lfi_cam", "cifar10", name, paper=paper),
    }
    others = {
        ("l_cam", "resnet18"): "resnet50", ("l_cam", "vgg11"): "vgg16", ("calm", "resnet18"): "resnet50", ("calm", "vgg16"): "vgg16_bn",
        ("lfi_cam", "resnet20"): "resnet110_bottleneck",
    }  # fmt: skip
    for paper in ("", "paper"):
        for (model, name), kin in others.items():
            assert plan[model](name, paper).deviations[-1] == f"network: {name} instead of {kin}"
        for model, name in (("l_cam", "vgg16"), ("calm", "vgg16_bn"), ("calm", "inception_v3"), ("lfi_cam", "densenet100_12")):
            assert not [line for line in plan[model](name, paper).deviations if line.startswith("network")]
    for depth in (44, 56, 110):  # the release builds blocks of three convolutions from depth 44 on
        for model, paper in (("lfi_cam", ""), ("abn", "paper")):
            told = recipes.scratch_plan(model, "cifar10", f"resnet{depth}", paper=paper).deviations
            assert told[0] == "blocks: of two convolutions instead of three, which the release takes from depth 44 on"
            assert not any("blocks" in line for line in recipes.scratch_plan(model, "cifar10", f"resnet{depth}_bottleneck").deviations)
    assert recipes.l_cam_plan("fm", "mobilenet_v2").deviations == ("network: mobilenet_v2 instead of resnet50",)
    assert recipes.calm_plan("cub", "vgg16", paper="wsol").deviations == ()  # the benchmark's VGG has no BatchNorm
    assert recipes.calm_plan("cub", "inception_v3", paper="wsol").deviations == ()  # its Inception reads Mixed_6e, as ours does
    assert any(line.startswith("Mixed_6e: read") for line in recipes.calm_plan("cub", "inception_v3").deviations)
    assert recipes.scratch_plan("plain", "drawn_imagenet", "resnet8").deviations == ()


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


def test_recipes_of_larger_images_and_abn_are_the_papers():
    assert [ABN_IMAGENET.rate(epoch) for epoch in (0, 30, 31, 61)] == pytest.approx([1, 1, 0.1, 0.01])
    assert (ABN_IMAGENET.epochs, ABN_IMAGENET.batch, ABN_IMAGENET.weight_decay) == (90, 256, 1e-4)
    assert (LFI_CAM_IMAGENET.batch, LFI_CAM_IMAGENET.crop, LFI_CAM_IMAGENET.resized) == (256, 224, (0.08, 1.0))
    assert ABN.differs_from(LFI_CAM) == ["name: abn instead of lfi_cam"]
    assert (L_CAM_VGG.lr, L_CAM_VGG.epochs, L_CAM_VGG.decay, L_CAM_VGG.nesterov) == (1e-2, 8, 0.75, True)
    assert [CALM_WSOL.rate(epoch) for epoch in (13, 14, 29, 44)] == pytest.approx([1, 0.1, 0.01, 0.001])
    assert all(PAPERS[name].name == name for name in PAPERS)


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
