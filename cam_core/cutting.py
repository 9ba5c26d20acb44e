"""Where a network can be cut in two: `cut` gives what lies before a layer and what lies behind it.

A cut is a node of the network's ``torch.fx`` graph that lies on every path from input to output; `cuts` lists them all.
"""

import math
from collections import Counter
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.feature_extraction import NodePathTracer


def split(network: nn.Module, layer: str) -> tuple[nn.Module, nn.Module]:
    """`cut`, and a ViT's tokens [B,1+hw,K] between trunk and head turned into a map [B,K,h,w] with the class token beside it."""
    trunk, head = cut(network, layer)
    return (_Grid(trunk), _Tokens(head)) if isinstance(network, torchvision.models.VisionTransformer) else (trunk, head)


class _Grid(nn.Module):
    """Tokens -> (grid [B,K,h,w], class token [B,1,K]); the patches of a square image."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        tokens: Tensor = self.trunk(inputs)
        side = math.isqrt(tokens.shape[1] - 1)
        if tokens.ndim != 3 or side**2 != tokens.shape[1] - 1:
            raise ValueError(
                f"the layer gives {tuple(tokens.shape)}, no class token before a square grid of patches: take one of encoder.layers"
            )
        return tokens[:, 1:].mT.unflatten(2, (side, side)), tokens[:, :1]


class _Tokens(nn.Module):
    """(grid [B,K,h,w], class token [B,1,K]) -> what ``head`` makes of the tokens."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, grid: Tensor, token: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([token, grid.flatten(2).mT], 1))
        return logits


def cut(network: nn.Module, layer: str) -> tuple[nn.Module, nn.Module]:
    """Split a traceable network at ``layer`` into (trunk, head), weights shared: ``head(trunk(x)) == network(x)`` to the bit.

    ``layer`` is a node name of torchvision's feature extraction, or a prefix that stands for its last node ("layer4").
    ValueError if there is no such node, or if some path from input to output goes around it (a branch of a residual block).
    """
    graph, names = _trace(network)
    found = [node for node, name in names.items() if name == layer or name.startswith(f"{layer}.")]
    if not found:
        raise ValueError(f"no layer {layer!r} in this network; cuts are {abridged(list(_cut_names(graph, names).values()))}")
    node = found[-1]
    possible = _cut_names(graph, names)
    if node not in possible:
        order = {n: i for i, n in enumerate(graph.nodes)}
        near = sorted(possible, key=lambda n: abs(order[n] - order[node]))[:4]
        nearest = ", ".join(possible[n] for n in sorted(near, key=order.__getitem__))
        raise ValueError(f"{layer!r} is no cut: a path from input to output goes around it; the nearest layers that are: {nearest}")
    return _before(network, graph, node), _after(network, graph, node)


def cuts(network: nn.Module) -> list[str]:
    """Names of all layers at which the network can be cut, from input to output."""
    return list(_cut_names(*_trace(network)).values())


def last_map(network: nn.Module, size: int = 224) -> str:
    """The last cut that gives a map [B,K,h,w] of more than one place for images [B,3,size,size]: what lies before pooling and classifier.

    ValueError if there is none in the second half of the network, as in a transformer that passes tokens on.
    """
    graph, names = _trace(network)
    possible = _cut_names(graph, names)
    ShapeProp(fx.GraphModule(network, graph).eval()).propagate(next(network.parameters()).new_zeros(1, 3, size, size))
    for node in list(possible)[: len(possible) // 2 : -1]:
        shape = tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))
        if len(shape) == 4 and shape[2] == shape[3] > 1:  # the map of a square image is square; elsewhere the channels come last
            return possible[node]
    name = type(network).__name__
    raise ValueError(f"{name} has no map [B, K, h, w] before its classifier: pass layer=, one of {abridged(list(possible.values()))}")


def abridged(names: list[str]) -> str:
    """The first and last of many names, for a message."""
    return ", ".join(names if len(names) <= 8 else [*names[:3], "...", *names[-5:]])


def _trace(network: nn.Module) -> tuple[fx.Graph, dict[fx.Node, str]]:
    training = network.training
    try:
        tracer: Any = NodePathTracer(**_opaque(network))
        graph = tracer.trace(network.eval())
    except Exception as error:
        raise ValueError(f"{type(network).__name__} cannot be traced ({error}); hand it over as Classifier(trunk, head)") from error
    finally:
        network.train(training)
    return graph, dict(tracer.node_to_qualname)


def _opaque(network: nn.Module) -> dict[str, Any]:
    """What timm marks as not to be traced through: padding that depends on the image's size, for example."""
    if not type(network).__module__.startswith("timm."):
        return {}
    from timm.models import get_notrace_functions, get_notrace_modules

    return {"leaf_modules": get_notrace_modules(), "autowrap_functions": tuple(get_notrace_functions())}


def _cut_names(graph: fx.Graph, names: dict[fx.Node, str]) -> dict[fx.Node, str]:
    """Nodes that are the only value alive at some point between input and output."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    image = next(node for node in graph.nodes if node.op == "placeholder")
    dependent: dict[fx.Node, int] = {}  # nodes computed from the image -> position of their last use
    for node in graph.nodes:
        if node is image or any(source in dependent for source in node.all_input_nodes):
            dependent[node] = max((order[user] for user in node.users), default=-1)
    result, needed_until = {}, -1  # the last use of anything computed before the node
    for node, last_use in dependent.items():
        if node is not image and last_use >= 0 and needed_until <= order[node]:
            result[node] = names[node]
        needed_until = max(needed_until, last_use)
    return result


def folded(part: fx.GraphModule) -> fx.GraphModule:
    """BatchNorm in eval mode folded into the convolution before it, in place, wherever both are used once and share no parameter."""
    modules = dict(part.named_modules(remove_duplicate=False))
    calls = Counter(id(modules[str(node.target)]) for node in part.graph.nodes if node.op == "call_module")
    owners = Counter(id(value) for module in part.modules() for value in module.parameters(recurse=False))
    for node in list(part.graph.nodes):
        norm = modules[str(node.target)] if node.op == "call_module" else None
        before = node.all_input_nodes[0] if isinstance(norm, nn.BatchNorm2d) else None
        convolution = modules[str(before.target)] if before is not None and before.op == "call_module" else None
        if before is None or not isinstance(norm, nn.BatchNorm2d) or not isinstance(convolution, nn.Conv2d) or len(before.users) > 1:
            continue
        own = all(owners[id(value)] == 1 for module in (norm, convolution) for value in module.parameters())
        if own and calls[id(norm)] == calls[id(convolution)] == 1 and norm.running_mean is not None:
            part.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            behind = [module for module in norm.children() if not isinstance(module, nn.Identity)]  # timm's BatchNorm rectifies, too
            part.set_submodule(str(node.target), nn.Sequential(*behind))
    return part


def _before(network: nn.Module, graph: fx.Graph, node: fx.Node) -> fx.GraphModule:
    part, copied = fx.Graph(), dict[fx.Node, fx.Node]()
    for other in graph.nodes:
        copied[other] = part.node_copy(other, copied.__getitem__)
        if other is node:
            break
    part.output(copied[node])
    return _module(network, part)


def _after(network: nn.Module, graph: fx.Graph, node: fx.Node) -> fx.GraphModule:
    part = fx.Graph()
    given = part.placeholder("activations")
    # An in-place operation right behind the cut would overwrite the activations that a probe keeps.
    copied = {node: part.call_method("clone", (given,)) if any(_in_place(network, n) for n in node.users) else given}
    for other in graph.nodes:
        if other.op == "output":
            part.output(fx.map_arg(other.args[0], copied.__getitem__))
        elif other is not node and other.op != "placeholder" and all(source in copied for source in other.all_input_nodes):
            copied[other] = part.node_copy(other, copied.__getitem__)
    return _module(network, part)


def _module(network: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    part = fx.GraphModule(network, graph)
    part.graph.eliminate_dead_code()
    part.delete_all_unused_submodules()
    part.recompile()
    return part


def _in_place(network: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    return bool(node.kwargs.get("inplace", False))
