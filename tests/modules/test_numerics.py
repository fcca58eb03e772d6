"""Float32 that is float32, and its exceptions: flags, errors, what a run says."""

import warnings
from contextlib import nullcontext

import pytest
import tiny
import torch
from lightning.pytorch import Callback, Trainer
from measured_run import measured_run
from tiny import FailingPurifier, IdentityPurifier, evaluate
from torch import nn

from lit_purify import precision
from lit_purify.attacks import PGD
from lit_purify.callbacks import AdversarialExamples
from lit_purify.cli import main
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import DiffusionPurifier
from lit_purify.modules import PurifiedClassifier
from lit_purify.precision import float32_mode
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError

NEWER = hasattr(torch.backends.cudnn, "conv")
newer = pytest.mark.skipif(not NEWER, reason="before PyTorch 2.9 there is one interface")


def older_interface():
    """The switches of every PyTorch: convolutions and products."""
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


def newer_interface():
    """What decides in PyTorch 2.9 and later, where the older interface may refuse to answer."""
    b = torch.backends
    return {
        "products": b.cuda.matmul.fp32_precision,
        "convolutions": b.cudnn.conv.fp32_precision,
        "recurrent": b.cudnn.rnn.fp32_precision,
        "cpu products": b.mkldnn.matmul.fp32_precision,
        "cpu convolutions": b.mkldnn.conv.fp32_precision,
    }


@pytest.fixture(autouse=True)
def untouched():
    """Puts back what these tests set in the whole process."""
    older, precisions = older_interface(), newer_interface() if NEWER else None
    yield
    if NEWER:
        torch.backends.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = older[0]
    torch.set_float32_matmul_precision(older[1])
    if NEWER:
        b = torch.backends
        parts = (b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn, b.mkldnn.matmul, b.mkldnn.conv)
        for part, precision in zip(parts, precisions.values(), strict=True):
            part.fp32_precision = precision


def set_precision(backend, precision):
    """The newer interface."""
    backend.fp32_precision = precision


def older_true(allow=True):
    torch.backends.cudnn.allow_tf32 = allow
    torch.backends.cuda.matmul.allow_tf32 = allow


EARLIER = {
    "older true": older_true,
    "older false": lambda: older_true(False),
    # bfloat16 products on CPUs that have them
    "products medium": lambda: torch.set_float32_matmul_precision("medium"),
}
if NEWER:
    EARLIER |= {
        "everything tf32": lambda: set_precision(torch.backends, "tf32"),
        "products tf32": lambda: set_precision(torch.backends.cuda.matmul, "tf32"),
        "convolutions ieee": lambda: set_precision(torch.backends.cudnn.conv, "ieee"),
    }


@pytest.mark.parametrize("setting", EARLIER.values(), ids=EARLIER)
class TestWhateverWasSetBefore:
    @pytest.mark.parametrize("tf32", [False, True])
    def test_inside_all_are_of_the_mode_and_tf32_of_the_gpu_only(self, setting, tf32):
        setting()
        with float32_mode(tf32=tf32):
            assert older_interface() == ((True, "high") if tf32 else (False, "highest"))
            for name, found in newer_interface().items() if NEWER else ():
                assert found == ("tf32" if tf32 and "cpu" not in name else "ieee")

    @pytest.mark.parametrize("tf32", [False, True])
    def test_afterwards_everything_is_what_it_was(self, setting, tf32):
        def state():
            answers = [newer_interface()] if NEWER else []
            for ask in (
                lambda: torch.backends.cudnn.allow_tf32,
                lambda: torch.backends.cuda.matmul.allow_tf32,
                torch.get_float32_matmul_precision,
            ):
                try:
                    answers.append(ask())
                except RuntimeError:
                    answers.append("refused")
            return answers

        setting()
        before = state()
        with pytest.raises(ZeroDivisionError), float32_mode(tf32=tf32):
            _ = 1 / 0
        assert state() == before


class TestInterfaces:
    @newer
    def test_the_older_one_alone_would_leave_tf32_on(self):
        # Why both are set.
        torch.backends.fp32_precision = "tf32"
        torch.backends.cudnn.allow_tf32 = False
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"

    def test_before_pytorch_2_9_there_is_the_older_one(self, monkeypatch):
        monkeypatch.setattr(precision, "_switches", list)
        older_true()
        with float32_mode():
            assert older_interface() == (False, "highest")
        assert older_interface() == (True, "high")

    def test_nothing_is_warned_of(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with float32_mode(), float32_mode(tf32=True):
                pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
class TestOnTheGPU:
    def error(self, product):
        generator = torch.Generator().manual_seed(0)
        a, b = torch.randn(2, 64, 64, 3, 3, generator=generator).cuda()
        exact = product(a.double(), b.double())
        return ((product(a, b) - exact).abs().max() / exact.abs().max()).item()

    @pytest.mark.parametrize(
        "product",
        [
            lambda a, b: nn.functional.conv2d(a, b, padding=1),
            lambda a, b: a.flatten(1) @ b.flatten(1).T,
        ],
    )
    def test_rounding_errors_are_those_of_the_mode(self, product):
        older_true()
        with float32_mode():
            assert self.error(product) < 1e-5
        with float32_mode(tf32=True):
            assert self.error(product) > 1e-4


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", 4))


class Spy(Callback):
    """Writes down the mode before the attack and at the end of every batch."""

    def __init__(self):
        self.seen = []

    def on_test_batch_start(self, *args):
        self.seen.append(older_interface())

    on_test_batch_end = on_test_batch_start


class TestRun:
    @pytest.mark.parametrize("fails", [False, True])
    def test_a_test_runs_in_float32_and_leaves_no_trace(self, npz, fails):
        older_true()
        spy = Spy()
        purifier = FailingPurifier(at=2) if fails else IdentityPurifier()
        module = PurifiedClassifier(purifier, tiny.classifier())
        with pytest.raises(RuntimeError, match="this purifier fails") if fails else nullcontext():
            evaluate(module, CIFAR10DataModule(source=npz, batch_size=2), spy)
        assert set(spy.seen) == {(False, "highest")}
        assert fails or len(spy.seen) == 4
        assert older_interface() == (True, "high")

    def test_tf32_is_refused_where_there_is_none(self, npz):
        before = older_interface()
        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), tf32=True)
        assert module.settings()["tf32"] is True
        with pytest.raises(InputError, match="tf32"):
            evaluate(module, CIFAR10DataModule(source=npz))
        assert older_interface() == before


class TestSearch:
    """Attacks that search in low precision."""

    @pytest.mark.parametrize("early_stop", [False, True])
    def test_outcomes_are_those_of_float32_on_what_was_found(self, npz, tmp_path, early_stop):
        purifier = DiffusionPurifier(tiny.denoiser(), t_star=20, num_steps=2)
        attack = PGD(eps="1/255", steps=4, rel_stepsize=0.5, precision="bf16")
        attack.early_stop = early_stop
        run = measured_run(tmp_path, npz, purifier, attack=attack)
        assert run.settings["attack_precision"] == "bf16"
        assert run.settings["precision"] == "32-true"
        module = PurifiedClassifier(purifier, tiny.classifier())
        for surface in ("base", "fixed"):
            images, index = (run.tensors[name] for name in (f"{surface}/adversarial", "index"))
            logits = module.attacked(surface, index)(images)
            right = (logits.argmax(1) == run.tensors["label"]).tolist()
            standing = run.column(f"{surface}/robust_accuracy_any_iteration")
            if early_stop:
                assert standing == right
            else:
                assert run.column(f"{surface}/robust_accuracy") == right
                assert all(last for last, ever in zip(right, standing, strict=True) if ever)

    @pytest.mark.parametrize(
        ("options", "tf32"), [({"precision": "bf16-mixed"}, False), ({}, True)]
    )
    def test_a_run_that_judges_nothing_in_float32_is_refused(self, npz, options, tf32):
        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), tf32=tf32)
        callback = AdversarialExamples(PGD(precision="bf16"))
        with pytest.raises(InputError, match="32-true"):
            tiny.trainer(None, callback, **options).test(module, CIFAR10DataModule(source=npz))

    def test_tf32_is_refused_where_there_is_none(self, npz):
        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
        with pytest.raises(InputError, match="TF32"):
            evaluate(module, CIFAR10DataModule(source=npz), attack=PGD(precision="tf32"))


class TestDeterministic:
    @pytest.fixture(autouse=True)
    def after(self, monkeypatch):
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning sets it
        yield
        torch.use_deterministic_algorithms(False)

    def test_an_attack_runs_and_the_summary_says_it(self, tmp_path):
        arguments = tiny.command("test", "cifar_fixed.yaml", tmp_path)
        assert main([*arguments, "--trainer.deterministic", "true"]) == 0
        settings = read_summary(tiny.run_folder(tmp_path) / "summary.json")["settings"]
        assert settings["deterministic"] is True
        assert settings["tf32"] is False
        assert settings["compile"] == "auto"

    def test_two_runs_are_equal_bit_for_bit(self, npz):
        torch.use_deterministic_algorithms(True)
        purifier = DiffusionPurifier(tiny.denoiser(), t_star=20, num_steps=2)
        module = PurifiedClassifier(purifier, tiny.classifier())
        runs = [evaluate(module, CIFAR10DataModule(source=npz))[1] for _ in range(2)]
        for surface in ("base", "fixed"):
            first, second = (run.adversarial(surface) for run in runs)
            assert torch.equal(first, second)


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "bf16-true", "64-true"])
def test_precisions_that_would_change_an_attack_are_refused(tmp_path, monkeypatch, precision):
    """Float16 turns small gradients into 0; the others change the images of the attack."""
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), protocols=["base"])
    # On a CPU Lightning itself takes bf16-mixed for 16-mixed.
    monkeypatch.setattr(Trainer, "precision", property(lambda self: precision))
    for run in ("test", "predict"):
        trainer = tiny.trainer(tmp_path)
        with pytest.raises(InputError, match="bf16-mixed") as refused:
            getattr(trainer, run)(module, CIFAR10DataModule(limit=1))
        assert "16-mixed" not in str(refused.value).replace(f"is {precision}", "").replace(
            "bf16-mixed", ""
        )
