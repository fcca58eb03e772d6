"""The emulation of TF32 against exact arithmetic, and the table the script makes of its rows."""

import numpy as np
import pytest
import tiny
import torch
from script_files import load_script
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

script = load_script("precision_effect")


def nearest_tf32(x):
    """By arithmetic: the nearest multiple of the spacing of 11-digit binary numbers, ties even."""
    x = np.asarray(x, np.float64)
    _, exponent = np.frexp(x)
    spacing = np.ldexp(1.0, exponent - 11)
    return np.rint(x / spacing) * spacing


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded(*tensors):
    """The operands that TF32 sees, in float64, where products and sums are as good as exact."""
    return [torch.from_numpy(nearest_tf32(x.detach().numpy())) for x in tensors]


class TestRounding:
    def test_ten_bits_are_kept(self):
        x = torch.tensor([0.0, -0.0, 1.0, -2.0, 1 + 2**-10, 3 * 2.0**-40, 2047 / 2048])
        assert torch.equal(script.round_to_tf32(x), x)
        assert torch.signbit(script.round_to_tf32(x)[1])

    def test_it_is_the_nearest_of_any_number(self):
        x = draw(100_000) * torch.exp(10 * draw(100_000, seed=1))
        ties = (1 + (2 * torch.arange(1024) + 1) / 2048) * 2.0**-3
        for values in (x, ties):
            expected = torch.from_numpy(nearest_tf32(values.numpy())).float()
            assert torch.equal(script.round_to_tf32(values), expected)

    def test_what_is_no_number_stays(self):
        odd_nan = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
        x = torch.cat([odd_nan, torch.tensor([float("nan"), float("inf"), float("-inf")])])
        found = script.round_to_tf32(x)
        assert found[:2].isnan().all()
        assert found[2:].tolist() == [float("inf"), float("-inf")]
        assert script.round_to_tf32(torch.tensor([3.4e38])).item() == pytest.approx(3.4e38, 1e-3)
        largest = torch.tensor([torch.finfo(torch.float32).max])
        assert script.round_to_tf32(largest).item() == float("inf")

    def test_strides_and_views(self):
        x = draw(2, 3, 4, 4).to(memory_format=torch.channels_last)
        for view in (x, x[:, :2], x.transpose(1, 3), x[:1].expand(5, 3, 4, 4)):
            assert torch.equal(script.round_to_tf32(view), script.round_to_tf32(view.contiguous()))


def convolution(x, w):
    return F.conv2d(x, w, padding=1, stride=2)


def linear(x, w):
    return F.linear(x.flatten(1), w.flatten(1)[:, : x[0].numel()])


def batched(x, w):
    return x.flatten(2) @ w[: len(x), :3].flatten(2).transpose(1, 2).repeat(1, 12, 1)[:, :36]


PRODUCTS = {
    "convolution": (convolution, (2, 3, 6, 6), (4, 3, 3, 3)),
    "linear": (linear, (2, 3, 3, 3), (4, 3, 3, 3)),
    "batched product": (batched, (2, 3, 6, 6), (4, 3, 3, 3)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_that_of_the_rounded_factors(name):
    """It is linear in each factor: its gradients are products with the rounded factors, too."""
    product, *shapes = PRODUCTS[name]
    x, w = (draw(*shape, seed=n) for n, shape in enumerate(shapes))
    g = draw(*product(x, w).shape, seed=2)

    def product_and_gradients(x, w, g):
        y = product(x.requires_grad_(), w.requires_grad_())
        return y.detach(), *torch.autograd.grad(y, (x, w), g)

    exact = product_and_gradients(*(factor.double() for factor in (x, w, g)))
    expected = product_and_gradients(*rounded(x, w, g))
    with script.emulated_tf32():
        emulated = product_and_gradients(x.clone(), w.clone(), g)
    outside = product_and_gradients(x.clone(), w.clone(), g)
    for found, want in zip((*emulated, *outside), (*expected, *exact), strict=True):
        torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5)
    assert (expected[0] - exact[0]).abs().max() > 1e-4


class TestEmulation:
    def test_what_is_added_is_not_rounded(self):
        bias = torch.tensor([1 + 2.0**-20])
        with script.emulated_tf32():
            assert torch.equal(F.linear(torch.zeros(1, 2), torch.zeros(1, 2), bias), bias[None])

    def test_attention(self):
        # A head of 16 channels: its scale 1/4 is shared by both factors as 1/2, which is exact.
        q, k, v = (draw(1, 2, 8, 16, seed=seed) for seed in range(3))
        with script.emulated_tf32():
            found = F.scaled_dot_product_attention(q, k, v)
        plain = F.scaled_dot_product_attention(q, k, v)
        a, b, c = rounded(q, k, v)
        (weights,) = rounded(torch.softmax(a @ b.transpose(-1, -2) / 4, -1).float())
        exact = weights @ c
        # A weight on the edge between two numbers may fall to either side: one unit of 2^-11.
        assert (found - exact).abs().max() < (plain - exact).abs().max() / 3
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=2**-11)

    def test_steps_computed_again_in_the_backward_pass(self):
        x, w = draw(2, 3, 6, 6), draw(3, 3, 3, 3, seed=1)

        def gradient(run):
            leaf = x.clone().requires_grad_()
            with script.emulated_tf32():
                y = run(lambda z: torch.tanh(F.conv2d(z, w, padding=1)), leaf)
                return torch.autograd.grad(y.sum(), leaf)[0]

        again = gradient(lambda step, z: checkpoint(step, z, use_reentrant=False))
        assert torch.equal(again, gradient(lambda step, z: step(z)))

    def test_an_unknown_product_is_refused(self):
        with (
            torch.inference_mode(),  # operations do not come apart here
            script.emulated_tf32(),
            pytest.raises(NotImplementedError, match="add it to OPERANDS"),
        ):
            F.linear(torch.zeros(1, 2), torch.zeros(1, 2))


def row(mode, clean, robust, logits):
    outcomes = {"clean": clean, "robust": robust, "robust_in_float32": robust, "logits": logits}
    return {"mode": mode, **{name: torch.tensor(values) for name, values in outcomes.items()}}


def test_images_are_compared_one_by_one():
    # The clean counts are equal, three of four; two images changed sides all the same.
    rows = [
        row("float32", [1, 1, 1, 0], [1, 0, 0, 0], [[1.0, 2.0]] * 4),
        row("bf16-mixed", [1, 1, 0, 1], [0, 1, 1, 0], [[1.0, 2.0]] * 3 + [[1.0, 1.75]]),
    ]
    last = script.table(rows).splitlines()[-1]
    assert last.startswith("| bf16-mixed | 75.0 % (30.1 to 95.4) | 50.0 % (15.0 to 85.0) |")
    assert last.endswith("| 2, 3 | 2.5e-01 |")


def test_what_is_recorded_is_not_measured_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "embedded_denoiser", tiny.denoiser)
    monkeypatch.setattr(script, "embedded_resnet18", tiny.classifier)
    few = ["--root", str(tmp_path), "--eps", "2/255", "--limit", "2", "--steps", "1"]
    tables = []
    for resumed in (0, 2):
        script.main([*few, "--modes", "TF32 (emulated)"])
        out, err = capsys.readouterr()
        assert (out + err).count("resumed: 2 of 2 images are recorded") == resumed
        tables.append(out[out.index("eps 2/255") :])
    assert tables[0] == tables[1]
    *_, first, second = tables[0].splitlines()
    assert first.startswith("| float32 | ")
    assert second.startswith("| TF32 (emulated) | ")
    assert float(second.split(" | ")[-1].removesuffix(" |")) > 0  # the factors were rounded
