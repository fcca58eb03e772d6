"""The section ``measure``: the measurements of a test run by name."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback

from lit_purify import callbacks
from lit_purify.types import InputError

MEASUREMENTS: dict[str, type[Callback]] = {
    "compression": callbacks.CompressionRate,
    "images": callbacks.ImageGrid,
    "distances": callbacks.DistanceTrajectories,
    "quality": callbacks.ImageQuality,
    "variance": callbacks.OutputVariability,
    "jacobian": callbacks.JacobianSpectrum,
    "magnitude": callbacks.AttackMagnitude,
    "masking": callbacks.MaskingDiagnostics,
    "base_curve": callbacks.BaseClassifierCurve,
    "agreement": callbacks.AttackAgreement,
    "prediction": callbacks.RobustnessPrediction,
    "certified": callbacks.CertifiedRobustness,
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


def check_named(args: Sequence[str]) -> None:
    """Raise :class:`InputError` where the whole section stands among arguments."""
    for word in args:
        if word.partition("=")[0].removesuffix("+") == "--measure":
            raise InputError(
                f"{word} names no measurement; expected one and its arguments, such as "
                "--measure.jacobian.top_k 8, or --measure.compression null to switch one off"
            )


def measurements(section: object) -> list[Callback]:
    """Those that are on, in their order.

    Raises:
        InputError: the section holds something else than measurements by name.
    """
    if not isinstance(section, (dict, Namespace)):
        raise InputError(
            f"measure is {section!r}; expected measurements by name, such as 'jacobian: {{}}', "
            "where null switches one off"
        )
    return [found for name in MEASUREMENTS if (found := section.get(name)) is not None]
