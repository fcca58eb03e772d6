"""Float32 that is float32, its exceptions, compiled networks: flags, gradients, what a run says."""

import copy
import warnings

import pytest
import tiny
import torch
from lightning.pytorch import Callback
from oracles import fill
from tiny import FailingPurifier, IdentityPurifier, evaluate
from torch import nn
from torch._dynamo.utils import counters

from lit_purify.attacks import PGD
from lit_purify.cli import main
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import Denoiser, DiffusionPurifier, FixedNoise, Purifier
from lit_purify.modules import PurifiedClassifier, numerics
from lit_purify.modules.numerics import float32_mode, networks
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


def older_true():
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True


def older_false():
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def products_medium():  # bfloat16 products on CPUs that have them
    torch.set_float32_matmul_precision("medium")


def newer_everything_tf32():
    torch.backends.fp32_precision = "tf32"


def newer_products_tf32():
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def newer_convolutions_ieee():
    torch.backends.cudnn.conv.fp32_precision = "ieee"


EARLIER = [
    older_true,
    older_false,
    products_medium,
    *(
        pytest.param(setting, marks=newer, id=setting.__name__)
        for setting in (newer_everything_tf32, newer_products_tf32, newer_convolutions_ieee)
    ),
]


@pytest.mark.parametrize("setting", EARLIER)
class TestWhateverWasSetBefore:
    def test_float32_is_float32(self, setting):
        setting()
        with float32_mode():
            assert older_interface() == (False, "highest")
            if NEWER:
                assert set(newer_interface().values()) == {"ieee"}

    def test_tf32_is_of_the_gpu_only(self, setting):
        setting()
        with float32_mode(tf32=True):
            assert older_interface() == (True, "high")
            if NEWER:
                found = newer_interface()
                cpu = {found.pop("cpu products"), found.pop("cpu convolutions")}
                assert cpu == {"ieee"}
                assert set(found.values()) == {"tf32"}

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
        newer_everything_tf32()
        torch.backends.cudnn.allow_tf32 = False
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"

    def test_before_pytorch_2_9_there_is_the_older_one(self, monkeypatch):
        monkeypatch.setattr(numerics, "_switches", list)
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

    def on_test_batch_end(self, *args):
        self.seen.append(older_interface())


class TestRun:
    def test_a_test_runs_in_float32_and_leaves_no_trace(self, npz):
        older_true()
        before, spy = older_interface(), Spy()
        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
        evaluate(module, CIFAR10DataModule(source=npz, batch_size=2), spy)
        assert spy.seen == [(False, "highest")] * 4
        assert older_interface() == before == (True, "high")

    def test_a_failed_test_leaves_no_trace(self, npz):
        older_true()
        spy = Spy()
        module = PurifiedClassifier(FailingPurifier(at=2), tiny.classifier())
        with pytest.raises(RuntimeError, match="this purifier fails"):
            evaluate(module, CIFAR10DataModule(source=npz, batch_size=2), spy)
        assert spy.seen[-1] == (False, "highest")
        assert older_interface() == (True, "high")

    def test_tf32_is_refused_where_there_is_none(self, npz):
        before = older_interface()
        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), tf32=True)
        with pytest.raises(InputError, match="tf32 is true, but cpu computes no TF32"):
            evaluate(module, CIFAR10DataModule(source=npz))
        assert older_interface() == before

    def test_the_settings_say_it(self):
        plain = PurifiedClassifier(IdentityPurifier(), tiny.classifier()).settings()
        assert (plain["tf32"], plain["compile"]) == (False, False)
        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), tf32=True)
        assert module.settings()["tf32"] is True


class Waves(Denoiser):
    """Two convolutions with a wave of the step between them: every step t computes another map."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x_t, t):
        steps = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        wave = torch.sin(self.first(x_t.double()) + steps.view(-1, 1, 1, 1) / 7)
        return self.second(wave).to(x_t)


def waves():
    """Known weights, in float64, where compiled and uncompiled must agree to 1e-10."""
    return fill(Waves().double(), seed=3, std=0.2)


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

    def test_a_sample_has_its_logits_at_every_batch_size(self, compiled):
        whole, _ = logits_and_gradient(compiled[0], 5)
        for n in (1, 2, 4):
            part, _ = logits_and_gradient(compiled[0], n)
            # Images and noise of the first n are the same.
            torch.testing.assert_close(part, whole[:n], rtol=1e-10, atol=1e-12)

    def test_all_steps_share_their_graphs(self, compiled):
        assert compiled[1] == 2  # one of the denoiser, one of the classifier
        assert counters["graph_break"] == {}

    def test_the_memory_of_a_step_is_that_of_the_plain_network(self, compiled):
        purifiers = (compiled[0].purifier, chain(compile=False).purifier)
        images = tiny.images_and_labels(5)[0].double().requires_grad_()
        found, expected = (purifier._num_kept(images) for purifier in purifiers)
        assert found == expected < 10**6

    def test_a_whole_run(self, npz):
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
        assert module.settings()["compile"] == list(found)

    def test_a_purifier_without_networks_is_not_said_to_be_compiled(self):
        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), compile=True)
        assert module.settings()["compile"] == ["classifier"]

    def test_a_network_compiled_by_someone_else_is_reported(self):
        classifier = tiny.classifier()
        classifier.compile()
        module = PurifiedClassifier(IdentityPurifier(), classifier)
        assert module.settings()["compile"] == ["classifier"]

    def test_another_process_compiles_too(self):
        # What is sent to a process is pickled, as a copy is, and without its compiled code.
        copied = copy.deepcopy(chain(compile=True))
        assert copied.settings()["compile"] is False
        copied.configure_model()
        assert copied.settings()["compile"] == ["purifier.denoiser", "classifier"]


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
        assert settings["compile"] is False

    def test_two_runs_are_equal_bit_for_bit(self, npz):
        torch.use_deterministic_algorithms(True)
        purifier = DiffusionPurifier(tiny.denoiser(), t_star=20, num_steps=2)
        module = PurifiedClassifier(purifier, tiny.classifier())
        runs = [evaluate(module, CIFAR10DataModule(source=npz))[1] for _ in range(2)]
        for surface in ("base", "fixed"):
            first, second = (run.adversarial(surface) for run in runs)
            assert torch.equal(first, second)
