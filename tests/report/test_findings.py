"""When a finding of the paper holds, does not, or is open: constructed runs on either side."""

import math
from pathlib import Path

import pytest

from lit_purify.records.runs import FinishedRun
from lit_purify.report.findings import MARGIN, Judgement, difference, findings, together
from lit_purify.statistics import wilson_interval
from lit_purify.types import Estimate

HOLDS, PARTLY, FAILS, OPEN = Judgement
DISTANCES, VARIATION, RANDOMNESS, LAW, CURVE = range(5)
TINY = 1e-6


def entry(value, low=None, high=None):
    return {"value": value, "low": value if low is None else low, "high": high or value, "n": 100}


def run(name="a", *, settings=None, **metrics):
    """A run with these metrics; ``__`` stands for the slash in their names."""
    found = {key.replace("__", "/"): value for key, value in metrics.items()}
    model = {"classifier": {"source": "c", "sha256": "a" * 64}}
    known = {"attack": "PGD", "eps": 0.04, "data_sha256": "d", "models": model}
    return FinishedRun(Path(name), known | (settings or {}), found, "0")


def outcome(number, *runs):
    return findings(runs)[number].outcome


def test_the_interval_of_a_difference_is_newcombes():
    # The first example of Newcombe (1998), method 10: 56 of 70 less 48 of 80.
    shares = [Estimate(hits / n, *wilson_interval(hits, n)) for hits, n in ((56, 70), (48, 80))]
    found = difference(*shares)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (
        pytest.approx(0.0524, abs=5e-5),
        pytest.approx(0.3339, abs=5e-5),
    )


@pytest.mark.parametrize(
    ("several", "one"),
    [
        ([], OPEN),
        ([OPEN, OPEN], OPEN),
        ([HOLDS, OPEN], HOLDS),
        ([FAILS, OPEN], FAILS),
        ([HOLDS, FAILS], PARTLY),
        ([HOLDS, PARTLY], PARTLY),
    ],
)
def test_what_is_open_does_not_count_beside_what_is_decided(several, one):
    assert together(several) == one


def test_without_measurements_nothing_can_be_told_and_it_is_said_what_to_do():
    for runs in ([], [run()]):
        for finding in findings(runs):
            assert finding.outcome == OPEN
            assert not finding.evidence
            assert "Not measured" in finding.counts
    needs = [finding.needs for finding in findings([])]
    assert [
        word in need
        for word, need in zip(
            ("distances", "variance", "protocols", "t*", "base_curve"), needs, strict=True
        )
    ] == [True] * 5


def test_runs_that_disagree_are_counted():
    near = {"distance__l2_init": entry(2), "distance__l2_end": entry(1)}
    far = {"distance__l2_init": entry(1), "distance__l2_end": entry(2)}
    finding = findings([run("a", **near), run("b", **far), run("c", **far), run("d")])[DISTANCES]
    assert finding.outcome == PARTLY
    assert finding.counts == "Measured in 3 places: holds in 2, does not hold in 1."
    assert [found.source for found in finding.evidence] == ["a", "b", "c"]


class TestDistances:
    @pytest.mark.parametrize(
        ("after", "expected"),
        [
            ((2, 1.2 + TINY, 3), HOLDS),
            ((2, 1.2, 3), OPEN),
            ((0.5, 0.1, 0.8), OPEN),
            ((0.5, 0.1, 0.8 - TINY), FAILS),
        ],
    )
    def test_intervals_decide(self, after, expected):
        before = entry(1, 0.8, 1.2)
        one = run(distance__l2_init=before, distance__l2_end=entry(*after))
        assert outcome(DISTANCES, one) == expected

    def test_norms_that_disagree(self):
        found = {
            "distance__l2_init": entry(1),
            "distance__l2_end": entry(2),
            "distance__linf_init": entry(1),
            "distance__linf_end": entry(0.5),
        }
        (evidence,) = findings([run(**found)])[DISTANCES].evidence
        assert evidence.outcome == PARTLY
        assert "l2: 1.00 (1.00 to 1.00) before purification, 2.00" in evidence.words


class TestVariation:
    def vary(self, inputs=1, one=0.2, many=3, snr=0.01):
        return run(
            centroid__l2_inputs=entry(inputs),
            centroid__l2_fixed_noise=entry(one),
            centroid__l2_fixed_input=entry(many),
            variance__snr=entry(snr),
        )

    def test_as_in_the_paper(self):
        assert outcome(VARIATION, self.vary()) == HOLDS

    @pytest.mark.parametrize("wrong", [{"one": 1.1}, {"many": 0.9}, {"snr": 1.1}])
    def test_one_of_three_against_it(self, wrong):
        assert outcome(VARIATION, self.vary(**wrong)) == PARTLY

    def test_everything_against_it(self):
        assert outcome(VARIATION, self.vary(one=1.1, many=0.9, snr=1.1)) == FAILS

    def test_at_the_boundary(self):
        assert outcome(VARIATION, run(variance__snr=entry(0.9, 0.8, 1))) == OPEN
        assert outcome(VARIATION, run(variance__snr=entry(0.9, 0.8, 1 - TINY))) == HOLDS


class TestRandomness:
    @pytest.mark.parametrize(
        ("gap", "expected"), [(MARGIN + TINY, HOLDS), (MARGIN - TINY, FAILS), (-0.3, FAILS)]
    )
    def test_the_margin_decides(self, gap, expected):
        known = {"fixed__robust_accuracy": entry(0.5), "fresh__robust_accuracy": entry(0.5 + gap)}
        assert outcome(RANDOMNESS, run(**known)) == expected

    def test_wide_intervals_leave_it_open(self):
        fixed, fresh = entry(0.2, 0.1, 0.35), entry(0.5, 0.3, 0.7)
        known = {"fixed__robust_accuracy": fixed, "fresh__robust_accuracy": fresh}
        # 0.3 - sqrt(0.2^2 + 0.15^2) is 0.05.
        assert outcome(RANDOMNESS, run(**known)) == OPEN

    def test_an_attack_that_stops_early_says_nothing_about_transfer(self):
        known = {
            "fixed__robust_accuracy_any_iteration": entry(0.1),
            "transfer__robust_accuracy": entry(0.9),
        }
        early = {"early_stop": True}
        assert not findings([run(settings=early, **known)])[RANDOMNESS].evidence
        known["fresh__robust_accuracy"] = entry(0.8)
        (evidence,) = findings([run(settings=early, **known)])[RANDOMNESS].evidence
        assert evidence.outcome == HOLDS
        assert "at every iteration" in evidence.words
        assert "90.0" not in evidence.words


def on_law(rates, accuracies, *, half=0.01, eps=0.04):
    return [
        run(
            f"{eps}_{rate}",
            settings={"eps": eps},
            uniform__compression_rate=entry(rate),
            fixed__robust_accuracy=entry(share, share - half, share + half),
        )
        for rate, share in zip(rates, accuracies, strict=True)
    ]


class TestTheLaw:
    rates = (0.1, 0.2, 0.3, 0.4)

    def sigmoid(self, k):
        return [1 / (1 + math.exp(k * (rate - 0.25))) for rate in self.rates]

    def test_runs_on_a_curve(self):
        (evidence,) = findings(on_law(self.rates, self.sigmoid(15)))[LAW].evidence
        assert evidence.outcome == HOLDS
        assert "R2 = 1.000, k = 15.0, m = 0.250" in evidence.words

    def test_accuracy_that_rises_with_the_rate(self):
        assert outcome(LAW, *on_law(self.rates, self.sigmoid(-15))) == FAILS

    def test_accuracy_that_the_rate_does_not_explain(self):
        assert outcome(LAW, *on_law(self.rates, (0.6, 0.1, 0.7, 0.2))) == FAILS
        assert outcome(LAW, *on_law(self.rates, (0.7, 0.3, 0.5, 0.2))) == OPEN  # R2 = 0.66

    def test_accuracies_that_are_all_the_same(self):
        (evidence,) = findings(on_law(self.rates, (0.03, 0.02, 0.01, 0.0), half=0.05))[LAW].evidence
        assert evidence.outcome == OPEN
        assert "same within" in evidence.words

    def test_three_runs_are_too_few(self):
        assert not findings(on_law(self.rates, self.sigmoid(15))[:3])[LAW].evidence

    def test_images_of_a_blind_attacker_are_no_white_box(self):
        blind = [
            each._replace(
                metrics={
                    name.replace("fixed/", "blind/"): value for name, value in each.metrics.items()
                }
            )
            for each in on_law(self.rates, self.sigmoid(15))
        ]
        assert not findings(blind)[LAW].evidence
        assert not findings(blind)[RANDOMNESS].evidence

    def test_a_setting_that_some_runs_do_not_have_divides_nobody(self):
        older, newer = (
            on_law(self.rates, self.sigmoid(15))[part] for part in (slice(2), slice(2, 4))
        )
        newer = [run._replace(settings={**run.settings, "random_start": True}) for run in newer]
        (evidence,) = findings([*older, *newer])[LAW].evidence
        assert (evidence.source, evidence.outcome) == ("4 runs at 10.2/255", HOLDS)
        other = [run._replace(settings={**run.settings, "random_start": False}) for run in older]
        assert not findings([*other, *newer])[LAW].evidence

    def test_what_stands_at_every_iteration_is_not_mixed_with_the_last(self):
        runs = on_law(self.rates, self.sigmoid(15))
        early = run(
            "early",
            uniform__compression_rate=entry(0.15),
            fixed__robust_accuracy_any_iteration=entry(0.1),
        )
        (evidence,) = findings([early, *runs])[LAW].evidence
        assert (evidence.source, evidence.outcome) == ("4 runs at 10.2/255", HOLDS)

    def test_each_budget_has_its_own_law(self):
        runs = on_law(self.rates, self.sigmoid(15), eps=8 / 255)
        runs += on_law(self.rates, self.sigmoid(-15), eps=4 / 255)
        finding = findings(runs)[LAW]
        assert [(found.source, found.outcome) for found in finding.evidence] == [
            ("4 runs at 8/255", HOLDS),
            ("4 runs at 4/255", FAILS),
        ]


class TestTheCurve:
    def curve(self, name="curve", **changes):
        """A classifier whose accuracy falls in a straight line from 1 to 0 at eps 0.04."""
        shares = {rate: entry(1 - rate) for rate in (0.0, 0.5, 1.0)}
        points = {f"base_curve__robust_accuracy_{rate}": share for rate, share in shares.items()}
        return run(name, settings={"base_curve_eps": 0.04, **changes}, **points)

    def purified(self, share, rate=0.25, half=0.0, **changes):
        return run(
            "purified",
            settings=changes,
            uniform__compression_rate=entry(rate),
            fixed__robust_accuracy=entry(share, share - half, share + half),
        )

    @pytest.mark.parametrize(
        ("share", "expected"),
        [
            (0.75, HOLDS),
            (0.75 - MARGIN + TINY, HOLDS),
            (0.75 - MARGIN - TINY, FAILS),
            (0.75 + MARGIN + TINY, FAILS),
        ],
    )
    def test_the_margin_decides(self, share, expected):
        (evidence,) = findings([self.curve(), self.purified(share)])[CURVE].evidence
        assert evidence.outcome == expected
        assert "keeps 75.0 %" in evidence.words

    def test_wide_intervals_leave_it_open(self):
        assert outcome(CURVE, self.curve(), self.purified(0.75, half=0.11)) == OPEN

    def test_another_budget_is_looked_up_on_the_same_curve(self):
        assert outcome(CURVE, self.curve(), self.purified(0.5, rate=0.5)) == HOLDS
        assert outcome(CURVE, self.curve(), self.purified(0.875, rate=0.25, eps=0.02)) == HOLDS

    @pytest.mark.parametrize("change", [{"data_sha256": "other"}, {"attack": "PGDEOT"}])
    def test_a_curve_of_something_else_says_nothing(self, change):
        assert not findings([self.curve(**change), self.purified(0.75)])[CURVE].evidence

    def test_beyond_its_end_a_curve_says_nothing(self):
        assert not findings([self.curve(), self.purified(0.75, eps=0.2)])[CURVE].evidence
