"""Maps from the activations alone, or with the weights of the last layer. A is [B,K,h,w]."""

import torch
from torch import Tensor

from cam_core.classifier import linear_head
from cam_core.probe import Probe


def cam(probe: Probe) -> Tensor:
    """CAM (Zhou et al., CVPR 2016, eq. 2): ``sum_k W_ck A_k``, signed, bias left out.

    ValueError if the head is not global average pooling and one linear layer.
    """
    weights = linear_head(probe.classifier, probe.activations.shape[1]).weight.detach()[probe.targets]
    return torch.einsum("bk,bkhw->bhw", weights, probe.activations)


def mean_activation(probe: Probe) -> Tensor:
    """Control: the plain mean over channels. It knows where the network is active and nothing of the class."""
    return probe.activations.mean(1)
