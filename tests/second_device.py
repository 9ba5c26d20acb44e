"""A second device on a machine without one: tensors that hold values, say they lie on "meta", and refuse to meet the CPU's.

A tensor that torch makes of a list with ``device=`` escapes: it holds no values, as ever on that device.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only

DEVICE = torch.device("meta")
ASKED = []  # what the host had to wait for: values, or how many there are
MAY_MIX = ("index", "index_put_", "index_fill_", "_index_put_impl_", "copy_", "_to_copy")  # as on a GPU: indices and copies


class There(torch.Tensor):
    """A tensor on the second device; ``held`` is the same on the CPU."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE)

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.tolist:  # what torch knows of no subclass
            ASKED.append("tolist")
            return args[0].held.tolist()
        if func is torch.Tensor.quantile:  # it changes a shape in place
            return There(args[0].held.quantile(*args[1:], **(kwargs or {})))
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], torch.tensor(args[1]) if isinstance(args[1], list) else args[1], *args[2:])
        return torch._C._disabled_torch_function_impl(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """``torch.zeros(..., device=DEVICE)`` makes one there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


def _computed(func, args, kwargs):
    name, met = func.overloadpacket.__name__, []
    tree_map_only(torch.Tensor, met.append, (args, kwargs))
    there = any(isinstance(one, There) for one in met)
    if there and name not in MAY_MIX and any(one.ndim and not isinstance(one, There) for one in met):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found at least two devices, meta and cpu")
    device = kwargs.get("device")
    stays = name == "_local_scalar_dense" or (not there if device is None else torch.device(device) != DEVICE)
    given, named = tree_map(lambda x: x.held if isinstance(x, There) else x, (args, kwargs))
    out = func(*given, **(named if device is None else {**named, "device": "cpu"}))
    masks = name.startswith("index") and any(one.dtype == torch.bool for one in met[1:])
    if there and (masks or stays or name in ("nonzero", "masked_select") or not isinstance(out, torch.Tensor | list | tuple | None)):
        ASKED.append(name)
    if name.endswith("_"):
        return args[0]
    return out if stays else tree_map_only(torch.Tensor, There, out)


@contextmanager
def in_use(monkeypatch):
    """While it lasts, things can be moved to `DEVICE` and computed there; yields the list of what the host asks meanwhile."""
    ASKED.clear()
    with monkeypatch.context() as patch, _Factories():
        patch.setattr(torch, "autocast", lambda *_args, **_kwargs: nullcontext())  # neither knows such a device
        patch.setattr(torch, "inference_mode", lambda *_args, **kwargs: nullcontext() if kwargs else torch.no_grad())
        yield ASKED


def moved(network):
    """The network with its parameters and buffers there, in place."""
    for module in network.modules():
        for name, value in module._buffers.items():
            module._buffers[name] = value if value is None else There(value)
        for name, value in module._parameters.items():
            module._parameters[name] = value if value is None else nn.Parameter(There(value.detach()), requires_grad=False)
    return network
