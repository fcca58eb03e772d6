"""Who is compared with whom, and what counts as better."""

import json

import pytest
from search_results import finalist

from lit_purify.search.verdict import ROBUST, attacked, verdicts
from lit_purify.types import InputError


def right(n, of=20):
    return [i < n for i in range(of)]


def test_it_is_compared_with_the_most_robust_preset_of_its_accuracy(tmp_path):
    finalists = [
        finalist(tmp_path, "weak", "presets", clean=right(19), robust=right(4)),
        finalist(tmp_path, "strong", "presets", clean=right(18), robust=right(6)),
        finalist(tmp_path, "inaccurate", "presets", clean=right(12), robust=right(11)),
        finalist(tmp_path, "found", "chains", clean=right(18), robust=right(14)),
        finalist(tmp_path, "exact", "chains", clean=right(20), robust=right(5)),
    ]
    first, second = verdicts(finalists)
    assert (first.found.name, first.preset.name) == ("found", "strong")
    assert first.better
    assert first.p_robust == pytest.approx(2 / 2**8)
    assert "better than strong" in str(first)
    # None is as accurate as this one: the most accurate preset is compared.
    assert (second.found.name, second.preset.name) == ("exact", "weak")
    assert not second.better
    assert "not shown" in str(second)


@pytest.mark.parametrize(
    ("clean", "robust", "better"),
    [(20, 6, False), (20, 12, True), (20, 1, False), (19, 12, True), (10, 12, False)],
)
def test_better_is_significantly_more_robust_and_not_less_accurate(tmp_path, clean, robust, better):
    (verdict,) = verdicts(
        [
            finalist(tmp_path, "preset", "presets", clean=right(20), robust=right(4)),
            finalist(tmp_path, "found", "chains", clean=right(clean), robust=right(robust)),
        ]
    )
    assert verdict.better == better


def test_of_many_finalists_one_that_is_ahead_by_chance_is_not_better(tmp_path):
    preset = finalist(tmp_path, "preset", "presets", clean=right(20), robust=right(4))
    ahead = finalist(tmp_path, "ahead", "chains", clean=right(20), robust=right(11))
    others = [
        finalist(tmp_path, f"other_{n}", "chains", clean=right(20), robust=right(4))
        for n in range(3)
    ]
    (alone,) = verdicts([preset, ahead])
    assert alone.p_robust == pytest.approx(2 / 2**7)
    assert alone.better
    of_four = verdicts([preset, ahead, *others])
    assert of_four[0].found.name == "ahead"
    assert not any(verdict.better for verdict in of_four)


def test_a_run_without_the_attack_is_refused(tmp_path):
    preset = finalist(tmp_path, "preset", "presets", clean=right(20), robust=right(4))
    fresh = finalist(tmp_path, "fresh", "chains", clean=0.9)
    with pytest.raises(InputError, match=ROBUST[0]):
        verdicts([preset, fresh])


def test_what_could_not_be_compiled_is_not_suspicious(tmp_path):
    there = finalist(tmp_path, "found", "chains", clean=right(20), robust=right(4))
    others = dict.fromkeys(("status", "versions", "settings", "metrics"))
    for before, suspicious in ({"not_compiled": "no compiler"}, False), ({"training": ["x"]}, True):
        summary = json.dumps({"preflight": before, **others})
        (there.run.folder / "summary.json").write_text(summary)
        assert bool(attacked(there.found, there.run).flags) == suspicious


def test_what_is_suspicious_is_not_compared(tmp_path):
    preset = finalist(tmp_path, "preset", "presets", clean=right(20), robust=right(4))
    masked = finalist(
        tmp_path, "masked", "chains", clean=right(20), robust=right(20), flags=["zero gradient"]
    )
    assert verdicts([preset, masked]) == []
    assert verdicts([preset._replace(flags=["x"]), masked._replace(flags=[])]) == []
