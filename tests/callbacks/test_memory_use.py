"""Batch sizes and memory budgets that a run chooses; what it finds does not depend on them."""

from dataclasses import replace

import pytest
import tiny
import torch
from measured_run import measured_run
from tiny import IdentityPurifier

from lit_purify.attacks import PGD, PGDEOT, Ladder
from lit_purify.callbacks import MemoryUse, memory_use
from lit_purify.cli import main
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import DiffusionPurifier, FixedNoise, Purifier
from lit_purify.diffusion.free_memory import GIB
from lit_purify.diffusion.live_bytes import LiveBytes
from lit_purify.diffusion.memory import memory_plan
from lit_purify.modules import PurifiedClassifier
from lit_purify.types import InputError

ATTACK = PGD(eps="2/255", steps=2, rel_stepsize=0.3)


def chain(budget):
    """A small diffusion in which a fifth of the default budget is much."""
    return DiffusionPurifier(tiny.denoiser(), t_star=20, num_steps=3, memory_budget_gib=budget)


def need(rows):
    """Bytes that the plan says without activations kept."""
    plan = memory_plan(chain(0), tiny.classifier(), (3, 32, 32), rows)
    return replace(plan, steps_kept=0).peak


@pytest.fixture
def usable(monkeypatch):
    """Sets how much memory is usable, in bytes."""

    def set_to(number):
        monkeypatch.setattr(memory_use, "usable_bytes", lambda device: int(number))

    set_to(64 * GIB)
    return set_to


@pytest.fixture
def run(tmp_path, npz):
    """Runs a test with ``auto``; the images are seven."""

    def measure(purifier, folder="run", **options):
        options = {"attack": ATTACK, "batch_size": "auto", **options}
        return measured_run(tmp_path / folder, npz, purifier, MemoryUse(), **options)

    return measure


class TestBatchSize:
    def test_where_memory_is_plenty_all_images_are_one_batch(self, run, usable):
        found = run(chain(0))
        assert found.settings["batch_size"] == found.header["sessions"][0]["batch_size"] == 7
        assert "memory_budget_gib" not in found.settings  # it was given

    @pytest.mark.parametrize("rows", [1, 6])
    def test_else_as_many_as_fit_by_the_plan(self, run, usable, rows):
        usable(need(rows))
        assert run(chain(0)).settings["batch_size"] == rows
        usable(need(rows) - 1)
        assert run(chain(0), "less").settings["batch_size"] == max(1, rows - 1)

    def test_the_memory_budget_is_set_aside(self, run, usable):
        usable(need(3) + 0.5 * GIB)
        assert run(chain(0.5)).settings["batch_size"] == 3

    def test_another_purifier_is_measured(self, run, usable):
        purifier = Copies()
        module = PurifiedClassifier(purifier, tiny.classifier())

        def needed(rows):
            images, index = tiny.images_and_labels(rows)[0], torch.arange(rows)
            with LiveBytes() as live:
                x = images.clone().requires_grad_()
                logits = module.attacked("fixed", index)(x)
                torch.autograd.grad(logits.sum(), x)
            return live.peak

        usable(needed(4))
        assert run(purifier).settings["batch_size"] == 4
        replaced = run(IdentityPurifier(), "replaced", surrogate=Copies())
        assert replaced.settings["batch_size"] == 4  # what is attacked in the place of another
        usable(needed(4) - 1)
        assert run(purifier, "less").settings["batch_size"] == 3

    def test_without_gradients_forward_counts(self, run, usable):
        found = run(NoGradient(), protocols=())
        assert found.settings["batch_size"] == 7

    def test_processes_take_the_smallest(self, run, usable, monkeypatch):
        class Others:
            def gather(self, value):
                return [value, 2.0, 9.0]

        monkeypatch.setattr(memory_use, "peers_of", lambda trainer: Others())
        assert run(chain(0)).settings["batch_size"] == 2


class Copies(Purifier):
    """The identity, by way of layers that keep their results."""

    def purify(self, images, noise, indices):
        for _ in range(10):
            images = (images / 2).exp().log() * 2
        return images


class NoGradient(Purifier):
    """The identity, but for its gradient."""

    def purify(self, images, noise, indices):
        return images.detach()


class TestMemoryBudget:
    def test_it_is_what_the_batch_leaves(self, run, usable):
        purifier = chain("auto")
        usable(2 * GIB)
        found = run(purifier, batch_size=4)
        assert found.settings["memory_budget_gib"] == pytest.approx(2 - need(4) / GIB)
        assert purifier.budget.gib == found.settings["memory_budget_gib"]
        assert found.header["sessions"][0]["memory_budget_gib"] == purifier.budget.gib
        # The next run chooses anew.
        usable(need(4) - 5)
        assert run(purifier, "next", batch_size=4).settings["memory_budget_gib"] == 0

    def test_two_autos_share_the_memory(self, run, usable):
        usable(2 * need(3))
        found = run(chain("auto"))
        assert found.settings["batch_size"] == 3
        assert found.settings["memory_budget_gib"] == pytest.approx(need(3) / GIB)

    @pytest.mark.parametrize("climbed", [False, True])
    def test_draws_of_an_attack_count_as_images(self, run, usable, climbed):
        usable(GIB)
        attack = PGDEOT(eps="2/255", steps=1, draws=5, rows_per_pass=8)
        if climbed:
            attack = Ladder(eps="2/255", rungs={"cheap": PGD(steps=1), "dear": attack})
        found = run(chain("auto"), attack=attack, batch_size=3, protocols=("fresh",))
        assert found.settings["memory_budget_gib"] == pytest.approx(1 - need(8) / GIB)

    def test_a_surrogate_has_the_same(self, run, usable):
        purifier, surrogate = chain(0.5), chain("auto")
        usable(GIB)
        found = run(purifier, surrogate=surrogate, batch_size=4)
        assert surrogate.budget.gib == found.settings["memory_budget_gib"]
        assert surrogate.budget.gib == pytest.approx(1 - need(4) / GIB)
        assert purifier.budget.gib == 0.5

    def test_on_its_own_it_is_half_of_what_is_usable(self, monkeypatch):
        monkeypatch.setattr("lit_purify.diffusion.recompute.usable_bytes", lambda device: 3 * GIB)
        purifier = chain("auto")
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        gradients = []
        for each in (purifier, chain(0)):
            x = images.clone().requires_grad_()
            output = each.purify(x, FixedNoise(0), torch.arange(2))
            gradients += torch.autograd.grad(output.sum(), x)
        assert purifier.budget.gib == 1.5
        assert torch.equal(*gradients)


class TestRecords:
    @pytest.fixture
    def whole(self, run):
        return run(chain(0), "whole", batch_size=7)

    def test_they_do_not_depend_on_the_choice(self, run, usable, whole):
        usable(2 * need(3))
        found = run(chain("auto"))
        assert found.settings["batch_size"] == 3
        assert found.header["identity"] == whole.header["identity"]
        for row, expected in zip(found.rows, whole.rows, strict=True):
            assert tiny.same_row(row, expected, rel=1e-4)

    def test_a_resumed_run_may_choose_another(self, run, usable):
        class Fails(IdentityPurifier):
            at = 4

            def purify(self, images, noise, indices):
                if self.at in indices:
                    raise RuntimeError("this purifier fails")
                return super().purify(images, noise, indices)

        class Sound(IdentityPurifier):
            pass

        for kind in (Fails, Sound):
            kind.settings = lambda self: {"purifier": "Identity"}
        expected = run(Sound(), "whole", batch_size=7)
        sizes = []
        for purifier, number, options in ((Fails(), 0, {}), (Sound(), GIB, {"resume": True})):
            usable(number)
            try:
                found = run(purifier, **options)
            except RuntimeError:
                continue
            sizes = [session["batch_size"] for session in found.header["sessions"]]
        assert sizes == [1, 7]
        assert found.rows == expected.rows


class TestCommands:
    def test_test_says_what_was_chosen(self, tmp_path, capsys):
        options = ("--data.batch_size", "auto", "--model.purifier.memory_budget_gib", "auto")
        arguments = tiny.command("test", "cifar_fixed.yaml", tmp_path, *options)
        assert main([*arguments, *tiny.UNMEASURED]) == 0
        printed = capsys.readouterr()
        assert "batch size 3:" in printed.err
        assert "memory_budget_gib" in printed.out

    def test_predict_takes_it(self, tmp_path, capsys):
        arguments = tiny.command("predict", "predict.yaml", tmp_path)
        assert main([*arguments, "--data.batch_size", "auto"]) == 0
        assert "batch size 3:" in capsys.readouterr().err


def test_who_chooses_nothing_is_told(npz):
    data = CIFAR10DataModule(source=npz, train_source=npz, batch_size="auto", num_holdout=1)
    data.setup("test")
    with pytest.raises(InputError, match="MemoryUse"):
        data.test_dataloader()
    with pytest.raises(InputError, match="give a number"):
        data.setup("fit")
