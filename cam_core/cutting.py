"""Cutting a network in two: `cut` returns the part before a layer and the part after it.

A cut is a node of the network's ``torch.fx`` graph that lies on every path from input to output; `cuts` lists them all.
"""

import math
import operator
from functools import partialmethod
from types import FunctionType
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.feature_extraction import NodePathTracer

Tokens = int | tuple[int, int]


def split(network: nn.Module, layer: str, tokens: Tokens | None = None) -> tuple[nn.Module, nn.Module]:
    """`cut`; where the layer gives tokens [B,N,K], trunk and head exchange the patches as a map [B,K,h,w], and the other tokens beside it.

    ``tokens``: how many stand before the patches of a square image (class token, registers), or the grid (h, w) of the patches, the last of
    the tokens. 0 is also for maps whose channels come last, [B,h,w,K]. None: as torchvision's ViT and timm's transformers say themselves.
    """
    trunk, head = cut(network, layer)
    tokens = known_tokens(network) if tokens is None else tokens
    return (trunk, head) if tokens is None else (_Grid(trunk, tokens), _Tokens(head))


def known_tokens(network: nn.Module) -> int | None:
    """How many tokens stand before the patches in a transformer of torchvision or timm; None for other networks."""
    if isinstance(network, torchvision.models.VisionTransformer):
        return 1
    before: int | None = getattr(network, "num_prefix_tokens", 0 if getattr(network, "output_fmt", "") == "NHWC" else None)
    return before


class _Grid(nn.Module):
    """Tokens -> the patches as a grid [B,K,h,w] and, if there are such, the other tokens [B,n,K]."""

    def __init__(self, trunk: nn.Module, tokens: Tokens) -> None:
        super().__init__()
        self.trunk, self.tokens = trunk, tokens

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        found: Tensor = self.trunk(inputs)
        if found.ndim == 4 and self.tokens == 0 and found.shape[1] == found.shape[2]:
            return found.permute(0, 3, 1, 2)
        count = found.shape[1] if found.ndim == 3 else 0
        side = math.isqrt(max(0, count - self.tokens)) if isinstance(self.tokens, int) else 0
        height, width = (side, side) if isinstance(self.tokens, int) else self.tokens
        before = count - height * width
        if before < 0 or (isinstance(self.tokens, int) and before != self.tokens):
            shape = tuple(found.shape)
            raise ValueError(f"the layer gives {shape}, no square grid of patches behind tokens={self.tokens}: take the output of a block")
        return found[:, before:].mT.unflatten(2, (height, width)), found[:, :before]


class _Tokens(nn.Module):
    """What `_Grid` gives -> what ``head`` makes of the tokens."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, grid: Tensor, *others: Tensor) -> Any:
        return self.head(torch.cat([*others, grid.flatten(2).mT], 1) if others else grid.permute(0, 2, 3, 1))


def cut(network: nn.Module, layer: str) -> tuple[nn.Module, nn.Module]:
    """Split a traceable network at ``layer`` into (trunk, head), weights shared: ``head(trunk(x)) == network(x)`` to the bit.

    ``layer`` is a node name of torchvision's feature extraction, or a prefix that stands for its last node ("layer4").
    ValueError if there is no such node, if some path from input to output goes around it (a branch of a residual block), or if the network
    ends in a softmax or sigmoid, so that what it returns are no logits.
    """
    graph, names = _trace(network)
    _refuse_probabilities(network, graph)
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


def last_map(network: nn.Module, size: int = 224, channels: int = 3) -> str:
    """The last cut that gives a map [B,K,h,w] of more than one place for images of this size: what lies before pooling and classifier.

    ValueError if there is none in the second half of the network, as in a transformer that passes tokens on.
    """
    graph, names = _trace(network)
    possible = _cut_names(graph, names)
    ShapeProp(fx.GraphModule(network, graph).eval()).propagate(next(network.parameters()).new_zeros(1, channels, size, size))
    for node in list(possible)[: len(possible) // 2 : -1]:
        shape = tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))
        if len(shape) == 4 and shape[2] == shape[3] > 1:  # the map of a square image is square; elsewhere the channels come last
            return possible[node]
    name = type(network).__name__
    raise ValueError(f"{name} has no map [B, K, h, w] before its classifier: pass layer=, one of {abridged(list(possible.values()))}")


def abridged(names: list[str]) -> str:
    """The first and last of many names, for a message."""
    return ", ".join(names if len(names) <= 8 else [*names[:3], "...", *names[-5:]])


_PARALLEL = dict.fromkeys(("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel"), "module")
WRAPPERS = {**_PARALLEL, "OptimizedModule": "_orig_mod"}  # what is no network itself -> where it keeps the network


class _Value(fx.Proxy):
    """A traced value that keeps ``x += y`` in place; fx records ``x = x + y``, which other names and views of x would not see."""

    def _update(self, name: str, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", _updated, (self, f"i{name}", other), {}, name)

    __iadd__, __isub__ = partialmethod(_update, "add"), partialmethod(_update, "sub")
    __imul__, __itruediv__ = partialmethod(_update, "mul"), partialmethod(_update, "truediv")


def _updated(value: Any, name: str, other: Any) -> Any:
    return getattr(operator, name)(value, other)


class _Tracer(NodePathTracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)


def _trace(network: nn.Module) -> tuple[fx.Graph, dict[fx.Node, str]]:
    if (inner := WRAPPERS.get(type(network).__name__)) is not None:
        raise ValueError(f"{type(network).__name__} only wraps a network: pass the network itself, its .{inner}")
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError(f"{type(network).__name__} is a scripted network, which cannot be cut: pass the Python module it was made of")
    training = network.training
    try:
        tracer: Any = _Tracer(**_opaque(network))
        graph = tracer.trace(network.eval())
    except Exception as error:
        raise ValueError(f"{type(network).__name__} cannot be traced ({error}); pass it as Classifier(trunk, head)") from error
    finally:
        network.train(training)
    return graph, dict(tracer.node_to_qualname)


def _opaque(network: nn.Module) -> dict[str, Any]:
    """What timm marks as not traceable, for example padding that depends on the size of the image."""
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
        if node in names and node is not image and last_use >= 0 and needed_until <= order[node]:
            result[node] = names[node]
        needed_until = max(needed_until, last_use)
    return result


def folded(part: fx.GraphModule) -> fx.GraphModule:
    """Fold BatchNorm (eval mode), in place, into the convolution before it if that is called once and nothing else uses its output."""
    used = [str(node.target) for node in part.graph.nodes if node.op in ("call_module", "get_attr")]
    for node in part.graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or list(before.users) != [node]:
            continue
        name = str(before.target)
        conv, norm = part.get_submodule(name), part.get_submodule(str(node.target))
        alone = sum(f"{other}.".startswith(f"{name}.") for other in used) == 1
        hooked = conv._forward_pre_hooks or conv._forward_hooks  # spectral norm recomputes the weight at each call
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d) or not alone or hooked or norm.running_mean is None:
            continue
        # other subclasses of Conv2d change their weights in forward; timm's BatchNormAct2d also contains an activation
        if type(conv).__name__ in ("Conv2d", "Conv2dSame") and type(norm).__name__ in ("BatchNorm2d", "BatchNormAct2d"):
            part.set_submodule(name, fuse_conv_bn_eval(conv, norm))
            behind = [child for child in norm.children() if not isinstance(child, nn.Identity)]
            if behind:
                part.add_submodule(f"{node.name}_act", nn.Sequential(*behind))
                node.target = f"{node.name}_act"
            else:
                node.replace_all_uses_with(before)
                part.graph.erase_node(node)
    part.delete_all_unused_submodules()
    part.recompile()
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
    copied: dict[fx.Node, Any] = {node: given}
    for other in graph.nodes:
        if other.op == "placeholder" and other.args:  # an argument of forward beside the image, with its default
            copied[other] = other.args[0]
        elif other.op == "output":
            part.output(fx.map_arg(other.args[0], copied.__getitem__))
        elif other is not node and other.op != "placeholder" and all(source in copied for source in other.all_input_nodes):
            copied[other] = part.node_copy(other, copied.__getitem__)
    # An in-place operation on the activations, or on a view of them, would overwrite those that a probe keeps.
    if any(_in_place(network, other) for other in part.nodes):
        with part.inserting_after(given):
            clone = part.call_method("clone", (given,))
        given.replace_all_uses_with(clone, lambda user: user is not clone)
    return _module(network, part)


def _module(network: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    part = fx.GraphModule(network, graph)
    part.graph.eliminate_dead_code(lambda node: node.is_impure() or _in_place(network, node))  # ``x.relu_()`` acts, though nothing uses it
    part.delete_all_unused_submodules()
    part.recompile()
    return part


def _in_place(network: nn.Module, node: fx.Node) -> bool:
    """Whether a node may overwrite its input. Python functions outside torch are unknown, so they count as such."""
    if node.op == "call_module":
        return any(getattr(module, "inplace", False) for module in network.get_submodule(str(node.target)).modules())
    unknown = isinstance(node.target, FunctionType) and not node.target.__module__.startswith("torch")
    return unknown or _called(network, node).endswith("_") or bool(node.kwargs.get("inplace")) or "out" in node.kwargs


def _called(network: nn.Module, node: fx.Node) -> str:
    """The name of the class, function or method that a node calls."""
    called = type(network.get_submodule(str(node.target))) if node.op == "call_module" else node.target
    return str(getattr(called, "__name__", called))


def _refuse_probabilities(network: nn.Module, graph: fx.Graph) -> None:
    [[last]] = [node.args for node in graph.nodes if node.op == "output"]
    if isinstance(last, fx.Node) and (name := _called(network, last).lower()) in ("softmax", "sigmoid"):
        raise ValueError(f"{type(network).__name__} ends in a {name}, expected logits [B, C]: pass the network without it")
