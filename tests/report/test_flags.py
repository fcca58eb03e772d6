"""Each flag on either side of its threshold."""

from typing import Any

import pytest

from lit_purify.diffusion import ddpm_unet
from lit_purify.functional import wilson_interval
from lit_purify.report import flags
from lit_purify.report.flags import AUTOATTACK


def share(successes: float, n: int) -> dict[str, Any]:
    low, high = wilson_interval(successes, n)
    return {"value": successes / n if n else None, "low": low, "high": high, "n": n}


def mean(value: float | None) -> dict[str, Any]:
    return {"value": value, "low": None, "high": None, "std": None, "n": 1, "missing": 0}


SOUND: dict[str, Any] = {
    "base/robust_accuracy": share(0, 100),
    "fixed/robust_accuracy": share(20, 100),
    "transfer/robust_accuracy": share(40, 100),
    "fresh/robust_accuracy": share(45, 100),
    "masking/nonfinite_gradient": share(0, 100),
    "masking/zero_gradient": mean(0.0),
    "masking/wrong_gradient": share(2, 100),
    "masking/gradient_growth_log10": mean(-0.9),
    "masking/attack_loss_gain": mean(5.0),
    "masking/lost_to_longer_attack": share(0, 8),
    "masking/lost_to_black_box": share(0, 8),
    "fixed/attack_flag_zero_gradient": share(0, 100),
    "fixed/attack_broken_without_gradients": share(1, 100),
    "fixed/attack_not_run_square": share(0, 100),
}

MASKED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "overflow": ({"masking/nonfinite_gradient": share(1, 100)}, ["not a number in 1.0 %"]),
    "zeros": ({"masking/zero_gradient": mean(0.02)}, ["exactly zero in 2.0 %", "BPDA"]),
    "followed": ({"fresh/nonfinite_gradient": share(2, 100)}, ["fresh noise", "2.0 %"]),
    "no way": ({"base/zero_gradient": mean(0.5)}, ["classifier alone", "zero in 50.0 %"]),
    "broken": ({"transfer/robust_nonfinite": share(1, 4)}, ["25.0 %", "not finite", "wrong"]),
    "wrong": ({"masking/wrong_gradient": share(20, 100)}, ["20.0 %", "not the derivative"]),
    "explodes": ({"masking/gradient_growth_log10": mean(3.5)}, ["grows", "10^3.5"]),
    "vanishes": ({"masking/gradient_growth_log10": mean(-6.0)}, ["vanishes", "10^-6.0"]),
    "no rise": ({"masking/attack_loss_gain": mean(0.0)}, ["own loss by +0", "it did not work"]),
    "falls": ({"masking/attack_loss_gain": mean(-0.25)}, ["own loss by -0.25"]),
    "longer": ({"masking/lost_to_longer_attack": share(4, 8)}, ["50.0 % of the 8", "raise"]),
    "black box": ({"masking/lost_to_black_box": share(4, 8)}, ["50.0 % of the 8", "is masked"]),
    "transfer": ({"transfer/robust_accuracy": share(4, 100)}, ["(transfer) only 4.0 %", "20.0 %"]),
    "blind": ({"blind/robust_accuracy": share(4, 100)}, ["(blind) only 4.0 %", "failed"]),
    "fresh": ({"fresh/robust_accuracy": share(4, 100)}, ["(fresh) only 4.0 %"]),
    "gradients mislead": (
        {"fixed/attack_broken_without_gradients": share(10, 100)},
        ["On fixed", "broke 10.0 %", "BPDA"],
    ),
    "budget": (
        {
            "base/attack_not_run_pgd": share(0, 100),
            "base/attack_not_run_fab_t": share(3, 100),
            "base/attack_not_run_square": share(5, 100),
        },
        ["On base", "5.0 %", "fab_t, square did not run"],
    ),
    "unknown warning": ({"base/attack_flag_new": share(3, 100)}, ["on base (new, 3.0 %"]),
    **{
        f"AutoAttack {ending}": (
            {f"fixed/attack_flag_{ending}": share(1, 4)},
            [f"AutoAttack warns on fixed ({ending}, 25.0 % of the samples)"],
        )
        for ending in AUTOATTACK
    },
}


@pytest.mark.parametrize(("name", "of"), [("transfer", "noise"), ("blind", "classifier alone")])
def test_images_at_the_edge_of_what_fools_transfer_badly(name: str, of: str) -> None:
    metrics = {f"{name}/robust_accuracy": share(40, 100)}
    (sentence,) = flags(metrics, {"early_stop": True})
    assert f"{name}/robust_accuracy is too high" in sentence
    assert of in sentence
    assert flags(metrics, {"early_stop": False}) == []
    assert flags({f"{name}/robust_accuracy": share(0, 100)}, {"early_stop": True}) == []


def test_without_noise_there_is_no_transfer() -> None:
    metrics = {"transfer/robust_accuracy": share(40, 100)}
    found = [
        flags(metrics, {"early_stop": True}, {"draws_noise": drawn}) for drawn in (True, False)
    ]
    assert [len(each) for each in found] == [1, 0]


def test_a_surrogate_is_for_the_chain() -> None:
    surrogate = {"purifier": "DiffusionPurifier", "num_steps": 3}
    for protocols, count in ((["base", "blind"], 0), (["blind", "fixed"], 1)):
        assert len(flags({}, {"protocols": protocols, "surrogate": surrogate})) == count


def test_a_sound_run_has_none() -> None:
    assert flags(SOUND) == []
    assert flags({}) == []


@pytest.mark.parametrize("case", MASKED)
def test_each_sign_has_its_sentence(case: str) -> None:
    change, parts = MASKED[case]
    (sentence,) = flags({**SOUND, **change})
    for part in parts:
        assert part in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("masking/zero_gradient", mean(0.01)),
        ("masking/wrong_gradient", share(1, 8)),  # its lower bound is 2.2 %
        ("masking/gradient_growth_log10", mean(3.0)),
        ("masking/gradient_growth_log10", mean(-3.0)),
        ("masking/attack_loss_gain", mean(0.1)),
        ("masking/lost_to_longer_attack", share(1, 8)),
        ("masking/lost_to_black_box", share(1, 8)),
        ("transfer/robust_accuracy", share(12, 100)),  # the intervals overlap
        ("fixed/attack_seconds", mean(3.0)),
        ("fixed/my_attack_flag_x", mean(3.0)),
    ],
)
def test_up_to_its_threshold_there_is_none(name: str, entry: dict[str, Any]) -> None:
    assert flags({**SOUND, name: entry}) == []


@pytest.mark.parametrize("name", SOUND)
def test_what_was_not_measured_is_not_flagged(name: str) -> None:
    """Of no sample the interval is [0, 1]; a run that is going on knows nothing."""
    assert flags({**SOUND, name: share(0, 0)}) == []
    assert flags({**SOUND, name: mean(None)}) == []


def test_an_attack_that_left_nothing_standing_need_not_raise_its_loss() -> None:
    change = {"masking/attack_loss_gain": mean(0.0), "fixed/robust_accuracy": share(0, 100)}
    assert flags({**SOUND, **change}) == []


def test_random_weights_are_flagged():
    untrained = {"source": ddpm_unet(block_out_channels=(32, 32)).source, "sha256": None}
    trained = {"source": "DDPM", "sha256": "ab"}
    assert flags({}, {"models": {"denoiser": trained, "classifier": trained}}) == []
    (sentence,) = flags({}, {"models": {"denoiser": untrained, "classifier": trained}})
    assert sentence.startswith("The denoiser has random weights (untrained")


def test_photographs_prepared_otherwise_are_flagged():
    wanted = {"classifier_preprocessing": "Res256Crop224"}
    assert flags({}, wanted) == []
    assert flags({}, {**wanted, "data_preprocessing": None}) == []
    assert flags({}, {**wanted, "data_preprocessing": "Res256Crop224"}) == []
    (sentence,) = flags({}, {**wanted, "data_preprocessing": "Crop288"})
    assert "set data.preprocessing to Res256Crop224" in sentence
