"""Identifiers as the book prints them."""

import re

from cam_core.methods import is_control
from cam_core.methods.method import WRITTEN

NAMES = WRITTEN | {
    # methods and models
    "l_cam": "L-CAM", "l_cam_fm[ce]": "L-CAM-Fm, CE only", "l_cam_img[ce]": "L-CAM-Img, CE only",
    "l_cam_img[ce,raw]": "L-CAM-Img, CE only, attention on the image as it is",
    "lfi_cam[uniform]": "LFI-CAM, equal weights", "lfi_cam[learned]": "LFI-CAM, one learned map",
    "lfi_cam[kernel=1]": "LFI-CAM, 1×1 importance network", "lfi_cam_1x1": "LFI-CAM with a 1×1 importance network",
    "plain": "plain network", "plain[widened]": "plain network, widened", "calm": "CALM",
    "calm_ml[probabilities]": "CALM-ML, in probabilities", "calm_em[lag=100]": "CALM-EM, posterior up to 100 updates old",
    "calm_em, posterior": "CALM-EM, posterior", "calm_ml, posterior": "CALM-ML, posterior", "calm_em[detached]": "CALM-EM, S a constant",
    "calm_ml[detached]": "CALM-ML, S a constant", "calm_em[place]": "CALM-EM, place alone", "calm_ml[place]": "CALM-ML, place alone",
    "calm_em[family]": "CALM-EM, sum over the family", "calm_ml[family]": "CALM-ML, sum over the family",
    "cam[calm]": "CAM with the bias, as CALM's authors ran it", "cam[place]": "CAM, summed over all classes",
    "cam[family]": "CAM, summed over the family", "increment_cam[mid]": "Increment-CAM at 112 pixels",
    "increment_cam[channels]": "Increment-CAM, channel merge", "increment_cam_tuned": "Increment-CAM, tuned reading",
    "increment_cam_tuned, weights permuted": "the same, weights permuted",
    "increment_cam_tuned, weights equal": "the same, weights equal", "phase 2 alone": "its second phase alone",
    "grad_cam[no relu]": "Grad-CAM without ReLU", "grad_cam_tuned": "Grad-CAM, tuned",
    "grad_cam_pp[l_cam]": "Grad-CAM++ as in L-CAM's tables", "score_cam[l_cam]": "Score-CAM as in L-CAM's tables",
    "score_cam[until=0.99]": "Score-CAM until .99 is promised", "score_cam[budget=32]": "Score-CAM within 32 passes",
    "tame": "TAME", "tame[diagonal]": "TAME on own-class masks", "tame[random]": "TAME on batch masks", "random_tame": "untrained TAME",
    "finer_cam[softmax]": "Finer-CAM as released", "eigen_cam[centred]": "Eigen-CAM, centred",
    "fem[activations]": "FEM as in pytorch-grad-cam",
    # controls
    "grad_cam[power=2]": "Grad-CAM, squared", "grad_cam[power=0.5]": "Grad-CAM, square root",
    "grad_cam_tuned[power=2]": "Grad-CAM, tuned, squared", "random_map": "random map", "random_l_cam": "untrained L-CAM",
    "other_l_cam_fm": "L-CAM-Fm, map of another class", "other_l_cam_img": "L-CAM-Img, map of another class",
    "other_grad_cam": "Grad-CAM, map of another class", "all_ones": "all ones", "mean_activation": "mean activation",
    "mean_features": "mean of the features, attention out", "cue_mask": "the cue's mask", "cue_mask_coarse": "the mask on the map's grid",
    "cue_mask_coarse[power=2]": "the same, squared", "cue_mask_coarse[power=0.5]": "the same, square root",
    "cue_mask_inverse": "the inverse",
    # metrics, with the direction that is better
    "average_drop": "Average Drop ↓", "increase_in_confidence": "Increase in Confidence ↑", "average_gain": "Average Gain ↑",
    "win": "Win % ↑", "map_mean": "mean of the map", "empty_maps": "empty maps", "tied_pixels": "tied pixels",
    "top_1_masked": "top-1 under the mask ↑", "top_5_masked": "top-5 under the mask ↑", "insertion": "insertion ↑",
    "deletion": "deletion ↓", "remove_and_classify": "R, remove-and-classify ↓", "correct_after_removal": "right after removal ↓",
    "correct_after_random_removal": "right after random removal", "road_morf": "ROAD, most salient first ↓",
    "road_lerf": "ROAD, least salient first ↑", "road_combined": "ROAD, combined ↑", "adcc": "ADCC ↑", "coherency": "coherency ↑",
    "complexity": "complexity ↓", "sensitivity_n": "sensitivity-n ↑", "infidelity": "infidelity ↓",
    "max_sensitivity": "max-sensitivity ↓", "energy_pointing_game": "energy in the box ↑", "pointing_game": "pointing game ↑",
    "maximum_in_box": "maximum in the box ↑", "pixel_precision": "pixel AP in the box ↑", "false_activation": "false activation ↓",
    "box_iou": "box IoU ↑", "pxap": "PxAP ↑", "max_box_acc": "MaxBoxAcc ↑", "max_box_acc_v2": "MaxBoxAccV2 ↑",
    "localization_error": "localization error ↓", "cue_localization": "cue localization ↑",
    "cue_localization_box": "cue localization, cut at the box ↑", "follows_cue": "follows the cue ↑", "keeps_class": "keeps its answer ↑",
    "arcc": "ARCC ↑", "f_fidelity_plus": "F-Fidelity+ ↑", "f_fidelity_minus": "F-Fidelity− ↓", "single_deletion": "single deletion ↑",
    "completeness": "completeness ↑", "grid_localization": "localization in the grid ↑", "target_sensitivity": "target sensitivity ↑",
    "stability_iou": "IoU of two trainings ↑", "stability_iou_script": "IoU by LFI-CAM's script ↑",
    "stability_iou_area": "IoU of the top fifth ↑", "stability_dice": "Dice of two trainings ↑",
    "stability_dice_script": "Dice by LFI-CAM's script ↑", "stability_correlation": "correlation ↑",
    "effective_channels": "effective channels", "accuracy": "accuracy ↑", "mean_average_precision": "mean AP ↑",
    # data and networks
    "drawn_imagenet": "drawn objects (ImageNet layout)", "drawn_voc": "drawn scenes (VOC layout)",
    "drawn_cub": "drawn birds (CUB layout)", "imagenet": "ImageNet validation", "voc07": "VOC2007 test", "cub": "CUB-200-2011 test",
    "cifar10": "CIFAR-10 (subset)", "cifar100": "CIFAR-100", "stl10": "STL-10", "cat_dog": "cats and dogs", "resnet8": "ResNet-8",
    "resnet14": "ResNet-14", "resnet18": "ResNet-18", "resnet20": "ResNet-20", "resnet50": "ResNet-50",
    "resnet110_bottleneck": "ResNet-110 with bottlenecks", "densenet100_12": "DenseNet-BC-100-12", "resnext29_8x64d": "ResNeXt-29 8×64d",
    "efficientnet_lite0": "EfficientNet-Lite0", "squeezenet1_1": "SqueezeNet 1.1", "vgg16": "VGG-16", "mobilenet_v2": "MobileNetV2",
    # columns of the notebooks' tables
    "ci_low": "interval from", "ci_high": "to", "p_holm": "p (Holm)", "same_as": "same map as", "peak_memory_mib": "peak memory, MiB",
    # studies and benchmarks
    "forms": "forms of one method", "shortcut": "a planted mark", "lfi_features": "features of LFI-CAM's backbone",
    "em_ml": "EM beside ML", "scratch": "trainings from scratch", "ablations": "with parts changed", "e36": "36 epochs",
    "img": "L-CAM-Img", "l_cam_recipe": "how the recipe was chosen", "l_cam_epochs": "L-CAM-Fm over other numbers of epochs",
    "training": "speed of the learned models", "methods": "speed of the methods",
    "engines": "engines for the masked pass", "goals": "goals of speed", "gpu": "speed of the methods on a GPU",
    "whole": "runs with and without the engine", "score_cam_budget": "Score-CAM within a budget",
    "trust": "which metrics can be trusted", "calibration": "calibration of cue localization", "coverage": "coverage of the intervals",
    "equal_mean": "Average Drop at equal mean",
}  # fmt: skip


def name(word):
    """The printed form of an identifier, its arrow on the same line; an unknown one is shown as it is."""
    return re.sub(" (?=[↑↓]$)", "\N{NO-BREAK SPACE}", NAMES.get(word, word))


def place(dataset):
    """A data set's name without its remark in brackets."""
    return name(dataset).split(" (")[0]


def label(method):
    """A method's printed name at the head of a line, where a control is called one."""
    return ("control: " if is_control(method) else "") + name(method)


def measure(key):
    """The printed form of (metric, setting)."""
    metric, setting = key
    return f"{name(metric)} {setting}".strip()
