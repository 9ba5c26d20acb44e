"""Every method in one explicit table: name -> `Method`; calling it with a `Probe` gives raw maps [B,h,w] or, of pixels, [B,H,W].

Where a paper, its code and later papers disagree, the plain name is the paper's form (Score-CAM: the authors' code, because the paper
contradicts itself); the other forms have the difference in brackets.
"""

from difflib import get_close_matches
from functools import partial

from cam_core.methods import activation, attention, budget, control, fusion, gradient, increment, perturbation, pixel
from cam_core.methods.method import Method

_general = partial(Method, target_dependent=False)
_control = partial(_general, control=True)
_image = partial(_control, finished=True)
_increment = partial(Method, paper="IEEE Access", year=2024)
_HALF = "1 + head + about K/2"

METHODS = {
    method.name: method
    for method in (
        # activations alone
        Method("cam", activation.cam, "Zhou et al., CVPR", 2016, "1"),
        Method("cam[calm]", partial(activation.cam, bias=True), "as in Kim et al., ICCV", 2021, "1"),
        _general("eigen_cam", activation.eigen_cam, "Muhammad & Yeasin, IJCNN", 2020, "1"),
        _general("eigen_cam[centred]", partial(activation.eigen_cam, centred=True), "pytorch-grad-cam", 2021, "1"),
        _general("kpca_cam", activation.kpca_cam, "Karmani et al., MMSP", 2024, "1"),
        _general("fem", activation.fem, "Fuad et al., IPTA", 2020, "1"),
        _general("fem[activations]", activation.fem_weighted_activations, "as in pytorch-grad-cam", 2020, "1"),
        # a gradient of the head
        Method("grad_cam", gradient.grad_cam, "Selvaraju et al., ICCV", 2017, "1 + head"),
        Method("grad_cam_pp", gradient.grad_cam_pp, "Chattopadhay et al., WACV", 2018, "1 + head"),
        Method("grad_cam_pp[authors]", gradient.grad_cam_pp_authors, "Chattopadhay et al., released code", 2018, "1 + head"),
        Method("grad_cam_pp[l_cam]", gradient.grad_cam_pp_l_cam, "as in Gkartzonika et al., ECCVW", 2022, "1 + head"),
        Method("xgrad_cam", gradient.xgrad_cam, "Fu et al., BMVC", 2020, "1 + head"),
        Method("hires_cam", gradient.hires_cam, "Draelos & Carin, arXiv", 2020, "1 + head"),
        Method("grad_cam_elementwise", gradient.grad_cam_elementwise, "pytorch-grad-cam", 2021, "1 + head"),
        Method("eigen_grad_cam", gradient.eigen_grad_cam, "pytorch-grad-cam", 2021, "1 + head"),
        Method("seg_eigen_cam", gradient.seg_eigen_cam, "Chung & Ying, Appl. Sci.", 2025, "1 + head"),
        Method("finer_cam", gradient.finer_cam, "Zhang et al., CVPR", 2025, "1 + 4 heads"),
        Method("finer_cam[softmax]", gradient.finer_cam_softmax, "Zhang et al., released code", 2025, "1 + 4 heads"),
        Method("shapley_cam", gradient.shapley_cam, "Cai, arXiv", 2025, "1 + 2 heads"),
        Method("expected_grad_cam", gradient.expected_grad_cam, "Buono et al., TMLR", 2026, "1 + 20"),
        Method("layer_cam", gradient.layer_cam, "Jiang et al., TIP", 2021, "1 + head"),
        Method("layer_cam[fused]", gradient.layer_cam_fused, "Jiang et al., TIP", 2021, "1 + a gradient from each layer"),
        Method("refine_cam", gradient.refine_cam, "Domeniconi et al., arXiv", 2026, "1 + a gradient from each layer"),
        # masked images, masked channels
        Method("score_cam", perturbation.score_cam, "Wang et al., CVPRW", 2020, "1 + K"),
        Method("score_cam[softmax]", perturbation.score_cam_softmax, "as in pytorch-grad-cam, TorchCAM", 2020, "1 + K"),
        Method("score_cam[l_cam]", perturbation.score_cam_l_cam, "as in Gkartzonika et al., ECCVW", 2022, "1 + K"),
        Method("score_cam[until=0.99]", budget.score_cam_until, "ours, after Wang et al.", 2026, "1 + 32, 64, ... or K, as it needs"),
        *(
            Method(f"score_cam[budget={m}]", partial(budget.score_cam_budget, passes=m), "ours, after Wang et al.", 2026, f"1 + {m}")
            for m in (32, 64, 128, 256)
        ),
        Method("poly_cam", perturbation.poly_cam, "Englebert et al., MVA", 2024, "1 + 2 K of each layer"),
        Method("ss_cam", perturbation.ss_cam, "Naidu & Michael, arXiv", 2020, "1 + 35 K"),
        Method("is_cam", perturbation.is_cam, "Naidu et al., arXiv", 2020, "1 + 10 K"),
        Method("is_cam[cumulative]", partial(perturbation.is_cam, cumulative=True), "as in TorchCAM", 2020, "1 + 10 K"),
        Method("ablation_cam", perturbation.ablation_cam, "Desai & Ramaswamy, WACV", 2020, "1 + K heads"),
        Method("fd_cam", perturbation.fd_cam, "Li et al., ICPR", 2022, "1 + 2 K heads"),
        Method("recipro_cam", perturbation.recipro_cam, "Byun & Lee, CVPRW", 2024, "1 + h w heads"),
        Method("group_cam", perturbation.group_cam, "Zhang et al., arXiv", 2021, "1 + head + 33"),
        Method("group_cam[head]", perturbation.group_cam_head, "Zhang et al., latest code", 2021, "1 + head + 33"),
        Method("rise", perturbation.rise, "Petsiuk et al., BMVC", 2018, "4000"),
        Method("opti_cam", perturbation.opti_cam, "Zhang et al., CVIU", 2024, "1 + 50 with gradient"),
        # two maps joined
        Method("grad_pp_score_cam", fusion.grad_pp_score_cam, "Soomro et al., IEEE Access", 2024, "1 + head + K"),
        Method("fusion_cam", fusion.fusion_cam, "Dekdegue et al., arXiv", 2026, "1 + head + K + 4"),
        Method("guided_grad_cam", fusion.guided_grad_cam, "Selvaraju et al., ICCV", 2017, "1 + head + 1 with gradient"),
        # attention
        Method("legrad", attention.legrad, "Bousselham et al., ICCV", 2025, "1 + a gradient from each block"),
        # pixels
        Method("saliency", pixel.saliency, "Simonyan et al., ICLRW", 2014, "1 with gradient"),
        Method("smooth_grad", pixel.smooth_grad, "Smilkov et al., arXiv", 2017, "25 with gradient"),
        Method("smooth_grad[calm]", pixel.smooth_grad_calm, "as in Kim et al., ICCV", 2021, "50 with gradient"),
        Method("smooth_grad_squared[calm]", pixel.smooth_grad_squared_calm, "as in Kim et al., ICCV", 2021, "50 with gradient"),
        Method("var_grad", pixel.var_grad, "Adebayo et al., ICLRW", 2018, "25 with gradient"),
        Method("var_grad[calm]", pixel.var_grad_calm, "as in Kim et al., ICCV", 2021, "50 with gradient"),
        Method("integrated_gradients", pixel.integrated_gradients, "Sundararajan et al., ICML", 2017, "50 with gradient"),
        Method("integrated_gradients[calm]", pixel.integrated_gradients_calm, "as in Kim et al., ICCV", 2021, "51 with gradient"),
        Method("guided_backprop", pixel.guided_backprop, "Springenberg et al., ICLRW", 2015, "1 with gradient"),
        # Increment-CAM and the readings of it that pages and benchmarks show; `studies.increment_cam` tries many more
        _increment("increment_cam", increment.increment_cam, passes=_HALF + " at map resolution"),
        _increment("increment_cam[mid]", partial(increment.increment_cam, resolution=112), passes=_HALF + " at 112 x 112"),
        _increment("increment_cam[full]", partial(increment.increment_cam, resolution="image"), passes=_HALF + " at image resolution"),
        _increment("increment_cam[channels]", partial(increment.increment_cam, merge="channels"), passes=_HALF + " at map resolution"),
        # controls
        _control("mean_activation", activation.mean_activation, "control", 0, "1"),
        _control("random_map", control.random_map, "control", 0, "0"),
        _control("edges", control.edges, "control", 0, "0"),
        _image("center_gaussian", control.center_gaussian, "control", 0, "0"),
        _image("all_ones", control.all_ones, "control", 0, "0"),
        _image("fake_cam", control.fake_cam, "Poppi et al., CVPRW, a control", 2021, "0"),
    )
}

LEARNED_CONTROLS = ("mean_features", "random_l_cam", "random_tame")  # made from a learned model


def is_control(name: str) -> bool:
    """Whether the name is that of a control: a map that explains nothing, or only another map with a changed curve."""
    listed = name in METHODS and METHODS[name].control
    return listed or name in LEARNED_CONTROLS or name.startswith("other_") or "[power=" in name


def method(name: str) -> Method:
    """A method by name; ``grad_cam[power=0.5]`` is one raised to a power, ``grad_cam[mean=0.3]`` one brought to that mean.

    ValueError suggests the most similar name, or lists all.
    """
    if name in METHODS:
        return METHODS[name]
    plain, _, option = name.removesuffix("]").rpartition("[")
    kind, _, number = option.partition("=")
    if plain not in METHODS or kind not in ("power", "mean"):
        near = get_close_matches(name.lower().replace("-", "_"), METHODS, n=1)
        known = f"expected one of {', '.join(METHODS)}, or one of them with [power=p] or [mean=m]"
        raise ValueError(f"unknown method {name!r}: {f'did you mean {near[0]}?' if near else known}")
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"{name!r}: {kind} takes a number, got {number!r}") from None
    return METHODS[plain].power(value) if kind == "power" else METHODS[plain].at_mean(value)


__all__ = ["METHODS", "Method", "is_control", "method"]
