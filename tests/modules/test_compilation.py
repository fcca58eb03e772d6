"""Compiled networks: logits and gradients of the plain ones, and what a run says of them."""

import copy
import os
import subprocess
import sys
import warnings
from functools import partialmethod
from pathlib import Path

import pytest
import tiny
import torch
from oracles import waves
from tiny import IdentityPurifier, evaluate
from torch import nn
from torch._dynamo.utils import counters

import lit_purify
from lit_purify import Defence, embedded_denoiser, embedded_resnet18
from lit_purify.attacks import PGD
from lit_purify.callbacks import Records, Summary
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import (
    AdaptiveFlowPurifier,
    DiffusionPurifier,
    FixedNoise,
    Purifier,
    edm_unet,
)
from lit_purify.modules import PurifiedClassifier
from lit_purify.modules.compilation import (
    NotCompiledWarning,
    compile_defence,
    compiled_parts,
    networks,
)
from lit_purify.records import read_summary


def chain(*, num_steps=12, compile, **options):
    """A chain of more steps than torch.compile makes graphs of one function (8)."""
    purifier = DiffusionPurifier(waves(), t_star=24, num_steps=num_steps, **options)
    return PurifiedClassifier(purifier, tiny.classifier(), compile=compile)


def logits_and_gradient(module, n):
    """Of n images in float64 with unequal weights on the logits."""
    images = tiny.images_and_labels(n)[0].double().requires_grad_()
    logits = module(images, FixedNoise(0), torch.arange(n))
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    return logits.detach(), torch.autograd.grad((weights * logits).sum(), images)[0]


@pytest.fixture(scope="module")
def compiled():
    """A compiled chain and the number of graphs that one pass at batch size 5 made of it."""
    torch.compiler.reset()
    counters.clear()
    module = chain(compile=True)
    logits_and_gradient(module, 5)
    return module, counters["stats"]["unique_graphs"]


def test_of_steps_chosen_as_they_run_the_network_alone_is_compiled():
    purifier = AdaptiveFlowPurifier(waves(), t_star=24)
    classifier = tiny.classifier()
    compile_defence(purifier, classifier)  # nothing is called
    assert purifier.compiled is None
    assert compiled_parts(purifier, classifier) == ["purifier.denoiser", "classifier"]


def test_of_a_chain_that_tells_a_class_the_network_alone_is_compiled(monkeypatch):
    """And it is told the classes then, too."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    sizes = {"model_channels": 8, "block_out_channels": (8, 8), "layers_per_block": 1}
    denoiser, classifier = edm_unet(num_classes=10, **sizes).double(), tiny.classifier()
    purifier = DiffusionPurifier(denoiser, t_star=24, num_steps=2, label="predicted")
    defence = Defence(classifier, purifier).bind(FixedNoise(0), torch.arange(3))
    images = tiny.images_and_labels(3)[0].double()
    want = defence(images)
    compile_defence(purifier, classifier)
    assert purifier.compiled is None
    assert compiled_parts(purifier, classifier) == ["purifier.denoiser", "classifier"]
    torch.testing.assert_close(defence(images), want, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
class TestCompiledChain:
    @pytest.mark.parametrize("n", [5, 3, 1])
    def test_logits_and_gradient_are_those_of_the_plain_chain(self, compiled, n):
        expected = logits_and_gradient(chain(compile=False), n)
        for found, plain in zip(logits_and_gradient(compiled[0], n), expected, strict=True):
            torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-12)

    def test_steps_computed_again_give_the_same_gradient(self, compiled):
        # Nothing is kept: every step is computed again in the backward pass.
        module = chain(compile=True, memory_budget_gib=0)
        expected = logits_and_gradient(compiled[0], 5)
        for found, kept in zip(logits_and_gradient(module, 5), expected, strict=True):
            torch.testing.assert_close(found, kept, rtol=1e-10, atol=1e-12)

    def test_all_steps_share_their_graphs(self, compiled):
        # One of the steps, one of the last step, which draws no noise, one of the classifier.
        assert compiled[1] == 3
        assert counters["graph_break"] == {}

    def test_the_memory_of_a_step_is_that_of_the_plain_network(self, compiled):
        purifiers = (compiled[0].purifier, chain(compile=False).purifier)
        images = tiny.images_and_labels(5)[0].double().requires_grad_()
        found, expected = (purifier._num_kept(images) for purifier in purifiers)
        assert found == expected < 10**6

    def test_a_whole_run(self, tmp_path):
        npz = str(tiny.npz_file(tmp_path / "images.npz", 4))
        attack = PGD(eps=0.03, steps=3)
        data = CIFAR10DataModule(source=npz, batch_size=2)
        found, _ = evaluate(chain(compile=True, num_steps=2), data, attack=attack)
        expected, _ = evaluate(chain(compile=False, num_steps=2), data, attack=attack)
        assert found == expected


class TestCompiledNetworks:
    def test_every_called_network_is_compiled_and_named(self):
        class Nested(Purifier):
            def __init__(self):
                super().__init__()
                self.encoder = nn.Linear(3, 3)
                self.blocks = nn.ModuleList([nn.ModuleDict({"a": nn.Linear(3, 3)}), nn.Tanh()])

            def purify(self, images, noise, indices):
                return images

        found = networks(Nested(), tiny.classifier())
        assert list(found) == [
            "purifier.encoder",
            "purifier.blocks.0.a",
            "purifier.blocks.1",
            "classifier",
        ]
        module = PurifiedClassifier(Nested(), tiny.classifier(), compile=True)
        assert parts(module) == list(found)

    @pytest.mark.parametrize("by_someone_else", [False, True])
    def test_without_networks_of_the_purifier_the_classifier_alone_is_said(self, by_someone_else):
        classifier = tiny.classifier()
        if by_someone_else:
            classifier.compile()
        module = PurifiedClassifier(IdentityPurifier(), classifier, compile=not by_someone_else)
        assert parts(module) == ["classifier"]

    def test_another_process_compiles_too(self):
        # What is sent to a process is pickled, as a copy is, and without its compiled code.
        copied = copy.deepcopy(chain(compile=True))
        assert parts(copied) == []
        copied.configure_model()
        assert parts(copied) == ["purifier.denoiser", "classifier"]


def parts(module):
    return compiled_parts(module.purifier, module.classifier)


def sound(graph, inputs):
    return graph.forward


def wrong(graph, inputs):
    """A compiler with an error of a thousandth."""
    return lambda *given: tuple(1.001 * found for found in graph.forward(*given))


def raising(graph, inputs):
    raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nin many lines")


class TestSelfCheck:
    """Before a run compiled code is compared with eager execution."""

    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        npz = str(tiny.npz_file(tmp_path / "images.npz", 4))
        plain = torch.compile

        def run(backend, *, compile):
            monkeypatch.setattr(
                torch, "compile", lambda f, **options: plain(f, **{**options, "backend": backend})
            )
            folder = tmp_path / f"{backend.__name__} {compile}"
            module = chain(num_steps=2, compile=compile)
            metrics, _ = evaluate(
                module, CIFAR10DataModule(source=npz), Records(), Summary(), folder=folder
            )
            return metrics, module, read_summary(folder / "summary.json")

        return run

    def test_what_agrees_is_used_and_told(self, run):
        with warnings.catch_warnings():
            warnings.simplefilter("error", NotCompiledWarning)
            metrics, module, summary = run(sound, compile=True)
            expected, _, plain = run(sound, compile="auto")  # on a CPU that is off
        assert metrics == expected
        assert parts(module) == summary["preflight"]["compiled"]
        assert summary["preflight"]["compiled"] == ["purifier.denoiser", "classifier"]
        assert plain["preflight"]["compiled"] == []
        assert summary["settings"]["compile"] is True
        assert plain["settings"]["compile"] == "auto"
        assert not any("uncompiled" in flag for flag in summary["flags"] + plain["flags"])

    @pytest.mark.parametrize(("backend", "word"), [(wrong, "logits"), (raising, "No working C++")])
    def test_what_does_not_agree_is_not_used_and_that_is_told(self, run, backend, word):
        with pytest.warns(NotCompiledWarning, match="uncompiled"):
            metrics, module, summary = run(backend, compile=True)
        expected, *_ = run(sound, compile=False)
        assert metrics == expected
        assert parts(module) == summary["preflight"]["compiled"] == []
        assert word in summary["preflight"]["not_compiled"]
        assert any("uncompiled" in flag and word in flag for flag in summary["flags"])

    @pytest.mark.slow
    def test_without_a_compiler(self, tmp_path):
        # In a process of its own: PyTorch remembers which compiler it has found.
        command = tiny.quick_test(
            tiny.denoiser_file(tmp_path), tmp_path, "--model.compile", "true", "--attack.steps", "1"
        )
        done = subprocess.run(
            [sys.executable, "-m", "lit_purify", *command],
            env={**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
            cwd=Path(tiny.__file__).parent,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "uncompiled" in done.stderr + done.stdout
        preflight = read_summary(tiny.run_folder(tmp_path) / "summary.json")["preflight"]
        assert preflight["compiled"] == []
        assert "ompiler" in preflight["not_compiled"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_run_on_a_gpu_fools_the_same_images_however_it_is_executed(tmp_path):
    outcomes = []
    for compile in (False, "auto"):  # True takes minutes to compile
        chain = DiffusionPurifier(embedded_denoiser(), t_star=50, num_steps=5)
        module = PurifiedClassifier(
            chain, embedded_resnet18(), compile=compile, protocols=["fixed"]
        )
        found = lit_purify.evaluate(
            module,
            CIFAR10DataModule(limit=24, batch_size=16),  # and a batch of 8
            attack=PGD(eps="2/255", steps=10, early_stop=True),
            root=tmp_path / str(compile),
            progress=False,
            trainer={"accelerator": "gpu"},
        )
        preflight = read_summary(found.folder / "summary.json")["preflight"]
        assert preflight.get("not_compiled") is None
        assert preflight["compiled"] == []
        assert preflight.get("replayed", []) == (["purifier.denoiser"] if compile else [])
        outcomes.append(found.metrics["fixed/robust_accuracy_any_iteration"])
    assert outcomes[0] == outcomes[1]
    assert 0 < outcomes[0]["value"] < 1
