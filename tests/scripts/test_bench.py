"""What the bench says of two computations whose cost is known."""

import json

import pytest
import torch
from oracles import fill
from script_files import load_script

from lit_purify.diffusion import DiffusionPurifier, FixedNoise, small_unet

bench = load_script("bench")


class Clock:
    """Time passes only where a computation says so."""

    def __init__(self):
        self.now = 0.0

    def takes(self, *seconds):
        durations = iter(seconds)

        def work():
            self.now += next(durations)

        return work

    def measure(self, work):
        before = self.now
        work()
        return self.now - before


def compared(ours, reference, goal="", **options):
    clock = Clock()
    measured = bench.Bench("cpu", rounds=3)
    return measured.compare(
        "a row",
        clock.takes(*ours),
        clock.takes(*reference),
        goal,
        seconds=clock.measure,
        warm=False,
        **options,
    )


def test_a_ratio_is_the_median_of_the_rounds():
    found = compared((3, 2, 9), (2, 2, 3))
    assert (found.ratio, found.low, found.high) == (1.5, 1.0, 3.0)
    assert (found.ours, found.reference) == (2, 2)
    assert found.met is None
    assert compared((1, 1, 2), (4, 5, 6), speedup=True).ratio == 4


@pytest.mark.parametrize(("goal", "met"), [("<= 1.5", True), ("<= 1.4", False), (">= 2", False)])
def test_a_goal_is_about_the_median(goal, met):
    assert compared((3, 2, 9), (2, 2, 3), goal).met is met


def test_the_plain_chain_computes_what_the_purifier_does():
    denoiser = fill(small_unet(block_out_channels=(8, 16), norm_num_groups=4), seed=0, std=0.1)
    purifier = DiffusionPurifier(denoiser, t_star=60, num_steps=4)
    images, indices = (
        torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        torch.arange(3),
    )
    plain = bench.PlainChain(purifier, keyed=True)(images)
    torch.testing.assert_close(plain, purifier.purify(images, FixedNoise(0), indices))
    assert not torch.allclose(bench.PlainChain(purifier)(images), plain)


def test_rows_are_chosen_by_name_and_written(tmp_path, monkeypatch, capsys):
    path = tmp_path / "bench.json"
    arguments = ["--only", "noise", "--rounds", "1", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["bench.py", *arguments])
    bench.main()
    (row,) = json.loads(path.read_text())["rows"]
    assert row["ratio"] == pytest.approx(row["ours"] / row["reference"])
    assert row["met"] is None
    assert row["name"] in capsys.readouterr().out
