"""Maps from the attention of a vision transformer: torchvision's `VisionTransformer` and networks built like it."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cam_core.probe import Probe


def legrad(probe: Probe) -> Tensor:
    """LeGrad (Bousselham et al., ICCV 2025): ``mean over blocks, heads, queries of ReLU(d s_l / d A_l)``, on the grid of the patches.

    A_l is the attention after its softmax in block l, s_l the target's logit if the head gets the mean of block l's tokens. Read in the
    release and TorchCAM; over all blocks, whatever layer is explained. ValueError for a network that has no such blocks.
    """
    network: Any = probe.classifier.network
    encoder: Any = getattr(network, "encoder", None)
    blocks = list(getattr(encoder, "layers", ()))
    if not blocks or not all(isinstance(getattr(block, "self_attention", None), nn.MultiheadAttention) for block in blocks):
        name = probe.classifier.name or "this network"
        raise ValueError(f"LeGrad reads the attention of torchvision's vision transformers, and {name} is none: use grad_cam")

    def score(tokens: Tensor) -> Tensor:
        return probe.score(probe.classifier.read(network.heads(encoder.ln(tokens.mean(1)))))

    with torch.inference_mode(mode=False):
        found = [_rise(block, tokens, score).relu().mean((1, 2))[:, 1:] for block, tokens in _inputs(network, blocks, probe.inputs)]
    heat = torch.stack(found).mean(0)
    side = math.isqrt(heat.shape[1])
    return heat.reshape(-1, side, side).to(probe.images.dtype)


def _inputs(network: nn.Module, blocks: list[nn.Module], images: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Every block with the tokens [B,1+hw,D] that enter it."""
    kept: list[tuple[nn.Module, Tensor]] = []
    hooks = [block.register_forward_pre_hook(lambda own, given: kept.append((own, given[0]))) for block in blocks]
    try:
        with torch.no_grad():
            network(images.to(next(network.parameters()).dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def _rise(block: Any, tokens: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient [B,heads,queries,keys] of a score of the block's output by its attention."""
    own, heads = block.self_attention, block.self_attention.num_heads
    with torch.enable_grad():
        parts = F.linear(block.ln_1(tokens), own.in_proj_weight, own.in_proj_bias).unflatten(2, (3, heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # [B,heads,1+hw,D/heads]
        attention = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1).detach().requires_grad_()
        seen = tokens + own.out_proj((attention @ value).transpose(1, 2).flatten(2))
        rise: Tensor = torch.autograd.grad(score(seen + block.mlp(block.ln_2(seen))).sum(), attention)[0]
        return rise
