"""The section ``measure``: the measurements of a test run by name."""

from __future__ import annotations

from collections.abc import Mapping

from jsonargparse import ArgumentParser
from lightning.pytorch import Callback

from lit_purify.callbacks import (
    AttackAgreement,
    AttackMagnitude,
    BaseClassifierCurve,
    CompressionRate,
    DistanceTrajectories,
    ImageGrid,
    ImageQuality,
    JacobianSpectrum,
    MaskingDiagnostics,
    OutputVariability,
)

MEASUREMENTS: dict[str, type[Callback]] = {
    "compression": CompressionRate,
    "images": ImageGrid,
    "distances": DistanceTrajectories,
    "quality": ImageQuality,
    "variance": OutputVariability,
    "jacobian": JacobianSpectrum,
    "magnitude": AttackMagnitude,
    "masking": MaskingDiagnostics,
    "base_curve": BaseClassifierCurve,
    "agreement": AttackAgreement,
}
"""By name, in the order in which they measure. One of a user's own is in ``trainer.callbacks``."""


def add_measurements(parser: ArgumentParser) -> None:
    """Add ``--measure.NAME`` and ``--measure.NAME.ARGUMENT`` for each; null is off."""
    for name, kind in MEASUREMENTS.items():
        parser.add_argument(
            f"--measure.{name}",
            type=kind | None,
            help=f"{(kind.__doc__ or '').splitlines()[0]} Off by default; null switches it off.",
        )


def measurements(section: Mapping[str, Callback | None]) -> list[Callback]:
    """Those that are on, in their order."""
    return [found for name in MEASUREMENTS if (found := section[name]) is not None]
