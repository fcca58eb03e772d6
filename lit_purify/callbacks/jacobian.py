"""The singular values of the purifier's Jacobian at clean images (Fig. 3a)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_purify.callbacks.compression import SECTION as COMPRESSION
from lit_purify.callbacks.measurement import Measurement
from lit_purify.callbacks.spectra import Dense, MatrixFree, Spectrum
from lit_purify.data.base import evaluated_images
from lit_purify.data.dataset import ImageDataset
from lit_purify.diffusion.noise import FixedNoise
from lit_purify.diffusion.seeds import derive_seed
from lit_purify.figures import spectrum_figure, vectors_figure
from lit_purify.functional import JacobianOperator, lp_distance, push_forward
from lit_purify.functional.jacobian import Differentiation
from lit_purify.metrics import MeanWithDeviation
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.records import SampleTable
from lit_purify.types import Batch, InputError

Mode = Literal["dense", "matrix_free"]

LABELS = {
    "share_below_0.25": "Directions shrunk to less than a quarter",
    "share_above_1": "Directions that grow",
    "largest": "Largest growth of a small perturbation",
    "frobenius": "Frobenius norm of the Jacobian",
}
PREDICTED = "jacobian/uniform_compression_rate"
_DRAWN = 8  # images in the picture of the singular vectors
_LARGEST_DENSE = 2**14  # rows; the decomposition of more takes hours and 2 GiB


class JacobianSpectrum(Measurement):
    r"""Measures how the purifier moves small perturbations: its Jacobian's singular values.

    The Jacobian :math:`J = \partial f_\xi / \partial x` is taken at the clean image, under the
    run's fixed noise, in the [0, 1] scale of the images. For each of the first ``images`` images of
    the data set it logs

    - ``jacobian/share_below_0.25`` and ``jacobian/share_above_1``: shares of the singular values,
    - ``jacobian/largest``: the largest one, and ``jacobian/frobenius``: the Frobenius norm,

    and keeps tensors beside the records, nan for other images: ``jacobian/singular_values``, (B, n)
    or, without the matrix, the (B, top_k) largest, and the vectors of the largest as images,
    ``jacobian/right_vectors`` (of the input) and ``jacobian/left_vectors`` (of the output), both
    (B, top_k, C, H, W).

    ``dense`` computes the whole matrix and decomposes it. ``matrix_free`` computes products with it
    only: the largest values by iteration, the shares and the norm by Lanczos quadrature from random
    probes (:mod:`lit_purify.functional.quadrature`). There every image has the columns
    ``..._low`` and ``..._high``, the 95 % interval that covers the choice of the probes and the
    finite number of steps, and the tensors ``jacobian/density_values`` and
    ``jacobian/density_shares``, both (B, probes, lanczos_steps). The interval in the summary is one
    over images, as everywhere.

    At the end the first process draws ``jacobian_spectrum.png`` and ``jacobian_vectors.png`` from
    the records. So without the callback Records there are no pictures.

    Args:
        mode: ``dense`` or ``matrix_free``.
        images: how many images get a spectrum, by their place in the data set; 50 in the paper.
            ``None`` for all, 0 for none.
        top_k: how many of the largest singular values get their vectors. They take 8 top_k n bytes
            for each image of the run, measured or not.
        probes: random probes of the quadrature, 2 or more.
        lanczos_steps: steps of the quadrature. They take 8 probes lanczos_steps n bytes.
        rows_per_pass: images that the purifier is given at once.
        differentiation: ``forward`` mode, or ``reverse`` for a purifier that has no rules of
            forward mode. ``dense`` is quicker in reverse where the network activations of the chain
            fit into the purifier's memory budget.
        predict_compression: also log ``jacobian/uniform_compression_rate`` for every image of the
            run, :math:`\|J \eta\| / \|\eta\|` with the uniform perturbation :math:`\eta` of
            CompressionRate: to first order its ``uniform/compression_rate``, whatever its eps.
    """

    rounded_away = "the Jacobian's small singular values"

    def __init__(
        self,
        *,
        mode: Mode = "dense",
        images: int | None = 50,
        top_k: int = 4,
        probes: int = 8,
        lanczos_steps: int = 80,
        rows_per_pass: int = 64,
        differentiation: Differentiation = "forward",
        predict_compression: bool = False,
    ) -> None:
        if mode not in get_args(Mode):
            raise InputError(f"mode of JacobianSpectrum is {mode!r}; expected dense or matrix_free")
        if differentiation not in get_args(Differentiation):
            raise InputError(
                f"differentiation of JacobianSpectrum is {differentiation!r}; expected forward or "
                "reverse"
            )
        for name, value, least in (
            ("images", images, 0),
            ("top_k", top_k, 1),
            ("probes", probes, 2),
            ("lanczos_steps", lanczos_steps, 1),
            ("rows_per_pass", rows_per_pass, 1),
        ):
            if value is not None and value < least:
                raise InputError(f"{name} of JacobianSpectrum is {value}; expected {least} or more")
        self.mode: Mode = mode
        self.images = images
        self.top_k = top_k
        self.spectrum: Spectrum = (
            Dense(top_k) if mode == "dense" else MatrixFree(top_k, probes, lanczos_steps)
        )
        self.rows_per_pass = rows_per_pass
        self.differentiation: Differentiation = differentiation
        self.predict_compression = predict_compression
        self._chosen: frozenset[int] = frozenset()

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        return {
            "jacobian_mode": self.mode,
            "jacobian_images": len(self._chosen),
            "jacobian_top_k": self.top_k,
            **self.spectrum.settings(),
            "jacobian_rows_per_pass": self.rows_per_pass,
            "jacobian_differentiation": f"{self.differentiation} mode",
            "jacobian_predicts_compression": self.predict_compression,
        }

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        images = _images(trainer)
        self._chosen = frozenset(images.indices[: self.images].tolist())
        n = images[0]["image"].numel()
        if self.top_k >= n:
            raise InputError(
                f"top_k of JacobianSpectrum is {self.top_k}; expected fewer than the {n} values of "
                "an image"
            )
        if self.mode == "dense" and self._chosen and n > _LARGEST_DENSE:
            raise InputError(
                f"the Jacobian of an image of {n} values has {n} x {n} entries, too many for the "
                "dense spectrum; set mode: matrix_free"
            )
        for name, label in LABELS.items() if self._chosen else ():
            unit = "%" if name.startswith("share") else ""
            module.add_metric(
                f"jacobian/{name}", MeanWithDeviation(unit=unit), section="Gradients", label=label
            )
        if self.predict_compression:
            module.add_metric(
                PREDICTED,
                MeanWithDeviation(),
                section=COMPRESSION,
                label="Random perturbations, predicted by the Jacobian",
            )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # One product, so that a purifier that gives none is refused before the work, not after it.
        module = PurifiedClassifier.tested_by(self, pl_module)
        sample = _images(trainer)[0]
        operator = self._operator(
            module, sample["image"].to(module.device), sample["index"].view(1)
        )
        operator.push(operator.image.new_zeros(1, operator.size))

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        image, index = batch["image"], batch["index"]
        if self.predict_compression:
            module.record(PREDICTED, self._predicted(module, image, index))
        if not self._chosen:
            return
        chosen = torch.tensor([i in self._chosen for i in index.tolist()], device=image.device)
        found = {
            name: torch.full(
                (len(image), *shape), torch.nan, dtype=torch.float32 if shape else torch.float64
            )
            for name, shape in self.spectrum.shapes(image.shape[1:]).items()
        }
        for done, row in enumerate(rows := chosen.nonzero().flatten().tolist()):
            self.show_progress(trainer, done, len(rows))
            # One by one: what an image gets does not depend on its batch.
            sample = index[row : row + 1]
            operator = self._operator(module, image[row], sample)

            def draw(purpose: str, number: int, sample: Tensor = sample) -> Tensor:
                # In float64 on the CPU, and so is the algebra that starts from them: not every
                # machine has float64, and next to a pass through the chain it costs nothing.
                noise = FixedNoise(derive_seed(module.seed, purpose, number))
                like = torch.empty(1, *image.shape[1:], dtype=torch.float64)
                return noise.uniform(sample, like=like).flatten(1)

            for name, value in self.spectrum.of(operator, draw).items():
                found[name][row] = value
        for name, values in found.items():
            numbers = values.ndim == 1
            module.record(f"jacobian/{name}", values, where=chosen if numbers else None)

    def _operator(
        self, module: PurifiedClassifier, image: Tensor, index: Tensor
    ) -> JacobianOperator:
        """The Jacobian at one image; all rows of a pass share its noise."""
        return JacobianOperator(
            function=module.defence.bind(module.noise, index).purify,
            image=image,
            rows_per_pass=self.rows_per_pass,
            differentiation=self.differentiation,
        )

    def _predicted(self, module: PurifiedClassifier, image: Tensor, index: Tensor) -> Tensor:
        eta = module.noise.uniform(index, like=image)
        purify = module.defence.bind(module.noise, index).purify
        moved = push_forward(purify, image, eta, differentiation=self.differentiation)
        zero = torch.zeros_like(eta)
        return lp_distance(moved, zero) / lp_distance(eta, zero)

    def figures(
        self, trainer: Trainer, module: PurifiedClassifier, table: SampleTable
    ) -> Mapping[str, Figure]:
        if not self._chosen or "jacobian/singular_values" not in table:
            return {}
        measured = table["jacobian/singular_values"][:, 0].isfinite()
        if not measured.any():
            return {}

        def found(name: str) -> Tensor:
            return table[f"jacobian/{name}"][measured]

        values, shares = found("singular_values"), None
        if self.mode == "matrix_free":  # those of the largest values alone are no distribution
            values, shares = (found(f"density_{name}").flatten(1) for name in ("values", "shares"))
        index = table["index"][measured].tolist()[:_DRAWN]
        below, above = (
            table[f"jacobian/{name}"].double().nanmean().item()
            for name in ("share_below_0.25", "share_above_1")
        )
        images = _images(trainer)
        places = {index: place for place, index in enumerate(images.indices.tolist())}
        return {
            "jacobian/spectrum": spectrum_figure(values, shares, below=below, above=above),
            "jacobian/vectors": vectors_figure(
                torch.stack([images[places[i]]["image"] for i in index]),
                found("right_vectors")[:_DRAWN],
                found("left_vectors")[:_DRAWN],
                found("singular_values")[:_DRAWN, : self.top_k],
                [f"image {i}" for i in index],
            ),
        }


def _images(trainer: Trainer) -> ImageDataset:
    images = evaluated_images(trainer)
    if images is None:
        raise InputError(
            "JacobianSpectrum measures the first images of a data set and found none; give the "
            "Trainer a lit_purify.data.ImageDataModule as datamodule"
        )
    return images
