"""Several processes that train one model: who starts them, and BatchNorm over all of them."""

import os
from functools import cache
from typing import Any, cast

from lightning_fabric import Fabric
from torch import nn

from cam_core.learned.recipes import Recipe

# How many processes torchrun or `fabric run` started here, and in all; Fabric, where it launches some itself, says the second alone.
STARTED = tuple(int(os.environ[name]) if "LOCAL_WORLD_SIZE" in os.environ else 1 for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))


@cache  # a process has one place among the others, however many models it trains
def launched(device: str, devices: int | None, nodes: int | None, precision: str) -> Fabric:
    """Fabric for one process, or for the ``devices`` of each of ``nodes`` machines, which it starts where nobody else has."""
    here, everywhere = STARTED
    devices, nodes = devices or here, nodes or max(1, everywhere // here)
    several = devices * nodes > 1
    fabric = Fabric(
        accelerator=device, devices=devices, num_nodes=nodes, strategy="ddp" if several else "auto", precision=cast("Any", precision)
    )
    if several and "LT_CLI_USED" not in os.environ:  # `fabric run` has launched already, and allows no second time
        fabric.launch()
    return fabric


def synchronise(model: nn.Module, recipe: Recipe, fabric: Fabric) -> None:
    """Let BatchNorm that learns see the whole batch of several processes; ValueError on a CPU, where it cannot."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if fabric.world_size == 1 or recipe.frozen_batchnorm or not any(p.requires_grad for m in norms for p in m.parameters()):
        return
    if fabric.device.type != "cuda":
        raise ValueError(
            f"{fabric.world_size} processes on {fabric.device.type} cannot share BatchNorm's statistics: "
            "train in one process, on GPUs, or with frozen_batchnorm"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
