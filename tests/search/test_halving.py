"""Rounds of runs that are told what they find."""

import json

import pytest

from lit_purify.search.halving import halve
from lit_purify.search.space import Space
from lit_purify.sweeps.plan import SweepRun

FIGURES = {  # name -> clean accuracy, compression rate
    "a": (0.9, 0.4),
    "b": (0.8, 0.5),
    "c": (0.7, 0.2),
    "d": (0.4, 0.1),
    "x": (0.9, 0.9),
}
SPACE = Space.of(
    {"images": [4, 8, 16], "keep": 2, "finalists": 1, "groups": {"presets": {"p": {}}}}
)
CANDIDATES = {
    "presets": [SweepRun(name, {}, (f"--config={name}",)) for name in "abcd"],
    "filters": [SweepRun("x", {}, ("--config=x",))],
}


class Runner:
    """Writes the summary that each run would leave."""

    def __init__(self, broken=(), stop_after=99):
        self.broken, self.stop_after = broken, stop_after
        self.made = []

    def __call__(self, sweep):
        for run in sweep.runs:
            if sweep.phases[run.name] == "finished":
                continue
            if len(self.made) == self.stop_after:
                raise KeyboardInterrupt
            self.made.append(run)
            if run.name in self.broken:
                sweep.now(run, "failed", "it broke")
                continue
            folder = sweep.root / run.name / "lightning_logs" / "version_0"
            (folder / "records").mkdir(parents=True)
            clean, rate = FIGURES[run.name]
            more = {
                "c": {"purifier_options": {"averaged_draws": 2}},
                "d": {"evaluations": 19},  # by Heun's method
            }.get(run.name, {})
            summary = {
                "status": "finished",
                "versions": {},
                "settings": {"num_steps": 10, **more},
                "metrics": {
                    "purified/clean_accuracy": {"value": clean},
                    "uniform/compression_rate": {"value": rate},
                },
            }
            (folder / "summary.json").write_text(json.dumps(summary))
            sweep.now(run, "finished")


def test_each_round_sees_more_images_and_fewer_purifiers(tmp_path):
    runner = Runner()
    rounds = halve(SPACE, CANDIDATES, tmp_path, runner)
    assert [each.images for each in rounds] == [4, 8, 16]
    named = [[f.name for f in each.found["presets"]] for each in rounds]
    # d is too inaccurate, b is dominated by a; a covers more than c.
    assert named == [["a", "c", "b", "d"], ["a", "c"], ["a"]]
    assert all([f.name for f in each.found["filters"]] == ["x"] for each in rounds)
    assert runner.made[0].options[-2:] == ("--model.protocols=[]", "--data.limit=4")
    assert rounds[0].evaluations == 2 * 4 * (10 + 10 + 20 + 19 + 10)
    assert rounds[1].evaluations == 2 * 8 * (10 + 20 + 10)


@pytest.mark.parametrize(("budget", "number"), [(0, 1), (552 + 639, 1), (552 + 640, 2), (None, 3)])
def test_a_round_that_the_budget_does_not_cover_is_not_begun(tmp_path, budget, number):
    assert len(halve(SPACE, CANDIDATES, tmp_path, Runner(), budget=budget)) == number


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path):
    rounds = halve(SPACE, CANDIDATES, tmp_path, Runner(broken=("c",)))
    assert rounds[0].failed == {"c": "it broke"}
    assert [f.name for f in rounds[0].found["presets"]] == ["a", "b", "d"]
    assert [f.name for f in rounds[-1].found["presets"]] == ["a"]
