"""The pictures of a run's Jacobian spectra, from its records."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

from lit_purify.data.dataset import ImageDataset
from lit_purify.functional import moments
from lit_purify.report.aggregate import column
from lit_purify.report.records import read_rows, read_tensors
from lit_purify.report.spectrum_figure import spectrum_figure, vectors_figure

_DRAWN = 8  # images in the picture of the singular vectors
_TENSORS = (
    *("singular_values", "left_vectors", "right_vectors"),
    *("density_values", "density_shares"),
)


def jacobian_figures(folder: Path, run: str, test_set: ImageDataset) -> dict[str, Figure]:
    """``spectrum`` and ``vectors``, or nothing where no image has a spectrum.

    Args:
        folder: the records of the run.
        run: the run they must belong to.
        test_set: the images of the run.

    Raises:
        InputError: a file of the records is damaged or foreign.
    """
    tensors = read_tensors(folder, run, [f"jacobian/{name}" for name in _TENSORS])
    if "jacobian/singular_values" not in tensors:
        return {}
    measured = tensors["jacobian/singular_values"][:, 0].isfinite()
    if not measured.any():
        return {}
    found = {name.removeprefix("jacobian/"): values[measured] for name, values in tensors.items()}
    rows = read_rows(folder, run)
    below, above = (
        moments(torch.tensor(column(rows, f"jacobian/{name}"), dtype=torch.float64))[1].item()
        for name in ("share_below_0.25", "share_above_1")
    )
    values, shares = found["singular_values"], None
    if "density_values" in found:  # those of the largest values alone are no distribution
        values, shares = (found[f"density_{name}"].flatten(1) for name in ("values", "shares"))
    places = {index: place for place, index in enumerate(test_set.indices.tolist())}
    first = found["index"][:_DRAWN].tolist()
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
