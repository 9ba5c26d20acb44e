"""Every method in one explicit table: name -> `Method`; calling it with a `Probe` gives raw maps [B,h,w]."""

from cam_core.methods.activation import cam, mean_activation
from cam_core.methods.control import center_gaussian, random_map
from cam_core.methods.gradient import grad_cam, grad_cam_pp, hires_cam, layer_cam
from cam_core.methods.increment import increment_cam
from cam_core.methods.method import Method
from cam_core.methods.perturbation import score_cam

METHODS = {
    method.name: method
    for method in (
        Method("cam", cam, "Zhou et al., CVPR", 2016, "1"),
        Method("grad_cam", grad_cam, "Selvaraju et al., ICCV", 2017, "1 + head"),
        Method("grad_cam_pp", grad_cam_pp, "Chattopadhay et al., WACV", 2018, "1 + head"),
        Method("hires_cam", hires_cam, "Draelos & Carin, arXiv", 2020, "1 + head"),
        Method("layer_cam", layer_cam, "Jiang et al., TIP", 2021, "1 + head"),
        Method("score_cam", score_cam, "Wang et al., CVPRW", 2020, "1 + K"),
        Method("increment_cam", increment_cam, "IEEE Access", 2024, "1 + head + about K/2 at map resolution"),
        Method("mean_activation", mean_activation, "control", 0, "1", target_dependent=False, control=True),
        Method("random_map", random_map, "control", 0, "0", target_dependent=False, control=True),
        Method("center_gaussian", center_gaussian, "control", 0, "0", target_dependent=False, finished=True, control=True),
    )
}


def method(name: str) -> Method:
    """A method by name; ``grad_cam[power=0.5]`` is one raised to a power. ValueError names those that exist."""
    plain, _, option = name.partition("[")
    if plain not in METHODS or (option and not option.startswith("power=")):
        raise ValueError(f"unknown method {name!r}: expected one of {', '.join(METHODS)}, or one of them with [power=p]")
    return METHODS[plain].power(float(option[len("power=") : -1])) if option else METHODS[plain]


__all__ = ["METHODS", "Method", "method"]
