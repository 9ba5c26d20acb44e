"""Other engines for passes that nobody differentiates: ONNX Runtime on a CPU, torch.compile where it is asked for, as on a GPU.

Which engine answers depends on the network and on what was asked before, never on a clock, so that runs repeat to the bit.
"""

import gc
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cam_core.environment import give_back_pages
from cam_core.options import one_of

if TYPE_CHECKING:
    from cam_core.classifier import Classifier

ENGINES = ("torch", "onnxruntime", "compile")
NEEDED = ("onnxruntime", "onnxscript")  # the runtime, and what PyTorch's exporter imports
VARIABLE = "CAM_ENGINE"
WORTH = 1024 * 224 * 224  # pixels: 1024 images of 224 x 224 take longer than the export, which takes seconds
AGREEMENT, COARSE = 1e-4, 2e-2  # of the logits' range; the second for bfloat16, and for a GPU, which may multiply in TF32
answered = set[str]()  # the engines beside PyTorch that answered in this process, for provenance


Run = Callable[[Tensor], Tensor]


@dataclass
class _Size:
    """Images of one size: how many were asked, what answers, and for "compile" its chunk."""

    asked: int = 0
    run: Run | None = None
    batch: int = 0


class Engine:
    """Scores the images of one frozen network beside PyTorch, or leaves them to PyTorch.

    ``name``: "torch", "onnxruntime", "compile", or None for the environment variable CAM_ENGINE; where that is not set either, ONNX Runtime
    is taken if it is installed, from the call on in which the images asked of the network at one size come to `WORTH` pixels.

    ONNX Runtime takes part on a CPU, in float32, without autocast, with as many threads as PyTorch. "compile" is torch.compile with CUDA
    graphs, for chunks of the largest size so far. Neither takes part where gradients are recorded or a layer has hooks. The first answer is
    compared with PyTorch's: if they differ by more than `AGREEMENT`, or if the network cannot be exported, one warning says so and PyTorch
    goes on. ValueError for an unknown name, ModuleNotFoundError if "onnxruntime" is asked for and not installed.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or os.environ.get(VARIABLE) or None
        if self.name is not None:
            one_of("engine", self.name, ENGINES)
        missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
        if self.name == "onnxruntime" and missing:
            raise ModuleNotFoundError(f"the engine onnxruntime needs {' and '.join(missing)}: pip install 'cam-core[fast]'")
        self._possible = self.name == "compile" or (self.name != "torch" and not missing)
        self._coming = 0
        self._made_for: Hashable = None
        self._sizes = dict[Hashable, _Size]()
        self._exported = dict[Hashable, Run]()  # by size, those of before `restart` too

    def __reduce__(self) -> tuple[Any, ...]:
        return Engine, (self.name,)  # a copy makes a session of its own

    def restart(self) -> None:
        """Forget what was asked: what comes is answered as in a new process, whatever was measured before; no export is made twice."""
        self._sizes, self._coming = {}, 0

    def expect(self, count: int) -> None:
        """``count`` images of one size will be asked next."""
        self._coming = count

    def scores(self, classifier: "Classifier", inputs: Tensor) -> Tensor | None:
        """Normalised images [B,3,H,W] -> logits [B,C], or None where PyTorch has to answer."""
        if not self._possible or not torch.is_inference_mode_enabled():
            return None
        kind, autocast, size = inputs.device.type, torch.is_autocast_enabled(inputs.device.type), inputs.shape[1:]
        if self.name != "compile" and (kind != "cpu" or inputs.dtype != torch.float32 or autocast):
            return None
        if _hooked(classifier):
            return None
        made_for = (kind, autocast, torch.get_num_threads(), *map(id, classifier.children()), _versions(classifier))
        if made_for != self._made_for:
            self._made_for, self._sizes, self._exported = made_for, {}, {}
        one = self._sizes.setdefault(size, _Size())
        one.asked, self._coming = one.asked + self._coming, 0
        if one.run is not None and self.name != "compile":
            return one.run(inputs)
        if one.run is not None and len(inputs) <= one.batch:  # a larger chunk is compiled for anew
            return one.run(inputs) if len(inputs) == one.batch else None
        if self.name is None and one.asked * size[-2:].numel() < WORTH:
            return None
        return self._begin(classifier, inputs, one, AGREEMENT if kind == "cpu" and not autocast else COARSE)

    def _begin(self, classifier: "Classifier", inputs: Tensor, one: "_Size", bound: float) -> Tensor:
        """PyTorch's answer, with which the engine's is compared."""
        expected = classifier.scores(inputs)
        name, reason = "torch.compile" if self.name == "compile" else "ONNX Runtime", ""
        try:
            if (size := inputs.shape[1:]) not in self._exported:
                made = _compiled(classifier) if self.name == "compile" else partial(_ask, _session(classifier, inputs))
                self._exported[size] = made
            run = self._exported[size]
            error = float((run(inputs) - expected).abs().max() / (expected.max() - expected.min()))
            if not error <= bound:
                reason = f"its logits differ by {error:.1g} of their range from PyTorch's"
        except Exception as failure:  # exporters and compilers have many ways to refuse a network
            reason = f"it does not take the network ({type(failure).__name__}: {str(failure).strip().partition(chr(10))[0][:200]})"
        if reason:
            self._possible = False
            warnings.warn(f"{name} is not used, PyTorch goes on: {reason}", stacklevel=2)
        else:
            one.run, one.batch = run, len(inputs)
            answered.add(self.name or "onnxruntime")
        return expected


def _hooked(classifier: "Classifier") -> bool:
    return any(layer._forward_hooks or layer._forward_pre_hooks for part in classifier.children() for layer in part.modules())


def _versions(classifier: "Classifier") -> int:
    """Grows when a weight is changed in place."""
    return sum(0 if one.is_inference() else one._version for one in (*classifier.parameters(), *classifier.buffers()))


class _Scores(nn.Module):
    """The network as the exporter takes it."""

    def __init__(self, classifier: "Classifier") -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier.scores(inputs)


def _compiled(classifier: "Classifier") -> Run:
    """Kernels are recorded once as a CUDA graph and launched together: at small batches a GPU waits for the launches."""
    run: Run = torch.compile(classifier.scores, mode="reduce-overhead", dynamic=False)

    def copied(images: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return run(images).clone()  # the graph writes into the same memory the next time

    return copied


def _export(classifier: "Classifier", inputs: Tensor, path: Path) -> None:
    """Write the network, and its weights in a file beside it: a session maps these, where it would copy those of a model in memory."""
    with torch.inference_mode(mode=False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.zeros(2, *inputs.shape[1:])  # a batch of one would be taken for the only size
        program = torch.onnx.export(
            _Scores(classifier), (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
        )
    assert program is not None
    program.save(path, external_data=True)
    del program
    gc.collect()  # the exporter leaves cycles that hold the weights
    give_back_pages()


def _session(classifier: "Classifier", inputs: Tensor) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it leaves an identifier in the temporary folder, and reports
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would take the cores from PyTorch's
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "network.onnx"
        _export(classifier, inputs, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    give_back_pages()  # it has laid the weights out anew
    return session


def _ask(session: Any, inputs: Tensor) -> Tensor:
    [given] = session.get_inputs()
    return torch.from_numpy(session.run(None, {given.name: inputs.contiguous().numpy()})[0])
