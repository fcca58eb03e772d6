"""Metric names in the words of a person who has not read the paper."""

from __future__ import annotations

SECTIONS: dict[str, dict[str, str]] = {
    "Accuracy": {
        "base/clean_accuracy": "Classifier alone, clean images",
        "base/robust_accuracy": "Classifier alone, attacked",
        "base/robust_accuracy_any_iteration": "... correct at every iteration of the attack",
        "purified/clean_accuracy": "Purified, clean images",
        "fixed/robust_accuracy": "Purified, attacked: attacker knows the noise (fixed)",
        "fixed/robust_accuracy_any_iteration": "... correct at every iteration of the attack",
        "transfer/robust_accuracy": "... tested under another noise (transfer)",
        "fresh/robust_accuracy": "... new noise at every pass (fresh)",
        "fresh/robust_accuracy_worst_of_n": "... new noise, correct at every one of N tries",
        "fresh/robust_accuracy_majority": "... new noise, majority of N tries",
    },
    "Size of a perturbation, after / before purification": {
        "uniform/compression_rate": "Random perturbations (uniform)",
        "attack/compression_rate": "Attack perturbations",
        "attack/compression_rate_robust": "... where the attack failed",
        "attack/compression_rate_nonrobust": "... where the attack succeeded",
    },
    "Distance to the clean image, pixels in [0, 1]": {
        "distance/l2_init": "l2 before purification",
        "distance/l2_max": "l2 at its largest",
        "distance/l2_end": "l2 after purification",
        "distance/linf_init": "Largest pixel difference before purification",
        "distance/linf_max": "Largest pixel difference at its largest",
        "distance/linf_end": "Largest pixel difference after purification",
    },
    "Image quality": {
        "quality/ssim_before": "Similarity to the clean image (SSIM) before purification",
        "quality/ssim_after": "Similarity to the clean image (SSIM) after purification",
        "quality/fid_before": "FID before purification",
        "quality/fid_after": "FID after purification",
    },
    "What the purified image depends on": {
        "variance/total": "Variance per pixel",
        "variance/input": "... from the input, at a given noise",
        "variance/internal": "... from the noise",
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
        "agreement/perturbation": "Agreement of attacks found under different noises",
        "agreement/gradient": "Agreement of gradients under different noises",
    },
}
"""Section title -> metric name -> label, in the order of a report. A label that begins with three
dots narrows the last one that does not."""

OTHER = "Other measurements"


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
        for name, label in labels.items():
            known.add(name)
            if not label.startswith("..."):
                head, shown = label, False
            if name not in names:
                continue
            if label.startswith("...") and not shown:
                label = f"{head.split(':')[0]}{':' if ':' in head else ','} {label[4:]}"
            rows[name], shown = label, True
        if rows:
            found[title] = rows
    rest = {name: name for name in names if name not in known}
    return found | ({OTHER: rest} if rest else {})


def is_share(name: str) -> bool:
    """Whether a metric is a share of samples or directions, to be shown in percent."""
    return "accuracy" in name or name.startswith("jacobian/share")
