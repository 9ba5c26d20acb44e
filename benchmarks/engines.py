"""Engines for the frozen forward pass on a CPU: `python -m benchmarks.engines`, on an idle machine.

The same normalised images for all, each engine in a process of its own, in turn; minimum of wall and CPU time an image, and the largest
difference from the network in float64 as a share of the logits' range. OpenVINO and torch.compile are measured where they can run (pip
install openvino; a C++ compiler), to show what the choice was made from; the project uses ONNX Runtime.
"""

import argparse
import copy
import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import torch

from benchmarks.race import Contender, write
from cam_core import Classifier, engine, load_classifier
from cam_core.pretrained import LITE

NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", LITE, "vgg16")
BATCHES = (1, 2, 4, 8, 16, 32)
Scores = Callable[[torch.Tensor], torch.Tensor]


@cache
def classifier(name: str) -> Classifier:
    """Random weights: what a pass costs does not depend on them, and every network can be had so."""
    torch.manual_seed(0)
    return load_classifier(name, None)


def as_loaded(name: str) -> Scores:
    """PyTorch on the network as torchvision gives it."""
    return classifier(name).scores


def pytorch(name: str) -> Scores:
    """PyTorch on the frozen copy."""
    return classifier(name).frozen("torch").scores


def onnxruntime(name: str) -> Scores:
    """What the project uses."""
    session = engine._session(classifier(name).frozen("torch"), example())
    return lambda inputs: engine._ask(session, inputs)


def openvino(name: str) -> Scores:
    """OpenVINO reads what was exported for ONNX Runtime."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        engine._export(classifier(name).frozen("torch"), example(), path)
        compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda inputs: torch.from_numpy(request.infer({0: inputs.numpy()}, share_inputs=True)[compiled.output(0)])


def compiled(name: str) -> Scores:
    """torch.compile with constants folded and layouts chosen (``freezing``), anew for each batch size."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    return torch.compile(classifier(name).frozen("torch").scores, dynamic=False)


ENGINES: dict[str, Callable[[str], Scores]] = {
    "PyTorch as loaded": as_loaded, "PyTorch frozen": pytorch, "ONNX Runtime": onnxruntime, "OpenVINO": openvino,
    "torch.compile, freezing": compiled,
}  # fmt: skip


def example(batch: int = 2) -> torch.Tensor:
    """Normalised images."""
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(batch))


def prepare(name: str, number: str) -> Callable[..., dict[str, float]]:
    """A call that passes ``batch`` images; with "error" it compares with float64 instead."""
    scores = list(ENGINES.values())[int(number)](name)

    def call(batch: str, what: str = "time") -> dict[str, float]:
        inputs = example(int(batch))
        with torch.inference_mode(what == "time"), torch.no_grad():  # torch.compile refuses inference mode while it compiles
            got = scores(inputs)
            if what == "time":
                return {}
            want = copy.deepcopy(classifier(name)).double().scores(inputs.double())
        return {"error": float((got - want).abs().max() / (want.max() - want.min()))}

    return call


def available() -> dict[str, int]:
    """Engines that can run here, with their place in `ENGINES`."""
    lacking = set()
    if any(importlib.util.find_spec(package) is None for package in engine.NEEDED):
        lacking |= {"ONNX Runtime", "OpenVINO"}
    if importlib.util.find_spec("openvino") is None:
        lacking |= {"OpenVINO"}
    if shutil.which("g++") is None:
        lacking |= {"torch.compile, freezing"}
    return {name: number for number, name in enumerate(ENGINES) if name not in lacking}


def measured(network: str, batches: list[int], rounds: int, contenders: dict[str, int]) -> pd.DataFrame:
    """One row for each engine and batch size: seconds and cpu_seconds an image, error."""
    running = {name: Contender(name, f"benchmarks.engines:prepare:{network},{number}", ours=True) for name, number in contenders.items()}
    rows = []
    try:
        for batch in batches:
            errors = {name: one.measure(str(batch), "error")["error"] for name, one in running.items()}  # also the slow first call
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in running}
            for _ in range(rounds):
                for name, one in running.items():
                    taken[name].append(one.measure(str(batch)))
            for name, found in taken.items():
                least = pd.DataFrame(found).min() / batch
                rows.append({"group": network, "contender": f"{name}, batch {batch}", "engine": name, "batch": batch,
                             "seconds": least.seconds, "cpu_seconds": least.cpu, "error": errors[name], "rounds": rounds})  # fmt: skip
            print(pd.DataFrame(rows[-len(running) :]).filter(["contender", "seconds", "cpu_seconds", "error"]).to_string(), flush=True)
    finally:
        for one in running.values():
            one.close()
    return pd.DataFrame(rows)


def main() -> None:
    """Compare, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    contenders = {name: number for name, number in available().items() if name in given.engines}
    for network in given.networks:  # each is written as it is done
        write([measured(network, given.batches, given.rounds, contenders)], "engines", replace="contender")


if __name__ == "__main__":
    main()
