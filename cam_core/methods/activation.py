"""Maps from the activations A [B,K,h,w] alone, or from A and the weights of the last layer."""

import torch
from torch import Tensor

from cam_core.classifier import linear_head
from cam_core.probe import Probe


def weighted_sum(weights: Tensor, activations: Tensor) -> Tensor:
    """``sum_k w_k A_k``: weights [B,K], activations [B,K,h,w] -> [B,h,w]."""
    return torch.einsum("bk,bkhw->bhw", weights, activations)


def cam(probe: Probe, *, bias: bool = False) -> Tensor:
    """CAM (Zhou et al., CVPR 2016, eq. 2): ``sum_k W_ck A_k``, signed, the class's bias left out.

    ``bias``: add the class's bias at every position, as in CALM's release ("vanilla"). ValueError if the head is not global average pooling
    and one linear layer.
    """
    last = linear_head(probe.classifier, probe.activations.shape[1])
    weights, dtype = last.weight.detach()[probe.targets], probe.activations.dtype
    heat = weighted_sum(weights.to(dtype), probe.activations)
    return heat + last.bias.detach()[probe.targets, None, None].to(dtype) if bias and last.bias is not None else heat


def eigen_cam(probe: Probe, *, centred: bool = False) -> Tensor:
    """Eigen-CAM (Muhammad & Yeasin, IJCNN 2020): the activations [hw,K] projected on their first principal vector, whatever the class.

    From the smaller of the two Gram matrices, in float64. A singular vector has no sign: the map's sum is made positive (with A >= 0 it is
    then nowhere negative). ``centred``: as in pytorch-grad-cam, each channel's mean is subtracted first, and the larger extreme is made
    positive.
    """
    return first_component(probe.activations, centred=centred)


def first_component(activations: Tensor, *, centred: bool) -> Tensor:
    """`eigen_cam` of any [B,K,h,w]."""
    a = activations.double().flatten(2).mT  # [B,hw,K]
    a = a - a.mean(1, keepdim=True) if centred else a
    if a.shape[1] <= a.shape[2]:
        squares, vectors = torch.linalg.eigh(a @ a.mT)
        projected = vectors[..., -1] * squares[..., -1:].clamp_min(0).sqrt()
    else:
        projected = (a @ torch.linalg.eigh(a.mT @ a)[1][..., -1:])[..., 0]
    towards = projected.amax(1) + projected.amin(1) if centred else projected.sum(1)
    signed = torch.where(towards < 0, -1.0, 1.0)[:, None] * projected
    heat: Tensor = signed.unflatten(1, activations.shape[-2:]).to(activations.dtype)
    return heat


def kpca_cam(probe: Probe) -> Tensor:
    """KPCA-CAM (Karmani et al. 2024): the first component by kernel PCA, kernel ``tanh(a_i · a_j / K + 1)``, whatever the class.

    Each channel's mean is subtracted first. Read in pytorch-grad-cam, to which the abstract points; there the kernel is the default among
    scikit-learn's. The larger extreme is made positive, as there. In float64.
    """
    a = probe.activations.double().flatten(2).mT  # [B,hw,K]
    a = a - a.mean(1, keepdim=True)
    kernel = (a @ a.mT / a.shape[2] + 1).tanh()
    rows = kernel.mean(2, keepdim=True)
    squares, vectors = torch.linalg.eigh(kernel - rows - rows.mT + rows.mean(1, keepdim=True))
    component = vectors[..., -1] * squares[..., -1:].clamp_min(0).sqrt()
    component = torch.where(component.amax(1) + component.amin(1) < 0, -1.0, 1.0)[:, None] * component
    heat: Tensor = component.unflatten(1, probe.activations.shape[-2:]).to(probe.activations.dtype)
    return heat


def fem(probe: Probe, sigmas: float = 2.0) -> Tensor:
    """FEM (Fuad et al., IPTA 2020): ``sum_k mean(A_k) [A_k > mean(A_k) + 2 std(A_k)]``, whatever the class.

    As Xplique's documentation states it; the paper was not read. pytorch-grad-cam weighs otherwise (`fem_weighted_activations`).
    """
    a = probe.activations
    mean, spread = a.mean((2, 3)), a.std((2, 3), correction=0)
    return weighted_sum(mean, (a > (mean + sigmas * spread)[..., None, None]).to(a.dtype))


def fem_weighted_activations(probe: Probe, sigmas: float = 2.0) -> Tensor:
    """FEM as in pytorch-grad-cam: ``sum_k share_k A_k``, share_k the share of positions where ``A_k > mean(A_k) + 2 std(A_k)``."""
    a = probe.activations
    limit = a.mean((2, 3), keepdim=True) + sigmas * a.std((2, 3), correction=0, keepdim=True)
    return weighted_sum((a > limit).to(a.dtype).mean((2, 3)), a)


def mean_activation(probe: Probe) -> Tensor:
    """Control: the mean over channels. It shows where the network is active, whatever the class.

    LaFAM (Karjauv & Albayrak 2024, from its abstract and summaries of its formula) is this map, proposed as a method.
    """
    return probe.activations.mean(1)
