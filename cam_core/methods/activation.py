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
    a = probe.activations.double().flatten(2).mT  # [B,hw,K]
    a = a - a.mean(1, keepdim=True) if centred else a
    if a.shape[1] <= a.shape[2]:
        squares, vectors = torch.linalg.eigh(a @ a.mT)
        projected = vectors[..., -1] * squares[..., -1:].clamp_min(0).sqrt()
    else:
        projected = (a @ torch.linalg.eigh(a.mT @ a)[1][..., -1:])[..., 0]
    towards = projected.amax(1) + projected.amin(1) if centred else projected.sum(1)
    signed = torch.where(towards < 0, -1.0, 1.0)[:, None] * projected
    heat: Tensor = signed.unflatten(1, probe.activations.shape[-2:]).to(probe.activations.dtype)
    return heat


def mean_activation(probe: Probe) -> Tensor:
    """Control: the mean over channels. It shows where the network is active, whatever the class."""
    return probe.activations.mean(1)
