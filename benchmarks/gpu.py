"""Images a second of every method on a GPU: `python -m benchmarks.gpu`, under eight minutes on one card.

Each method explains a batch on a frozen copy, channels last: in float32 (convolutions as PyTorch's default has them, TF32 where the card
knows it), with the masked passes as CUDA graphs (`frozen("compile")`), and in bfloat16, where masked passes are most of the work. How many
masked images pass at once is chosen by the free memory (`Probe`). What the time does not suffice for is named at the end and left out.
"""

import argparse
import itertools
import time
from typing import Any

import pandas as pd
import torch

from benchmarks.race import write
from cam_core import METHODS, Classifier, Probe, load_classifier
from cam_core.methods import Method
from cam_core.pretrained import LITE

NETWORKS = ("resnet50", LITE)
WAYS: dict[str, tuple[str, torch.dtype | None]] = {
    "float32": ("torch", None), "float32, CUDA graphs": ("compile", None),
    "bfloat16": ("torch", torch.bfloat16), "bfloat16, CUDA graphs": ("compile", torch.bfloat16),
}  # fmt: skip
MANY = 16  # passes an image from which the masked passes are most of the work


def batch_of(cost: int) -> int:
    """How many images a call explains: about 4000 passes, at most 64 images."""
    return max(1, min(64, 4000 // max(1, cost)))


def rate(method: Method, classifier: Classifier, images: torch.Tensor, autocast: torch.dtype | None) -> tuple[float, int]:
    """Images a second, the faster of two calls after one that warms up, and masked images that pass at once."""
    taken = []
    for _ in range(3):
        probe = Probe(classifier, images, autocast=autocast)
        _wait(images)
        began = time.perf_counter()
        method(probe)
        _wait(images)
        taken.append(time.perf_counter() - began)
    return len(images) / min(taken[1:]), probe._chunk_size(images.shape[-2:])


def _wait(images: torch.Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


def measured(network: str, device: str, names: list[str], size: int, until: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of one network, the cheap methods first, and what was left out: no time, or the method does not take the network."""
    classifier = load_classifier(network, None, device=device)
    frozen = {way: classifier.frozen(engine) for way, (engine, _) in WAYS.items()}  # a copy each, which is compiled once
    channels = Probe(frozen["float32"], torch.rand(1, 3, size, size, device=device)).activations.shape[1]
    rows, left = [], list[str]()
    for name in sorted(names, key=lambda name: METHODS[name].cost(channels)):
        cost = METHODS[name].cost(channels)
        for way, (_, autocast) in WAYS.items() if cost >= MANY else itertools.islice(WAYS.items(), 1):
            if time.monotonic() > until:
                left.append(f"{network}, {name}, {way}: no time")
                continue
            images = torch.rand(batch_of(cost), 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
            try:
                found, chunk = rate(METHODS[name], frozen[way], images, autocast)
            except (ValueError, RuntimeError, NotImplementedError) as error:
                left.append(f"{network}, {name}, {way}: {str(error).splitlines()[0]}")
                continue
            rows.append({"group": network, "contender": f"{name}, {way}", "method": name, "way": way, "passes": cost,
                         "images": len(images), "chunk": chunk, "images_per_second": found})  # fmt: skip
    return rows, left


def main() -> None:
    """Measure, write, say what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--minutes", type=float, default=7, help="no call begins after them")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device: --device cpu --dry tries the script")
    began, rows, left = time.monotonic(), list[dict[str, Any]](), list[str]()
    for number, network in enumerate(given.networks, start=1):
        until = began + 60 * given.minutes * number / len(given.networks)
        found, missing = measured(network, given.device, list(given.methods), given.size, until)
        rows, left = rows + found, left + missing
    table = pd.DataFrame(rows)
    print(table.to_string(), *left, sep="\n")
    if not given.dry:
        write([table], "gpu")


if __name__ == "__main__":
    main()
