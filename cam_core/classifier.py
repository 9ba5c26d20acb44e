"""A classifier is a trunk and a head: the network before and after the layer that is explained (`cutting`).

``logits = head(trunk(normalize(images)))`` holds exactly, so a gradient with respect to the activations needs the head alone.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from cam_core.cutting import Tokens, folded, split
from cam_core.engine import Engine
from cam_core.options import one_of

Output = str | int | Callable[[Any], Tensor]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FACTS = ("size", "resize", "interpolation", "name", "layer", "weights", "activation", "output", "tokens")  # of a `Classifier`, but colours


class Classifier(nn.Module):
    """``trunk`` [B,3,H,W] -> activations [B,K,h,w], ``head`` activations -> logits [B,C]; images come in [0, 1], un-normalised.

    Normalisation lives inside, so that a mask on the image is a mask on pixels. ``mean`` and ``std`` are per channel, in [0, 1], and say
    how many channels the images have: 3 in what is written here, or another number. The classifier only records how images of other sizes
    are resized: ``resize`` is the short side before a centre crop of ``size``, ``interpolation`` "bilinear" or "bicubic"
    (`cam_core.data.transforms.view`).

    ``activation``: "softmax" (one class excludes the others) or "sigmoid" (several labels). A single logit z becomes two classes, no and
    yes: (0, z) for the softmax, (-z, z) for sigmoids. Either way yes has the probability sigmoid(z); in the first, no has no gradient.
    ``output``: where the logits are if the head returns more: a key, an index, or a function that makes them of all that it returns.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Module,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        size: int = 224,
        resize: int = 256,
        interpolation: str = "bilinear",
        name: str = "",
        layer: str = "",
        weights: str = "",
        activation: str = "softmax",
        output: Output | None = None,
        tokens: Tokens | None = None,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        one_of("activation", activation, ("softmax", "sigmoid"))
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} values and std {len(std)}: give each one for every channel of the images")
        self.trunk, self.head = trunk, head
        self.register_buffer("mean", _per_channel(mean), persistent=False)
        self.register_buffer("std", _per_channel(std), persistent=False)
        self.size, self.resize, self.interpolation = size, resize, interpolation
        self.name, self.layer, self.weights, self.activation, self.output = name, layer, weights, activation, output
        self.tokens = tokens
        self._network = [network]  # in a list, so that its parameters are not registered a second time
        self._cuts = dict[str, Classifier]()
        self.engine: Engine | None = None  # of a frozen copy: what scores images beside PyTorch

    @property
    def precision(self) -> torch.dtype:
        """The type of the weights, in which images enter the network."""
        return next((parameter.dtype for parameter in self.parameters()), self.mean.dtype)

    def normalize(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] in [0, 1] -> zero-mean, unit-variance input of the network."""
        return ((images - self.mean) / self.std).to(self.precision)

    def look(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images [B,3,H,W] in [0, 1] -> activations [B,K,h,w] and what the head needs beside them: nothing, or a class token."""
        return _apart(self.trunk(self.normalize(images)))

    def activations(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] in [0, 1] -> activations [B,K,h,w] of the explained layer."""
        return self.look(images)[0]

    def classify(self, activations: Tensor, *beside: Tensor) -> Tensor:
        """Activations [B,K,h,w], and what the head needs beside them -> logits [B,C], C > 1; ValueError if the head gives others."""
        return self.read(self.head(activations, *beside))

    def read(self, found: Any) -> Tensor:
        """What the head returned -> logits [B,C], C > 1."""
        logits = _logits(found, self.output)
        return self.two_classes(logits, 1) if logits.shape[1] == 1 else logits

    def two_classes(self, of_one: Tensor, dim: int) -> Tensor:
        """What belongs to a single logit z, of size 1 in ``dim`` -> what belongs to the two classes made of it."""
        return torch.cat([-of_one if self.activation == "sigmoid" else torch.zeros_like(of_one), of_one], dim)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [...,C] -> the probabilities of the classes, by the classifier's activation."""
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(-1)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Logits [...,C] -> the logarithms of the probabilities, which do not underflow."""
        return F.logsigmoid(logits) if self.activation == "sigmoid" else logits.log_softmax(-1)

    def scores(self, inputs: Tensor) -> Tensor:
        """Normalised images [B,3,H,W] -> logits [B,C]."""
        activations, beside = _apart(self.trunk(inputs.to(self.precision)))
        return self.classify(activations, *beside)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] in [0, 1] -> logits [B,C]; a frozen copy may leave them to its engine."""
        inputs = self.normalize(images)
        found = self.engine.scores(self, inputs) if self.engine is not None else None
        return self.scores(inputs) if found is None else found

    @property
    def whole(self) -> bool:
        """Whether the uncut network is known, so that `at` can cut it at another layer."""
        return self._network[0] is not None

    @property
    def network(self) -> nn.Module | None:
        """The uncut network, with the weights of before `frozen`; None if it is not known."""
        return self._network[0]

    @classmethod
    def of(
        cls,
        network: nn.Module,
        layer: str | None = None,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        size: int = 224,
        name: str = "",
        activation: str = "softmax",
        output: Output | None = None,
        tokens: Tokens | None = None,
    ) -> "Classifier":
        """A classifier of one's own network, weights shared, which goes into eval mode; its forward returns logits [B,C], or ``output``.

        ``layer`` as in `cut`; None: the last map, if the class name belongs to one of torchvision's families. ``mean`` and ``std`` are
        those it was trained with, and ``activation`` "sigmoid" if it has several labels or a single logit. ``tokens`` as in `split`: for a
        layer of a transformer. ValueError lists the possible layers if none is given and none is known.
        """
        from cam_core.pretrained import default_layer  # it imports this module

        layer = layer or default_layer(type(network).__name__.lower(), network)
        trunk, head = split(network.eval(), layer, tokens)
        facts: dict[str, Any] = {"size": size, "name": name, "layer": layer, "activation": activation, "output": output, "tokens": tokens}
        made = cls(trunk, head, mean=mean, std=std, network=network, **facts).eval()
        like = next(network.parameters(), made.mean)
        made.mean, made.std = made.mean.to(like), made.std.to(like)
        return made

    def at(self, layer: str) -> "Classifier":
        """The same network cut at another layer, weights shared. ValueError if the layer is no cut."""
        network = self._network[0]
        if network is None:
            raise ValueError("a classifier made of (trunk, head) has one cut only: make one that is cut at the layer you want")
        if layer not in self._cuts:
            other = self.with_parts(*split(network, layer, self.tokens), layer=layer, network=network)
            self._cuts[layer] = other if self.engine is None else other.frozen(self.engine.name)
        return self._cuts[layer].to(self.mean.device).train(self.training)

    def frozen(self, engine: str | None = None) -> "Classifier":
        """A copy for measuring: eval mode, BatchNorm folded into the convolutions, channels_last, no parameter gradients.

        Logits agree with the original up to float32 rounding. It does not follow later changes of the weights. ``engine`` scores masked
        images (`cam_core.engine`): "torch", "onnxruntime", "compile", or None for ONNX Runtime where it is installed and worth its export.
        """
        graphs = [module.graph for module in self.modules() if isinstance(module, fx.GraphModule)]
        views = any(node.target == "view" for graph in graphs for node in graph.nodes)  # a view of channels_last may not exist

        def fixed(part: nn.Module) -> nn.Module:
            part = copy.deepcopy(part).eval()
            part = folded(part) if isinstance(part, fx.GraphModule) else part
            return part if views else part.to(memory_format=torch.channels_last)

        other = self.with_parts(fixed(self.trunk), fixed(self.head), network=self.network)
        other.engine = Engine(self.engine.name if engine is None and self.engine is not None else engine)
        return other.eval().requires_grad_(requires_grad=False)

    def restart(self) -> None:
        """Let the engines of a frozen copy, and of its cuts at other layers, begin anew (`Engine.restart`)."""
        for one in (self, *self._cuts.values()):
            if one.engine is not None:
                one.engine.restart()

    def with_parts(self, trunk: nn.Module, head: nn.Module, **changed: Any) -> "Classifier":
        """A classifier of another trunk and head, in train mode, with this one's mean, std and `FACTS`, but for those ``changed`` by name.

        A new head that gives its own logits [B,C] needs ``output=None`` and its own ``activation``. The uncut network is not taken along.
        """
        other = Classifier(trunk, head, **{name: getattr(self, name) for name in FACTS} | changed)
        other.mean, other.std = self.mean, self.std
        return other

    def digest(self) -> str:
        """sha256 over all tensors of the state dict, for provenance."""
        total = hashlib.sha256()
        for key, value in sorted(self.state_dict().items()):
            total.update(key.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.get_default_dtype()).view(-1, 1, 1)  # integers 0 and 1 would otherwise give an integer tensor


def _apart(seen: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    return (seen, ()) if isinstance(seen, Tensor) else (seen[0], tuple(seen[1:]))


def _logits(found: Any, output: Output | None) -> Tensor:
    known = found if isinstance(found, Mapping) else range(len(found)) if isinstance(found, tuple | list) else ()
    logits = output(found) if callable(output) else found[output] if output in known else found
    if isinstance(logits, Tensor) and logits.ndim == 2:
        return logits
    inside = tuple(logits.shape) if isinstance(logits, Tensor) else list(logits) if isinstance(logits, Mapping) else ""
    got = f"{type(logits).__name__} {inside}".strip()
    raise ValueError(f"the network returns {got}, expected logits [B, C]: pass output=, their key or index or a function that makes them")


def linear_head(classifier: Classifier, channels: int) -> nn.Linear:
    """The head's linear layer, if the head is global average pooling followed by it (dropout aside); ValueError if not.

    Of a head with a single logit: the layer that gives both its classes.
    """
    linear = [module for module in classifier.head.modules() if isinstance(module, nn.Linear)]
    if len(linear) == 1 and linear[0].in_features == channels and not any(_has_other_weights(classifier.head, linear[0])):
        probe = torch.linspace(0, 1, channels * 6, device=linear[0].weight.device, dtype=linear[0].weight.dtype).view(1, channels, 2, 3)
        last = linear[0] if linear[0].out_features > 1 else _of_two_classes(classifier, linear[0])
        with torch.no_grad():
            said, expected = classifier.classify(probe), last(probe.mean((2, 3)))
        if said.shape == expected.shape and torch.allclose(said, expected, rtol=1e-4, atol=1e-5):
            return last
    raise ValueError(
        f"CAM needs a head of global average pooling and one linear layer; {classifier.name or 'this network'} cut at "
        f"{classifier.layer!r} has another one: use grad_cam, which equals CAM where both exist"
    )


def _of_two_classes(classifier: Classifier, linear: nn.Linear) -> nn.Linear:
    both: nn.Linear = nn.utils.skip_init(nn.Linear, linear.in_features, 2, bias=linear.bias is not None).to(linear.weight)
    both.load_state_dict({name: classifier.two_classes(value, 0) for name, value in linear.state_dict().items()})
    return both


def _has_other_weights(head: nn.Module, linear: nn.Linear) -> Iterator[bool]:
    own = {id(p) for p in linear.parameters()}
    return (id(p) not in own for p in head.parameters())
