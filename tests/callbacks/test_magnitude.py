"""Sizes of perturbations that are known."""

import math

import pytest
import tiny
import torch
from tiny import IdentityPurifier, NoisyPurifier, evaluate

from lit_purify.attacks import PGD, Attack
from lit_purify.callbacks import AttackMagnitude, Records, Summary
from lit_purify.cli import main
from lit_purify.data import CIFAR10DataModule
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError

N = 7
PIXELS = 3 * 32 * 32


class TowardsHalf(Attack):
    """Moves every pixel by eps, towards grey: no pixel leaves [0, 1]."""

    def perturb(self, model, images, labels, indices, seed):
        return images + self.eps * torch.where(images < 0.5, 1.0, -1.0)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", N))


def sizes(npz, folder, *, protocols=("base", "fixed"), attack=None, purifier=None, batch_size=3):
    purifier = purifier or IdentityPurifier()
    module = PurifiedClassifier(purifier, tiny.classifier(), protocols=protocols)
    data = CIFAR10DataModule(source=npz, batch_size=batch_size)
    callbacks = (AttackMagnitude(), Records(), Summary())
    logged, seen = evaluate(module, data, *callbacks, attack=attack, folder=folder)
    metrics = read_summary(folder / "summary.json")["metrics"]
    return {name: metrics[name] for name in metrics if "magnitude" in name}, seen, logged


@pytest.mark.parametrize("eps", [0.0, 2 / 255, 0.25])
def test_a_shift_of_every_pixel(npz, tmp_path, eps):
    found, _, _ = sizes(npz, tmp_path, attack=TowardsHalf(eps=eps))
    for suffix in ("", "_base"):
        for norm, size in (("l2", eps * math.sqrt(PIXELS)), ("linf", eps)):
            entry = found[f"magnitude/{norm}{suffix}"]
            assert entry["value"] == pytest.approx(size, rel=1e-5)
            assert entry["std"] == pytest.approx(0, abs=1e-6)
            assert entry["n"] == N


def test_every_figure_is_that_of_the_images(npz, tmp_path):
    found, seen, logged = sizes(npz, tmp_path, purifier=NoisyPurifier())
    clean = torch.cat([batch["image"] for batch in seen.batches]).double()
    right = seen.correct("fixed/adversarial")
    assert 0 < right.sum() < N
    for surface, suffix in (("fixed", ""), ("base", "_base")):
        change = (seen.adversarial(surface).double() - clean).flatten(1)
        l2, linf = change.square().sum(1).sqrt(), change.abs().amax(1)
        expected = {f"magnitude/l2{suffix}": l2, f"magnitude/linf{suffix}": linf}
        if surface == "fixed":
            expected["magnitude/l2_robust"] = l2[right]
            expected["magnitude/l2_nonrobust"] = l2[~right]
        for name, values in expected.items():
            assert found[name]["value"] == pytest.approx(values.mean().item(), rel=1e-5)
            assert found[name]["std"] == pytest.approx(values.std().item(), rel=1e-3)
            assert found[name]["n"] == len(values)
            assert logged[name] == pytest.approx(found[name]["value"], rel=1e-6)


def test_batches_do_not_matter(npz, tmp_path):
    one, _, _ = sizes(npz, tmp_path / "1", batch_size=1)
    all_, _, _ = sizes(npz, tmp_path / "7", batch_size=N)
    assert one.keys() == all_.keys()
    for name, entry in one.items():
        assert entry["value"] == pytest.approx(all_[name]["value"], rel=1e-6)


def test_only_what_is_attacked_is_measured(npz, tmp_path):
    transfer, _, _ = sizes(npz, tmp_path / "transfer", protocols=("transfer",))
    assert set(transfer) == {"magnitude/l2", "magnitude/linf"}
    base, _, _ = sizes(npz, tmp_path / "base", protocols=("base",))
    assert set(base) == {"magnitude/l2_base", "magnitude/linf_base"}


@pytest.mark.parametrize("protocols", [(), ("fresh",)])
def test_without_such_an_attack_it_is_refused(npz, tmp_path, protocols):
    with pytest.raises(InputError, match=r"add fixed or base to model\.protocols"):
        sizes(npz, tmp_path, protocols=protocols, attack=PGD(eps=0, steps=1))


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
