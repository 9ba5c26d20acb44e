"""LeGrad on a tiny transformer: its gradient by finite differences, TorchCAM's map, and a network that is left as it was."""

import numpy as np
import pytest
import torch
from torchvision.models import VisionTransformer

from cam_core import METHODS, Probe
from cam_core.classifier import Classifier
from tests import nets
from tests.test_methods import close, state, unchanged

LEGRAD = METHODS["legrad"]


def vit():
    torch.manual_seed(0)
    network = VisionTransformer(16, 8, 2, 2, 8, 12, num_classes=3).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return Classifier.of(network, "encoder.layers.encoder_layer_0").double()


def by_differences(classifier: Classifier, image: torch.Tensor, target: int, step: float = 1e-5) -> np.ndarray:
    """The formula for one image, head by head, the gradient by central differences of every attention weight."""
    network = classifier._network[0]
    tokens = network._process_input(((image - classifier.mean) / classifier.std)[None])
    tokens = torch.cat([network.class_token, tokens], 1) + network.encoder.pos_embedding
    total = np.zeros(4)
    for block in network.encoder.layers:
        own, n, width = block.self_attention, tokens.shape[1], tokens.shape[2]
        x = block.ln_1(tokens)[0]
        q, k, v = (x @ own.in_proj_weight[i * width : (i + 1) * width].T + own.in_proj_bias[i * width : (i + 1) * width] for i in range(3))
        half = width // 2
        looks = [torch.softmax(q[:, h : h + half] @ k[:, h : h + half].T / half**0.5, 1) for h in (0, half)]

        def score(attention, v=v, half=half, block=block, own=own, tokens=tokens):
            mixed = torch.cat([a @ v[:, h : h + half] for a, h in zip(attention, (0, half), strict=True)], 1)
            seen = tokens + (mixed @ own.out_proj.weight.T + own.out_proj.bias)[None]
            out = seen + block.mlp(block.ln_2(seen))
            return out, float(network.heads(network.encoder.ln(out.mean(1)))[0, target])

        for head in range(2):
            for i, j in np.ndindex(n, n - 1):  # the first key is the class token
                ends = []
                for sign in (1, -1):
                    moved = [a.clone() for a in looks]
                    moved[head][i, j + 1] += sign * step
                    ends.append(score(moved)[1])
                total[j] += max((ends[0] - ends[1]) / (2 * step), 0) / (2 * n) / 2  # over heads and queries, and over blocks
        tokens = score(looks)[0]
    return total.reshape(2, 2)


def test_it_is_the_formula_by_finite_differences():
    classifier, x, targets = vit(), nets.images(2), [2, 0]
    with torch.no_grad():
        want = np.stack([by_differences(classifier, x[b], targets[b]) for b in range(2)])
    assert want.max() > 0
    close(LEGRAD(Probe(classifier, x, targets)), torch.tensor(want), tolerance=1e-6)


@pytest.mark.oracle
def test_torchcam_has_the_same_map():
    torchcam = pytest.importorskip("torchcam.methods", reason="torchcam is not installed: make setup")
    classifier, x = vit(), nets.images(2)
    network = classifier._network[0]
    with torchcam.LeGrad(network, list(network.encoder.layers)) as extractor:
        network(classifier.normalize(x))
        theirs = extractor([2, 0], normalized=False)[0].detach()
    close(LEGRAD(Probe(classifier, x, [2, 0])), theirs)


def test_batches_inference_mode_and_frozen_copies_do_not_matter_and_nothing_is_left_behind():
    classifier, x = vit().requires_grad_(False), nets.images(3)
    before, together = state(classifier), LEGRAD(Probe(classifier, x))
    unchanged(before, state(classifier))
    assert not together.requires_grad
    close(together, torch.cat([LEGRAD(Probe(classifier, one[None])) for one in x]))
    with torch.inference_mode():
        close(LEGRAD(Probe(classifier, nets.images(3))), together)
    close(LEGRAD(Probe(classifier.frozen(), x)), together)


def test_a_network_without_attention_is_refused():
    with pytest.raises(ValueError, match="LeGrad reads the attention of torchvision's vision transformers, and tiny is none: use grad_cam"):
        LEGRAD(Probe(nets.gap(), nets.images(1)))
