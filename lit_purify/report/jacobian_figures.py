"""The pictures of a run's Jacobian spectra, from its records."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from lit_purify.data.dataset import ImageDataset
from lit_purify.functional import moments
from lit_purify.records import SampleTable
from lit_purify.report.spectrum_figure import spectrum_figure, vectors_figure

_DRAWN = 8  # images in the picture of the singular vectors
_TENSORS = (
    *("singular_values", "left_vectors", "right_vectors"),
    *("density_values", "density_shares"),
)


def jacobian_figures(table: SampleTable, test_set: ImageDataset) -> dict[str, Figure]:
    """``spectrum`` and ``vectors``, or nothing where no image has a spectrum.

    Args:
        table: the records of the run.
        test_set: its images.
    """
    tensors = {name: table[f"jacobian/{name}"] for name in _TENSORS if f"jacobian/{name}" in table}
    if "singular_values" not in tensors:
        return {}
    measured = tensors["singular_values"][:, 0].isfinite()
    if not measured.any():
        return {}
    found = {name: values[measured] for name, values in tensors.items()}
    below, above = (
        moments(table[f"jacobian/{name}"])[1].item()
        for name in ("share_below_0.25", "share_above_1")
    )
    values, shares = found["singular_values"], None
    if "density_values" in found:  # those of the largest values alone are no distribution
        values, shares = (found[f"density_{name}"].flatten(1) for name in ("values", "shares"))
    places = {index: place for place, index in enumerate(test_set.indices.tolist())}
    first = table["index"][measured][:_DRAWN].tolist()
    right, left = (found[f"{side}_vectors"][:_DRAWN] for side in ("right", "left"))
    return {
        "spectrum": spectrum_figure(values, shares, below=below, above=above),
        "vectors": vectors_figure(
            torch.stack([test_set[places[index]]["image"] for index in first]),
            right,
            left,
            found["singular_values"][:_DRAWN, : right.shape[1]],
            [f"image {index}" for index in first],
        ),
    }
