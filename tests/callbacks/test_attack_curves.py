"""What an attack meets iteration by iteration, on a classifier whose margin is known."""

import numpy as np
import pytest
import tiny
import torch
from measured_run import measured_run
from PIL import Image
from tiny import IdentityPurifier
from torch import nn
from torch.nn import functional as F

from lit_purify.attacks import PGD, PGDEOT, Uniform
from lit_purify.callbacks import AttackCurves
from lit_purify.classifiers.wrap import from_module
from lit_purify.modules import PurifiedClassifier

N, STEPS, STEP = 6, 4, 0.001
W = torch.where(torch.arange(3072) % 2 == 0, 0.02, -0.02).double()
"""Every step of size s lowers the margin w (x - 1/2) by s ||w||_1."""
STANDS = torch.tensor([-0.5, 0.5, 1.5, 2.5, 3.5, 4.5], dtype=torch.float64)
"""How many steps the images stand; the first is wrong from the start."""

MODULE = PurifiedClassifier(IdentityPurifier(), tiny.classifier())


class Noisy(IdentityPurifier):
    """f_xi(x) = x + 0.3 xi."""

    def purify(self, images, noise, indices):
        return images + 0.3 * noise.normal(indices, "forward", 1, like=images)


def linear():
    """Logits of w (x - 1/2) and its negative."""
    network = nn.Linear(W.numel(), 2).double()
    with torch.no_grad():
        network.weight[0], network.weight[1] = W, -W
        network.bias[0], network.bias[1] = -W.sum() / 2, W.sum() / 2
    return from_module(nn.Sequential(nn.Flatten(), tiny._Double(), network), 2, (3, 32, 32))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(file of images that stand as long as they should, the margins of these images)."""
    generator = torch.Generator().manual_seed(1)
    images = 0.4 + 0.2 * torch.rand(N, 3072, generator=generator, dtype=torch.float64)
    wanted = STANDS * STEP * W.abs().sum()
    images = images + ((wanted - (images - 0.5) @ W) / W.square().sum())[:, None] * W
    images = images.float().view(N, 3, 32, 32)
    path = tmp_path_factory.mktemp("linear") / "images.npz"
    labels = np.zeros(N, np.int64)
    np.savez(path, images=images.permute(0, 2, 3, 1).numpy(), labels=labels)
    return str(path), (images.double().flatten(1) - 0.5) @ W


def attacked(case, folder, *, early_stop=False):
    attack = PGD(
        eps=0.02,
        steps=STEPS,
        rel_stepsize=STEP / 0.02,
        random_start=False,
        early_stop=early_stop,
    )
    options = {"classifier": linear(), "data": tiny.TwoClasses, "attack": attack, "batch_size": 4}
    return measured_run(folder, case[0], IdentityPurifier(), AttackCurves(), **options)


@pytest.fixture(scope="module")
def run(case, tmp_path_factory):
    return attacked(case, tmp_path_factory.mktemp("run"))


def margins(case):
    """Before each of the steps, (N, STEPS)."""
    return case[1][:, None] - torch.arange(STEPS) * STEP * W.abs().sum()


class TestLinear:
    @pytest.mark.parametrize("surface", ["base", "fixed"])
    def test_what_is_recorded_is_the_closed_form(self, case, run, surface):
        z = margins(case)
        assert run.tensors[f"{surface}/attack_correct"].tolist() == (z > 0).tolist()
        assert (z > 0).sum(0).tolist() == [5, 4, 3, 2]
        loss = run.tensors[f"{surface}/attack_loss"]
        torch.testing.assert_close(loss.double(), F.softplus(-2 * z), rtol=1e-4, atol=1e-6)
        norm = run.tensors[f"{surface}/attack_gradient_norm"]
        expected = 2 * torch.sigmoid(-2 * z) * W.norm()
        torch.testing.assert_close(norm.double(), expected, rtol=1e-4, atol=1e-6)

    def test_nine_bytes_for_an_image_and_iteration(self, run):
        found = [run.tensors[f"base/attack_{n}"] for n in ("correct", "loss", "gradient_norm")]
        assert sum(part.nbytes for part in found) == 9 * N * STEPS

    def test_the_last_point_is_what_the_attack_returns(self, run):
        curve = AttackCurves().curves(MODULE, run.table)["attack/base/robust_accuracy"]
        assert [round(N * mean.value) for _, mean in curve.points()] == [5, 4, 3, 2, 1]
        assert run.metrics["base/robust_accuracy"]["value"] == pytest.approx(1 / N)
        assert list(curve.points())[-1][1] == pytest.approx(
            [run.metrics["base/robust_accuracy"][key] for key in ("value", "low", "high")]
        )

    def test_who_left_early_counts_as_fooled(self, case, tmp_path):
        run = attacked(case, tmp_path, early_stop=True)
        z = margins(case)
        assert run.tensors["fixed/attack_correct"].tolist() == (z > 0).tolist()
        asked = torch.cat([torch.ones(N, 1, dtype=torch.bool), z[:, :-1] > 0], 1)
        for name in ("loss", "gradient_norm"):
            assert run.tensors[f"fixed/attack_{name}"].isfinite().tolist() == asked.tolist()
        curve = AttackCurves().curves(MODULE, run.table)["attack/fixed/robust_accuracy"]
        assert [round(N * mean.value) for _, mean in curve.points()] == [5, 4, 3, 2, 1]

    def test_a_picture(self, run):
        assert Image.open(run.folder / "attack_curves.png").format == "PNG"


class TestFresh:
    def test_a_share_of_the_draws_whatever_the_batches(self, npz, tmp_path):
        def found(batch_size, rows_per_pass):
            attack = PGDEOT(eps="8/255", steps=2, draws=3, rows_per_pass=rows_per_pass)
            folder = tmp_path / f"{batch_size}_{rows_per_pass}"
            options = {"protocols": ("fresh",), "attack": attack, "batch_size": batch_size}
            return measured_run(folder, npz, Noisy(), AttackCurves(), **options).tensors

        whole, parts = found(7, 100), found(2, 2)
        thirds = 3 * whole["fresh/attack_correct"]
        torch.testing.assert_close(thirds, thirds.round())
        assert len(thirds.round().unique()) > 2
        for name in ("correct", "loss", "gradient_norm"):
            name = f"fresh/attack_{name}"
            assert whole[name].shape == (7, 2)
            torch.testing.assert_close(whole[name], parts[name], rtol=1e-5, atol=1e-6)


def test_an_attack_without_iterations_has_no_curves(npz, tmp_path):
    run = measured_run(tmp_path, npz, IdentityPurifier(), AttackCurves(), attack=Uniform(eps=0.1))
    assert run.summary["status"] == "finished"
    assert not [name for name in run.tensors if "/attack_" in name]
    assert not (tmp_path / "attack_curves.png").exists()
