"""Metric names in the words of a person who has not read the paper."""

from __future__ import annotations

import re

SECTIONS: dict[str, dict[str, str]] = {
    "Accuracy": {
        "base/clean_accuracy": "Classifier alone, clean images",
        "base/robust_accuracy": "Classifier alone, attacked",
        "base/robust_accuracy_any_iteration": "... correct at every iteration of the attack",
        "purified/clean_accuracy": "Purified, clean images",
        "fixed/robust_accuracy": "Purified, attacked: attacker knows the noise (fixed)",
        "fixed/robust_accuracy_any_iteration": "... correct at every iteration of the attack",
        "transfer/robust_accuracy": "... tested under other noise (transfer)",
        "fresh/robust_accuracy": "... new noise at every pass (fresh)",
        "fresh/robust_accuracy_worst_of_n": "... new noise, correct at every one of N tries",
        "fresh/robust_accuracy_majority": "... new noise, majority of N tries",
    },
    "Classifier alone, attacked with less": {
        "base_curve/robust_accuracy_*": "Accuracy at {} of the budget",
    },
    "Size of a perturbation, after / before purification": {
        "uniform/compression_rate": "Random perturbations (uniform)",
        "jacobian/uniform_compression_rate": "... predicted by the Jacobian",
        "attack/compression_rate": "Attack perturbations",
        "attack/compression_rate_robust": "... where the attack failed",
        "attack/compression_rate_nonrobust": "... where the attack succeeded",
    },
    "Size of the attack's perturbation, pixels in [0, 1]": {
        "magnitude/l2": "l2, attack on the purified classifier (fixed)",
        "magnitude/l2_robust": "... where the attack failed",
        "magnitude/l2_nonrobust": "... where the attack succeeded",
        "magnitude/linf": "Largest pixel difference, attack on the purified classifier (fixed)",
        "magnitude/l2_base": "l2, attack on the classifier alone",
        "magnitude/linf_base": "Largest pixel difference, attack on the classifier alone",
    },
    "Distance to the clean image, pixels in [0, 1]": {
        "distance/l2_init": "l2 before purification",
        "distance_uniform_*/l2_init": "... uniform noise of {}/255",
        "distance/l2_max": "l2 at its largest",
        "distance_uniform_*/l2_max": "... uniform noise of {}/255",
        "distance/l2_end": "l2 after purification",
        "distance_uniform_*/l2_end": "... uniform noise of {}/255",
        "distance/linf_init": "Largest pixel difference before purification",
        "distance_uniform_*/linf_init": "... uniform noise of {}/255",
        "distance/linf_max": "Largest pixel difference at its largest",
        "distance_uniform_*/linf_max": "... uniform noise of {}/255",
        "distance/linf_end": "Largest pixel difference after purification",
        "distance_uniform_*/linf_end": "... uniform noise of {}/255",
    },
    "Image quality": {
        "quality/ssim_before": "Similarity to the clean image (SSIM) before purification",
        "quality/ssim_after": "Similarity to the clean image (SSIM) after purification",
        "quality/fid_before": "FID before purification",
        "quality/fid_after": "FID after purification",
        "quality/frechet_classifier_before": (
            "Fréchet distance in the classifier's features before purification"
        ),
        "quality/frechet_classifier_after": (
            "Fréchet distance in the classifier's features after purification"
        ),
    },
    "What the purified image depends on": {
        "variance/total": "Variance per pixel",
        "variance/input": "... from the input, at a given noise",
        "variance/internal": "... from the noise",
        "variance/internal_unbiased": "... from the noise, bias corrected",
        "variance/snr": "Input over noise (SNR)",
        "direction/fixed_noise": "Agreement of directions: same noise, other inputs",
        "direction/fixed_input": "Agreement of directions: same input, other noises",
        "centroid/l2_inputs": "Distance to the centre: the inputs themselves",
        "centroid/l2_fixed_noise": "Distance to the centre: purified, same noise",
        "centroid/l2_fixed_input": "Distance to the centre: purified, same input",
        "centroid/l2_both": "Distance to the centre: purified, both vary",
    },
    "Gradients": {
        "jacobian/share_below_0.25": "Directions shrunk to less than a quarter",
        "jacobian/share_above_1": "Directions that grow",
        "jacobian/largest": "Largest growth of a small perturbation",
        "jacobian/frobenius": "Frobenius norm of the Jacobian",
        "agreement/perturbation": "Agreement of attacks found under different noises",
        "agreement/perturbation_eot": "... of averaged (EOT) ones with those under one noise",
        "agreement/gradient": "Agreement of gradients under different noises",
        "agreement/gradient_eot": "... of averaged (EOT) ones with those under one noise",
    },
    "Signs of masked gradients": {
        "masking/gradient_growth_log10": "Gradient's norm, input over output of the chain, log10",
        "masking/nonfinite_gradient": "Images whose gradient is infinite or no number",
        "masking/zero_gradient": "Pixels whose gradient is exactly 0",
        "masking/derivative_error": "Gradient against measured slope, relative error",
        "masking/wrong_gradient": "... images where it is above 0.1",
        "masking/attack_loss_gain": "Rise of the loss during the attack",
        "masking/lost_to_longer_attack": "Images that stood and fall to a longer attack",
        "base/attack_*": "Classifier alone, the attack noted: {}",
        "fixed/attack_*": "Known noise, the attack noted: {}",
        "fresh/attack_*": "New noise, the attack noted: {}",
    },
}
"""Section title -> metric name -> label, in the order of a report. A label that begins with three
dots narrows the last one that does not. A name that ends with a star stands for all that begin
so, and the rest of each takes the place of the braces in the label. A star inside a name stands
for a number, which does the same."""

OTHER = "Other measurements"

_SHARES = (
    "jacobian/share",
    *(f"masking/{share}_gradient" for share in ("nonfinite", "zero", "wrong")),
    "masking/lost_to_longer_attack",
)
_NUMBER = re.compile(r"\d+(\.\d+)?")


def sections(names: list[str]) -> dict[str, dict[str, str]]:
    """The sections of a report on these metrics, without empty ones.

    A label of three dots whose head is absent is given the section's last full label, so that it
    can be read alone. Unknown names keep their name.

    Args:
        names: metric names, any subset in any order.

    Returns:
        Section title -> metric name -> label.

    Example:
        >>> sections(["fresh/robust_accuracy"])["Accuracy"]
        {'fresh/robust_accuracy': 'Purified, attacked: new noise at every pass (fresh)'}
    """
    found: dict[str, dict[str, str]] = {}
    known = set()
    for title, labels in SECTIONS.items():
        head, shown = "", False
        rows = {}
        for pattern, label in labels.items():
            if not label.startswith("..."):
                head, shown = label, False
            for name, words in _matches(pattern, names):
                known.add(name)
                text = label.format(words)
                if label.startswith("...") and not shown:
                    start = head.split(":")[0]
                    text = f"{start}{':' if ':' in head else ','} {text[4:]}"
                rows[name], shown = text, True
        if rows:
            found[title] = rows
    rest = {name: name for name in names if name not in known}
    return found | ({OTHER: rest} if rest else {})


def _matches(pattern: str, names: list[str]) -> list[tuple[str, str]]:
    """The names that a key of the sections stands for, each with the words for its star.

    Numbers at the end are in percent; all are in their order, words in that of the report.
    """
    start, star, end = pattern.partition("*")
    if not star:
        return [(pattern, "")] if pattern in names else []
    if end:
        shape = re.compile(f"{re.escape(start)}({_NUMBER.pattern}){re.escape(end)}")
        inside = {name: match[1] for name in names if (match := shape.fullmatch(name))}
        return sorted(inside.items(), key=lambda item: float(item[1]))
    rests = {name: name[len(start) :] for name in names if name.startswith(start)}
    numbers = {name: float(rest) for name, rest in rests.items() if _NUMBER.fullmatch(rest)}
    found = [
        (name, f"{100 * numbers[name]:g} %") for name in sorted(numbers, key=numbers.__getitem__)
    ]
    words = [(name, rest.replace("_", " ")) for name, rest in rests.items() if name not in numbers]
    return found + words


def is_share(name: str) -> bool:
    """Whether a metric is a share of samples, pixels or directions, to be shown in percent."""
    return "accuracy" in name or is_finding(name) or name.startswith(_SHARES)


def is_finding(name: str) -> bool:
    """Whether a metric counts samples of which an attack noted something beside its image."""
    return name.startswith(("base/attack_", "fixed/attack_", "fresh/attack_"))
