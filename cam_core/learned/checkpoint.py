"""A training's files: weights, optimiser and position in one checkpoint, replaced atomically, and the weights that are kept in the end."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cam_core.files import flush

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"


class TrainingError(RuntimeError):
    """A training that cannot go on."""


@dataclass
class Progress:
    """Where a training stands: the next batch, what the epoch has summed up so far, and what the epochs before it gave."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    running: dict[str, float] = field(default_factory=dict)  # sums over the epoch's images, "images" itself among them
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)  # "epoch" and the criterion's value on the held-out images


def kept_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors worth keeping: those under a child of ``model`` that learns, or that its ``keeps`` names.

    A frozen classifier is built again, not stored again.
    """
    keeps = getattr(model, "keeps", ())
    learns = [f"{name}." for name, child in model.named_children() if name in keeps or any(p.requires_grad for p in child.parameters())]
    state = {k: v for k, v in model.state_dict().items() if k.startswith(tuple(learns)) or k in dict(model.named_parameters(recurse=False))}
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def save(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, at: Progress, identity: str) -> None:
    """Write weights, optimiser and position to ``file``, all or nothing; `TrainingError` and no file if a weight is not finite."""
    state = kept_state(model)
    broken = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise TrainingError(
            f"{broken[0]} is not finite before epoch {at.epoch}, batch {at.batch}: lower the learning rate; {file.name} stays"
        )
    tensors = {f"model.{key}": value for key, value in state.items()}
    for number, kept in optimizer.state_dict()["state"].items():
        for key, value in kept.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{key}"] = value.cpu().contiguous()
    write_tensors(file, tensors, {"identity": identity, "progress": json.dumps(asdict(at))})


def write_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, all or nothing, to the disk and not only to its cache."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    save_file(tensors, temporary, metadata=metadata)
    flush(temporary)
    temporary.replace(file)


def resume(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> Progress:
    """Give model and optimiser what ``file`` holds, and say where it stands; the beginning without a file.

    `TrainingError` if it is damaged or was written under another ``identity``.
    """
    if not file.exists():
        return Progress()
    tensors = read_tensors(file)
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
    if metadata.get("identity") != identity:
        raise TrainingError(
            f"{file} belongs to another model, recipe, seed or size of the training set: remove it, or train into another folder"
        )
    load_kept(model, {key[len("model.") :]: value for key, value in tensors.items() if key.startswith("model.")}, file)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return Progress(**json.loads(metadata["progress"]))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `TrainingError` if it is damaged."""
    try:
        return dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{file} cannot be read ({error}): remove it to train again") from error


def load_kept(model: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Give ``model`` the tensors of `kept_state` that ``file`` holds; `TrainingError` if they are not its own."""
    expected = kept_state(model)
    wrong = sorted({*expected} ^ {*state}) or [key for key in expected if expected[key].shape != state[key].shape]
    if wrong:
        raise TrainingError(f"{file} does not fit the model ({wrong[0]} and {len(wrong) - 1} more differ): remove it to train again")
    model.load_state_dict(state, strict=False)
