"""Sizes of perturbations that are known."""

import math

import pytest
import tiny
import torch
from measured_run import measured_run
from tiny import IdentityPurifier, NoisyPurifier

from lit_purify.attacks import Attack
from lit_purify.callbacks import AttackMagnitude
from lit_purify.cli import main
from lit_purify.records import read_summary

N = 7
PIXELS = 3 * 32 * 32


class TowardsHalf(Attack):
    """Moves every pixel by eps, towards grey: no pixel leaves [0, 1]."""

    def perturb(self, model, images, labels, indices, seed):
        return images + self.eps * torch.where(images < 0.5, 1.0, -1.0)


def measure(npz, folder, purifier=None, **options):
    return measured_run(folder, npz, purifier or IdentityPurifier(), AttackMagnitude(), **options)


def test_the_surface_that_is_told(npz, tmp_path):
    measure = AttackMagnitude(surface="fresh")
    run = measured_run(tmp_path, npz, NoisyPurifier(), measure, protocols=("fixed", "fresh"))
    clean = torch.cat([batch["image"] for batch in run.seen.batches])
    length = (run.seen.adversarial("fresh") - clean).flatten(1).norm(dim=1)
    right = run.seen.correct("fresh/adversarial")
    found = run.of("magnitude/")
    assert found["l2"]["value"] == pytest.approx(length.mean().item(), rel=1e-5)
    assert found["l2_robust"]["n"] == right.sum()
    assert not torch.equal(run.seen.adversarial("fresh"), run.seen.adversarial("fixed"))
    assert run.settings["magnitude_surface"] == "fresh"


@pytest.mark.parametrize("eps", [0.0, 0.25])
def test_a_shift_of_every_pixel(npz, tmp_path, eps):
    found = measure(npz, tmp_path, attack=TowardsHalf(eps=eps)).metrics
    for suffix in ("", "_base"):
        for norm, size in (("l2", eps * math.sqrt(PIXELS)), ("linf", eps)):
            metric = found[f"magnitude/{norm}{suffix}"]
            assert metric["value"] == pytest.approx(size, rel=1e-5)
            assert metric["std"] == pytest.approx(0, abs=1e-6)
            assert metric["n"] == N


def test_every_metric_is_that_of_the_images(npz, tmp_path):
    run = measure(npz, tmp_path, purifier=NoisyPurifier())
    clean = torch.cat([batch["image"] for batch in run.seen.batches]).double()
    right = run.seen.correct("fixed/adversarial")
    assert 0 < right.sum() < N
    expected = {}
    for surface, suffix in (("fixed", ""), ("base", "_base")):
        change = (run.seen.adversarial(surface).double() - clean).flatten(1)
        expected[f"l2{suffix}"] = change.square().sum(1).sqrt()
        expected[f"linf{suffix}"] = change.abs().amax(1)
    expected["l2_robust"], expected["l2_nonrobust"] = expected["l2"][right], expected["l2"][~right]
    found = run.of("magnitude/")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name]["value"] == pytest.approx(values.mean().item(), rel=1e-5)
        assert found[name]["std"] == pytest.approx(values.std().item(), rel=1e-3)
        assert found[name]["n"] == len(values)
        assert run.logged[f"magnitude/{name}"] == pytest.approx(found[name]["value"], rel=1e-6)


@pytest.mark.parametrize(
    ("protocol", "names"), [("transfer", {"l2", "linf"}), ("base", {"l2_base", "linf_base"})]
)
def test_only_what_is_attacked_is_measured(npz, tmp_path, protocol, names):
    assert set(measure(npz, tmp_path, protocols=(protocol,)).of("magnitude/")) == names


def test_the_overlays_stack(tmp_path):
    args = tiny.command("test", "cifar_fixed.yaml", tmp_path)
    overlays = [str(tiny.CONFIGS / "measure" / f"{n}.yaml") for n in ("compression", "magnitude")]
    args[3:3] = ["--config", overlays[0], "--config", overlays[1]]
    assert main(args) == 0
    summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
    assert summary["metrics"]["uniform/compression_rate"]["n"] == 3
    assert summary["metrics"]["magnitude/l2"]["n"] == 3
    assert summary["settings"]["magnitude_norms"] == ["l2", "linf"]
    assert not list(tmp_path.rglob("images_*.png"))
