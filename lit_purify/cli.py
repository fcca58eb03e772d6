"""The command line: LightningCLI with this project's defaults."""

from __future__ import annotations

import errno
import logging
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_purify.attacks import Attack
from lit_purify.callbacks import (
    AdversarialExamples,
    EvaluationProgress,
    Interruption,
    PredictionWriter,
    Records,
    Summary,
    Terminated,
)
from lit_purify.callbacks.run_config import CONFIG, RunConfig
from lit_purify.callbacks.run_folder import run_folder
from lit_purify.checkpoints import weights_command
from lit_purify.checkpoints.files import check_resumable
from lit_purify.config_files import check_config_files, check_nulls, read_none_as_null
from lit_purify.modules import PurifiedClassifier
from lit_purify.report import law
from lit_purify.runs import AUTO, deciding, find_run, new_run, with_run_config
from lit_purify.types import InputError

_FILE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EIO),
}
"""What a disk or its owner can refuse."""

COMMANDS = {
    "test": "Attack a defence and measure it.",
    "predict": "Purify images.",
    "fit": "Train a denoiser.",
}

WITHOUT_TRAINER = {"report": law, "weights": weights_command}
"""Commands that need no trainer: modules with a ``DESCRIPTION`` and ``command(args)``."""


class PurifyCLI(LightningCLI):
    """``test`` attacks and measures a defence, ``predict`` purifies images, ``fit`` trains."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.run_folder: Path | None = None
        self.new_folder: Path | None = None
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            if self.new_folder is not None:
                with suppress(OSError):  # a run that wrote nothing leaves nothing behind
                    self.new_folder.rmdir()
                    self.new_folder.parent.rmdir()
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        commands = LightningCLI.subcommands()
        # Tested and purified is with the weights that the configuration names, no checkpoint's.
        evaluated = {"ckpt_path", "weights_only"}
        return {name: commands[name] | (evaluated if name != "fit" else set()) for name in COMMANDS}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        # For the help: main runs them without this class.
        commands = self.parser._subcommands_action
        assert commands is not None
        for name, module in WITHOUT_TRAINER.items():
            parser = ArgumentParser(description=module.DESCRIPTION)
            commands.add_subcommand(name, parser, help=module.DESCRIPTION)
        test = self._subcommand_parsers["test"]
        test.add_subclass_arguments(Attack, "attack", help="The attack.")
        test.add_argument("--next_step", type=str | None, help="Printed after the result.")
        test.add_argument(
            "--resume",
            type=str | None,
            help="Go on with an interrupted run: its folder, whose configuration is used, or auto "
            "for the newest run of the same configuration, if there is one.",
        )
        test.set_defaults({"attack": {"class_path": "lit_purify.attacks.PGD"}, "verbose": False})
        self._subcommand_parsers["predict"].set_defaults({"return_predictions": False})

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand].clone()
        if self.subcommand == "test":
            config.resume = None  # whoever repeats the run wants a new one
        self.config_text = self._parser(self.subcommand).dump(config, skip_none=False)
        self.plain_config = yaml.safe_load(self.config_text)
        check_nulls(self.plain_config)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise InputError(f"seed_everything: {error}") from error

    def _parse_ckpt_path(self) -> None:
        # Before Lightning opens it.
        path = self.config[self.config["subcommand"]].get("ckpt_path")
        if path not in (None, "last", "best", "hpc", "registry"):
            check_resumable(path)
        super()._parse_ckpt_path()

    def before_test(self) -> None:
        self._check_evaluation(self.trainer.limit_test_batches)
        self.model.check_data(self.datamodule)  # before anything is written

    def before_predict(self) -> None:
        self._check_evaluation(self.trainer.limit_predict_batches)

    def _check_evaluation(self, limit: float | None) -> None:
        if not isinstance(self.model, PurifiedClassifier):
            raise InputError(
                f"model is a {type(self.model).__name__}; {self.subcommand} expects a "
                "lit_purify.PurifiedClassifier"
            )
        if limit == 0:
            raise InputError(
                f"trainer.limit_{self.subcommand}_batches is 0: there is nothing to do; leave it "
                "out, and choose images by --data.limit"
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the services that every run of a command has to the configured callbacks.

        What a user changes often is an argument of its own; measurements are callbacks that the
        configuration names.
        """
        settings = self._get(self.config_init, "trainer")
        if not isinstance(settings, (dict, Namespace)):
            raise InputError(f"trainer is {settings!r}; expected the Trainer's arguments by name")
        if self.subcommand == "test" and self._get(self.config_init, "attack") is None:
            raise InputError("attack is null; name one, or set model.protocols to [] for none")
        callbacks = settings.get("callbacks") or []
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
        # Whole and before the records: a folder that has records can be resumed.
        configuration = [] if settings["fast_dev_run"] else [RunConfig(self.config_text)]
        if self.subcommand == "test":
            config = deciding(self.plain_config)
            self.run_folder = self._resumed(config)
            attack = AdversarialExamples(self._get(self.config_init, "attack"))
            records = Records(config=config, resume=self.run_folder is not None)
            summary = Summary(next_step=self._get(self.config_init, "next_step"))
            callbacks = [Interruption(), attack, *callbacks, *configuration, records, summary]
        elif self.subcommand == "predict":
            callbacks = [*callbacks, *configuration, PredictionWriter()]
        else:
            callbacks = [*callbacks, *configuration]
        if self.subcommand != "fit" and settings["enable_progress_bar"] is not False:
            callbacks = [EvaluationProgress(), *callbacks]
        own_logger = settings["logger"] in (None, True) and not settings["fast_dev_run"]
        if own_logger:
            kwargs["logger"] = False
        try:
            trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except (TypeError, ValueError, ImportError) as error:
            raise InputError(f"the trainer cannot be set up so: {error}") from error
        if own_logger:
            trainer.logger = self._logger(trainer)
        self._check_folder(trainer)
        return trainer

    def _resumed(self, config: dict[str, Any]) -> Path | None:
        """The folder of the run to go on with."""
        resume = self._get(self.config_init, "resume")
        if resume is None:
            return None
        if resume == AUTO:
            root = self._get(self.config_init, "trainer")["default_root_dir"]
            return find_run(Path(root or Path.cwd()).resolve(), config)
        return Path(resume).resolve()

    def _logger(self, trainer: Trainer) -> TensorBoardLogger:
        folder = self.run_folder
        if folder is None and trainer.is_global_zero:
            try:
                folder = self.new_folder = new_run(Path(trainer.default_root_dir).resolve())
            except (OSError, ValueError) as error:
                raise InputError(
                    f"no run folder can be made in {trainer.default_root_dir!r} ({error}); choose "
                    "another place by --trainer.default_root_dir FOLDER"
                ) from error
        if folder is None:  # the first process tells the others which it is
            return TensorBoardLogger(trainer.default_root_dir)
        return TensorBoardLogger(folder.parent.parent, folder.parent.name, folder.name)

    def _check_folder(self, trainer: Trainer) -> None:
        folder = run_folder(trainer)
        if self.run_folder is None:
            if not trainer.fast_dev_run and (folder / CONFIG).exists():  # type: ignore[attr-defined]
                raise InputError(
                    f"{folder} holds a run already; write elsewhere: "
                    "--trainer.default_root_dir FOLDER"
                )
        elif trainer.is_global_zero and folder.resolve() != self.run_folder:
            raise InputError(
                f"--resume {self.run_folder} does not go with the configured logger, which writes "
                f"to {folder}; leave out trainer.logger, or let it write to the resumed folder"
            )


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
        args = sys.argv[1:] if args is None else args
        if args and args[0] in WITHOUT_TRAINER:
            return WITHOUT_TRAINER[args[0]].command(args[1:])
        args = with_run_config(args)
        check_config_files(args)
        read_none_as_null()
        PurifyCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=False,
            save_config_callback=None,  # RunConfig does it
            trainer_defaults={"inference_mode": False, "enable_model_summary": False},
            parser_kwargs={
                "description": "Measure how diffusion purification makes classifiers robust.",
                **quiet,
                **{name: {"description": text, **quiet} for name, text in COMMANDS.items()},
            },
            args=args,
        )
    except SystemExit as stop:
        # Lightning turns an interruption into exit status 1; shells and schedulers know better.
        if isinstance(stop.__context__, Terminated):
            return 128 + signal.SIGTERM
        if isinstance(stop.__context__, KeyboardInterrupt):
            return 128 + signal.SIGINT
        raise
    except Exception as error:
        line = _explanation(error)
        if line is None:
            raise
        # What is wrong with the input is so on every process: one says it.
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            print("error:", _shortened(line), file=sys.stderr)
        return 2
    return 0


def _explanation(error: BaseException | None) -> str | None:
    """What was wrong with the input, in one line; ``None`` where the error is a defect."""
    if error is None or isinstance(error, InputError):
        return None if error is None else " ".join(str(error).split())
    # jsonargparse wraps what a constructor raised into a dump of the whole configuration.
    if (cause := _explanation(error.__cause__ or error.__context__)) is not None:
        return cause
    if isinstance(error, OSError) and error.errno in _FILE_SYSTEM:
        where = f": {error.filename}" if error.filename else ", in the folder of the run"
        return (
            f"{error.strerror}{where}; make room, or choose another folder by "
            "--trainer.default_root_dir; a run goes on where it stopped by --resume RUN_FOLDER"
        )
    if isinstance(error, (ArgumentError, MisconfigurationException)):
        text = re.sub(r"Does not validate against any.*?Errors:\s+- ", "", str(error), flags=re.S)
        text = re.sub(
            r"\s+(- Expected a <class 'NoneType'>|Given value type:).*", "", text, flags=re.S
        )
        return " ".join(text.split())
    return None


def _shortened(line: str, length: int = 1000) -> str:
    """The line without its middle, where it repeats a very long input."""
    return line if len(line) <= length else f"{line[: length // 2]} ... {line[-length // 2 :]}"


def _quiet() -> None:
    """Silence advice of Lightning's that a user of this tool can do nothing with."""
    for pattern in (
        ".*does not have many workers.*",
        ".*treespec.*",
        "Total length of .*",
        ".*infer the batch indices.*",
        ".*was called before the ``update`` method.*",
        "LightningCLI's args parameter is intended.*",
        ".*logger.*prefer.*",
    ):
        warnings.filterwarnings("ignore", message=pattern)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    threading.excepthook = _in_thread


def _in_thread(error: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread, whose failure the next write in the main one repeats."""
    if _explanation(error.exc_value) is None:
        threading.__excepthook__(error)
