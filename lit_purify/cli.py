"""The command line: LightningCLI with this project's defaults."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI

from lit_purify.attacks import Attack
from lit_purify.callbacks import AdversarialExamples, EvaluationProgress, PredictionWriter, Summary
from lit_purify.types import InputError

COMMANDS = {
    "test": "Attack a defence and measure it.",
    "predict": "Purify images.",
    "fit": "Train a denoiser.",
}


class PurifyCLI(LightningCLI):
    """``test`` attacks and measures a defence, ``predict`` purifies images, ``fit`` trains."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        commands = LightningCLI.subcommands()
        return {name: commands[name] for name in COMMANDS}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        test = self._subcommand_parsers["test"]
        test.add_subclass_arguments(Attack, "attack", help="The attack.")
        test.add_argument("--next_step", type=str | None, help="Printed after the result.")
        test.set_defaults({"attack": {"class_path": "lit_purify.attacks.PGD"}, "verbose": False})
        self._subcommand_parsers["predict"].set_defaults({"return_predictions": False})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the services that every run of a command has to the configured callbacks.

        What a user changes often is an argument of its own; measurements are callbacks that the
        configuration names.
        """
        settings = self._get(self.config_init, "trainer")
        callbacks = settings.get("callbacks") or []
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
        if self.subcommand == "test":
            attack = AdversarialExamples(self._get(self.config_init, "attack"))
            summary = Summary(next_step=self._get(self.config_init, "next_step"))
            callbacks = [attack, *callbacks, summary]
        elif self.subcommand == "predict":
            callbacks = [*callbacks, PredictionWriter()]
        if self.subcommand != "fit" and settings["enable_progress_bar"] is not False:
            callbacks = [EvaluationProgress(), *callbacks]
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: arguments; ``None`` takes the process's own.

    Returns:
        The exit status: 0, or 2 after one line on what was wrong with the input.
    """
    _quiet()
    quiet = {"exit_on_error": False}  # jsonargparse then raises instead of printing its usage
    try:
        PurifyCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=False,
            trainer_defaults={"inference_mode": False, "enable_model_summary": False},
            parser_kwargs={
                "description": "Measure how diffusion purification makes classifiers robust.",
                **quiet,
                **{name: {"description": text, **quiet} for name, text in COMMANDS.items()},
            },
            args=None if args is None else list(args),
        )
    except Exception as error:
        line = _explanation(error)
        if line is None:
            raise
        print("error:", line, file=sys.stderr)
        return 2
    return 0


def _explanation(error: BaseException | None) -> str | None:
    """What was wrong with the input, in one line; ``None`` where the error is a defect."""
    if error is None or isinstance(error, InputError):
        return None if error is None else " ".join(str(error).split())
    # jsonargparse wraps what a constructor raised into a dump of the whole configuration.
    if (cause := _explanation(error.__cause__ or error.__context__)) is not None:
        return cause
    if isinstance(error, (ArgumentError, MisconfigurationException)):
        text = re.sub(r"Does not validate against any.*?Errors:\s+- ", "", str(error), flags=re.S)
        text = re.sub(
            r"\s+(- Expected a <class 'NoneType'>|Given value type:).*", "", text, flags=re.S
        )
        return " ".join(text.split())
    return None


def _quiet() -> None:
    """Silence advice of Lightning's that a user of this tool can do nothing with."""
    for pattern in (
        ".*does not have many workers.*",
        ".*treespec.*",
        "LightningCLI's args parameter is intended.*",
        ".*logger.*prefer.*",
    ):
        warnings.filterwarnings("ignore", message=pattern)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
