"""The scoring engine: its numbers beside PyTorch's, when it answers, and when PyTorch goes on."""

import copy
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from cam_core import METHODS, Probe, engine, probe
from cam_core.engine import Engine
from cam_core.learned import lfi_backbone
from cam_core.methods.perturbation import rise
from reproduce.provenance import process_facts
from tests import nets

needs = pytest.mark.skipif(
    any(importlib.util.find_spec(one) is None for one in engine.NEEDED), reason="the extra 'fast' is not installed: make setup"
)


@pytest.fixture(scope="module")
def small():
    """A ResNet with BatchNorm and residuals, float32, random but with statistics of its own."""
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", 7)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return classifier.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def fast(small, images, tmp_path_factory):
    """Its frozen copy, exported."""
    if any(importlib.util.find_spec(one) is None for one in engine.NEEDED):
        pytest.skip("the extra 'fast' is not installed: make setup")
    frozen, export = small.frozen("onnxruntime"), engine._export
    frozen.exported = tmp_path_factory.mktemp("exported")  # the one export of this file is kept

    def kept(classifier, inputs, path):
        export(classifier, inputs, path)
        shutil.copytree(path.parent, frozen.exported, dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(engine, "_export", kept)
        scored(frozen, images)
    assert asked_at(frozen).run is not None
    return frozen


def asked_at(frozen, side=32):
    return frozen.engine._sizes[3, side, side]


def scored(classifier, images):
    with torch.inference_mode():
        return classifier(images)


def test_its_logits_are_the_networks_in_float64(small, fast, images):
    want = copy.deepcopy(small).double()(images.double()).detach()
    for count in (1, 2, 5):  # the batch is free
        got = scored(fast, images[:count])
        assert (got - want[:count]).abs().max() < 2e-6 * (want.max() - want.min())
        assert torch.equal(got, scored(fast, images[:count]))


def test_maps_are_equal_within_rounding_and_score_masked_by_the_engine(small, fast, images, monkeypatch):
    runs = []
    run = asked_at(fast).run
    monkeypatch.setattr(asked_at(fast), "run", lambda inputs: runs.append(len(inputs)) or run(inputs))
    plain = small.frozen("torch")
    for one in (METHODS["score_cam"], partial(rise, samples=40)):
        runs.clear()
        got, want = one(Probe(fast, images[:2])), one(Probe(plain, images[:2]))
        assert sum(runs) > 2 * 30
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


def test_gradients_autocast_hooks_and_other_precisions_stay_with_pytorch(small, fast, images, monkeypatch):
    monkeypatch.setattr(asked_at(fast), "run", lambda *_: pytest.fail("the engine answered"))
    x = images.clone().requires_grad_()
    assert torch.autograd.grad(fast(x).sum(), x)[0].abs().max() > 0
    with torch.autocast("cpu", torch.bfloat16):
        scored(fast, images)
    seen = []
    hook = fast.trunk.register_forward_hook(lambda *_: seen.append(1))
    scored(fast, images)
    hook.remove()
    assert seen
    double = nets.gap().frozen("onnxruntime")
    assert scored(double, nets.images(2)).dtype == torch.float64


MEMORY = """
from pathlib import Path
import torch
from cam_core import Probe, load_classifier
from cam_core.environment import keep_pages

def megabytes(what):
    return next(int(line.split()[1]) / 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))

keep_pages()
classifier, masks = load_classifier("resnet18", None), torch.rand(1, 16, 7, 7)
Probe(classifier.frozen("torch"), torch.rand(1, 3, 224, 224)).score_masked(masks)  # what PyTorch takes in any case
probe = Probe(classifier.frozen("onnxruntime"), torch.rand(1, 3, 224, 224))
_ = probe.logits
before = megabytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
probe.score_masked(masks)
assert probe.classifier.engine._sizes[3, 224, 224].run is not None
print(megabytes("VmHWM") - before)
"""


@needs
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc: the peak cannot be set back")
def test_the_engine_takes_less_than_200_megabytes_while_it_is_made_and_used(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert 20 < float(done.stdout) <= 200
    assert not [*tmp_path.iterdir()]  # no file is left


@pytest.fixture
def stubbed(monkeypatch):
    """ONNX Runtime replaced: what was exported is counted, PyTorch answers for the session. Costs no export and needs no package."""
    made = []
    monkeypatch.delenv(engine.VARIABLE, raising=False)
    monkeypatch.setattr(engine, "NEEDED", ())
    monkeypatch.setattr(engine, "_session", lambda classifier, inputs: made.append(len(inputs)) or classifier)
    monkeypatch.setattr(engine, "_ask", lambda classifier, inputs: classifier.scores(inputs))
    return made


def test_the_export_is_made_when_it_is_worth_it_and_anew_for_another_size_or_weight(small, images, stubbed, monkeypatch):
    monkeypatch.setattr(engine, "WORTH", 12 * 32 * 32)
    frozen, other = small.frozen(), torch.rand(1, 3, 48, 48)

    def exports(x, masks):
        before = len(stubbed)
        Probe(frozen, x).score_masked(torch.ones(len(x), masks, 2, 2))
        return len(stubbed) - before

    assert [exports(images[:1], 11), exports(images[:1], 1), exports(images[:1], 1)] == [0, 1, 0]
    assert [exports(other, 2), exports(other, 4)] == [0, 1]
    assert [exports(images[:1], 1), exports(other, 1)] == [0, 0]  # neither size forgets the other
    with torch.no_grad():
        frozen.head.fc.bias.add_(1)
    assert [exports(other, 1), exports(other, 5)] == [0, 1]


def test_small_images_between_large_ones_neither_count_for_them_nor_make_them_begin_anew(small, stubbed, monkeypatch):
    """As Increment-CAM asks: some of one size, some of another, image by image."""
    monkeypatch.setattr(engine, "WORTH", 10 * 48 * 48)
    frozen, begun = small.frozen(), []
    for number in range(9):
        for side in (48, 16):
            Probe(frozen, torch.rand(1, 3, side, side)).score_masked(torch.ones(1, 3, 2, 2))
        begun.append(asked_at(frozen, 48).run is not None)
        if number == 4:
            frozen.engine.restart()
    assert begun == [False, False, False, True, True, False, False, False, True]  # 4 times 3 images are worth an export
    assert len(stubbed) == 1  # what was exported is taken again
    assert asked_at(frozen, 16).run is None


@needs
def test_it_takes_as_many_threads_as_pytorch(fast, images, monkeypatch):
    monkeypatch.setattr(engine, "_export", lambda *given: shutil.copytree(fast.exported, given[2].parent, dirs_exist_ok=True))
    threads = torch.get_num_threads()
    try:
        for count in (threads + 1, threads):
            torch.set_num_threads(count)
            scored(fast, images)
            options = asked_at(fast).run.args[0].get_session_options()
            assert (options.intra_op_num_threads, options.inter_op_num_threads) == (count, 1)
    finally:
        torch.set_num_threads(threads)


def test_a_compiled_network_takes_chunks_of_one_size_and_pytorch_the_others(small, images, monkeypatch):
    taken = []

    def compiled(scores, **options):
        assert options == {"mode": "reduce-overhead", "dynamic": False}
        return lambda inputs: taken.append(len(inputs)) or scores(inputs)

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)  # which loads the compiler
    frozen, plain = small.frozen("compile"), small.frozen("torch")
    masks = torch.rand(1, 7, 4, 4)
    got, want = (Probe(one, images[:1], chunk=3).score_masked(masks) for one in (frozen, plain))
    assert taken == [3, 3]  # compared once, taken once, and one image left over
    torch.testing.assert_close(got, want)
    Probe(frozen, images[:1], chunk=5).score_masked(torch.rand(1, 15, 4, 4))
    Probe(frozen, images[:1], chunk=3).score_masked(masks)
    assert taken[2:] == [5, 5, 5]  # larger chunks are compiled for anew, smaller ones are not


def test_as_many_images_pass_a_gpu_as_fit_when_they_are_first_asked(monkeypatch):
    free = [140e9, 1e6, 6.4 * 224**2 * 400 * 80]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (int(free.pop(0)), 0))
    card = torch.device("cuda", 0)
    assert [probe._fitting(card, pixels) for pixels in (224**2, 224**2, 448**2, 112**2)] == [512, 512, 8, 256]
    probe._fitting.cache_clear()


@pytest.mark.parametrize(
    "how, reason",
    [("_ask", "its logits differ by 0.0"), ("_session", "it does not take the network .RuntimeError: no operator for this.$")],
)
def test_where_it_disagrees_or_cannot_export_one_sentence_says_so_and_pytorch_goes_on(small, images, stubbed, monkeypatch, how, reason):
    want, tried = scored(small.frozen("torch"), images), []

    def wrong(*_):
        tried.append(1)
        if how == "_session":
            raise RuntimeError("no operator for this\nand a long trace")
        return want * 1.01

    monkeypatch.setattr(engine, how, wrong)
    frozen = small.frozen("onnxruntime")
    with pytest.warns(UserWarning, match=f"ONNX Runtime is not used, PyTorch goes on: {reason}"):
        assert torch.equal(scored(frozen, images), want)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(scored(frozen, images), want)
    assert tried == [1]


def test_without_the_package_pytorch_scores_and_asking_for_it_says_what_to_install(small, images, monkeypatch):
    monkeypatch.setattr(engine, "NEEDED", ("no_such_package",))
    monkeypatch.setattr(engine, "WORTH", 0)
    frozen = small.frozen()
    assert torch.equal(scored(frozen, images), scored(small.frozen("torch"), images))
    with pytest.raises(ModuleNotFoundError, match=r"needs no_such_package: pip install 'cam-core\[fast\]'"):
        small.frozen("onnxruntime")
    with pytest.raises(ValueError, match="engine is 'torch', 'onnxruntime' or 'compile', got 'tensorrt'"):
        small.frozen("tensorrt")


def test_the_environment_chooses_and_copies_keep_the_choice(small, monkeypatch):
    monkeypatch.setenv(engine.VARIABLE, "torch")
    assert small.frozen().engine.name == "torch"
    monkeypatch.delenv(engine.VARIABLE)
    frozen = small.frozen("torch")
    assert [one.engine.name for one in (frozen.frozen(), copy.deepcopy(frozen), frozen.at("layer2"))] == ["torch"] * 3
    assert pickle.loads(pickle.dumps(Engine("torch"))).name == "torch"


def test_provenance_names_the_engines_that_answered(monkeypatch):
    monkeypatch.setattr(engine, "answered", set())
    assert process_facts()["engine"] == "torch"
    engine.answered.add("onnxruntime")
    assert process_facts()["engine"] == "torch+onnxruntime"


def test_the_page_says_when_the_network_is_exported():
    page = Path(__file__).resolve().parents[1] / "book/use_it.md"
    assert f"({engine.WORTH // 224**2} of 224 × 224 at\none size)" in page.read_text()
