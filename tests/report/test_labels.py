"""Labels of names that follow a rule, and which figures are shares."""

import pytest
from lit_purify.report.labels import OTHER, is_share, sections


def labels(*names: str) -> dict[str, str]:
    return {name: label for rows in sections(list(names)).values() for name, label in rows.items()}


def test_numbers_follow_one_rule_in_their_own_order() -> None:
    names = [f"base_curve/robust_accuracy_{rate}" for rate in ("1.00", "0.25", "0.1534", "0.00")]
    assert list(labels(*names).items()) == [
        ("base_curve/robust_accuracy_0.00", "Accuracy at 0 % of the budget"),
        ("base_curve/robust_accuracy_0.1534", "Accuracy at 15.34 % of the budget"),
        ("base_curve/robust_accuracy_0.25", "Accuracy at 25 % of the budget"),
        ("base_curve/robust_accuracy_1.00", "Accuracy at 100 % of the budget"),
    ]
    assert OTHER not in sections(names)


def test_words_take_the_place_of_the_star() -> None:
    assert labels("fixed/attack_flag_zero_gradient", "base/attack_flag_few_classes") == {
        "base/attack_flag_few_classes": "Classifier alone, the attack noted: flag few classes",
        "fixed/attack_flag_zero_gradient": "Known noise, the attack noted: flag zero gradient",
    }


def test_a_star_takes_nothing_that_begins_otherwise() -> None:
    assert sections(["base_curve/other", "my/base_curve/robust_accuracy_1"])[OTHER] == {
        "base_curve/other": "base_curve/other",
        "my/base_curve/robust_accuracy_1": "my/base_curve/robust_accuracy_1",
    }


def test_a_narrower_label_can_be_read_alone() -> None:
    alone = labels("agreement/gradient_eot")["agreement/gradient_eot"]
    assert alone.startswith("Agreement of gradients under different noises, of averaged")
    both = labels("agreement/gradient_eot", "agreement/gradient")
    assert both["agreement/gradient_eot"].startswith("... of averaged")


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("base_curve/robust_accuracy_0.25", True),
        ("fresh/robust_accuracy_majority", True),
        ("fresh/robust_accuracy_worst_of_n", True),
        ("fixed/attack_flag_dynamic", True),
        ("masking/zero_gradient", True),
        ("masking/lost_to_longer_attack", True),
        ("jacobian/share_above_1", True),
        ("masking/gradient_growth_log10", False),
        ("masking/derivative_error", False),
        ("masking/attack_loss_gain", False),
        ("agreement/perturbation_eot", False),
        ("uniform/compression_rate", False),
    ],
)
def test_shares(name: str, share: bool) -> None:
    assert is_share(name) is share
    assert OTHER not in sections([name])


def test_distances_of_uniform_levels():
    names = [f"distance_uniform_{k}/l2_end" for k in (128, 8, 25.5)]
    (rows,) = sections(["distance/l2_end", *names]).values()
    assert list(rows.items()) == [
        ("distance/l2_end", "l2 after purification"),
        ("distance_uniform_8/l2_end", "... uniform noise of 8/255"),
        ("distance_uniform_25.5/l2_end", "... uniform noise of 25.5/255"),
        ("distance_uniform_128/l2_end", "... uniform noise of 128/255"),
    ]
    alone = sections(names[:1])
    assert next(iter(alone.values()))[names[0]] == "l2 after purification, uniform noise of 128/255"
    assert OTHER in sections(["distance_uniform_x/l2_end", "distance_uniform_8/l2_end_too"])
