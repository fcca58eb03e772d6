"""``test``, ``predict`` and ``fit``: LightningCLI with this project's defaults."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from lit_purify.attacks import Attack
from lit_purify.callbacks import (
    AdversarialExamples,
    AttackCurves,
    Dashboard,
    EvaluationProgress,
    Interruption,
    MemoryUse,
    PredictionWriter,
    Records,
    Summary,
    Terminated,
)
from lit_purify.callbacks.interruption import interruptible
from lit_purify.callbacks.quiet import quiet
from lit_purify.callbacks.run_config import CONFIG, RunConfig
from lit_purify.callbacks.run_folder import (
    remove_unused,
    run_folder,
    run_logger,
    version,
)
from lit_purify.callbacks.trainers import make_trainer
from lit_purify.cli import COMMANDS, strict_yaml
from lit_purify.cli.arguments import (
    AUTO,
    HERE,
    check_configured,
    given,
    with_attack_class,
    with_run_config,
)
from lit_purify.cli.configs import ConfigFile
from lit_purify.cli.empties import part, unknown_keys
from lit_purify.cli.errors import STATUS, explanation
from lit_purify.cli.measure import add_measurements, check_named, measurements
from lit_purify.cli.nulls import check_nulls
from lit_purify.cli.runs import deciding, find_run
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.discovery import LOGS
from lit_purify.types import InputError
from lit_purify.weights.files import check_resumable

RUNS = ("test", "predict", "fit")
"""Commands with a trainer."""


class PurifyCLI(LightningCLI):
    """``test`` attacks and measures a defence, ``predict`` purifies images, ``fit`` trains."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.run_folder: Path | None = None
        self.new_folder: Path | None = None
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            trained = getattr(getattr(self, "trainer", None), "global_step", 0)
            if self.new_folder is not None and not trained:
                remove_unused(self.new_folder)
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        commands = LightningCLI.subcommands()
        # Tested and purified is with the weights that the configuration names, no checkpoint's.
        evaluated = {"ckpt_path", "weights_only"}
        return {name: commands[name] | (evaluated if name != "fit" else set()) for name in RUNS}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        # As in LightningCLI, but for the action of --config.
        kwargs.setdefault("dump_header", [f"lightning.pytorch=={lightning.__version__}"])
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            *("-c", "--config"),
            action=ConfigFile,
            help="A YAML file, or the name of one that comes with lit_purify: cifar_fixed, "
            "attack/pgd_eot. Several are merged, the last one wins.",
        )
        return parser

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        test = self._subcommand_parsers["test"]
        test.add_subclass_arguments(
            Attack, "attack", help="The attack, such as pgd, or the path of a class."
        )
        add_measurements(test)
        test.add_argument("--next_step", type=str | None, help="Printed after the result.")
        test.add_argument(
            "--resume",
            type=str | None,
            help="Go on with an interrupted run: its folder, whose configuration is used, or auto "
            "for the newest run of the same configuration, if there is one; here is auto, but "
            "refuses to start beside a run of another configuration.",
        )
        test.set_defaults({"attack": {"class_path": "lit_purify.attacks.PGD"}, "verbose": False})
        self._subcommand_parsers["predict"].set_defaults({"return_predictions": False})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        check_named(args)
        super().parse_arguments(parser, args)
        parsed = self.config[self.config.subcommand]
        for option in {word.partition("=")[0] for word in args if word.startswith("--")}:
            name = option.removeprefix("--").removesuffix("+")
            for _, value in given(args, option) if name != "config" else ():
                if value.startswith(("{", "[")):
                    for key in unknown_keys(strict_yaml.load(value), part(parsed, name), name):
                        raise InputError(f"{option} has the unknown key {key}")
        callbacks = self.config.get(f"{self.config.subcommand}.trainer.callbacks")
        option = next((word for word in args if word.startswith("--trainer.callbacks.")), None)
        if option is not None and isinstance(callbacks, list) and len(callbacks) > 1:
            raise InputError(
                f"{option} would change the last of {len(callbacks)} callbacks; measurements are "
                "changed by name, such as --measure.jacobian.top_k 8, other callbacks in a file"
            )

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

        What a user changes often is an argument of its own; ``measure`` names the measurements, and
        ``trainer.callbacks`` has those of a user's own.
        """
        settings = self._get(self.config_init, "trainer")
        if not isinstance(settings, (dict, Namespace)):
            raise InputError(f"trainer is {settings!r}; expected the Trainer's arguments by name")
        if self.subcommand == "test" and self._get(self.config_init, "attack") is None:
            raise InputError("attack is null; name one, or set model.protocols to [] for none")
        given = settings.get("callbacks") or []
        callbacks = [given] if isinstance(given, Callback) else list(given)
        if not settings["fast_dev_run"]:
            # Whole and before the records: a folder that has records can be resumed.
            callbacks.append(RunConfig(self.config_text))
        if self.subcommand == "test":
            measured = measurements(self._get(self.config_init, "measure"))
            attack = AdversarialExamples(self._get(self.config_init, "attack"))
            records = Records(config=deciding(self.plain_config))
            summary = Summary(next_step=self._get(self.config_init, "next_step"))
            callbacks = [Interruption(), attack, AttackCurves(), *measured, *callbacks]
            callbacks += [records, summary, Dashboard()]
        elif self.subcommand == "predict":
            callbacks.append(PredictionWriter())
        if self.subcommand != "fit" and settings["enable_progress_bar"] is not False:
            callbacks = [EvaluationProgress(), *callbacks]
        if self.subcommand != "fit":
            callbacks = [MemoryUse(), *callbacks]
        default_logger = settings["logger"] in (None, True) and not settings["fast_dev_run"]
        if default_logger:
            kwargs["logger"] = False
        make = super().instantiate_trainer
        trainer = make_trainer(lambda: make(callbacks=callbacks, **kwargs))
        if self.subcommand == "test":
            self.run_folder = self._resumed(trainer, records, default_logger)
            records.resume = self.run_folder is not None
        if default_logger:
            trainer.logger = logger = run_logger(trainer, self.run_folder)
            if self.run_folder is None and trainer.is_global_zero:
                self.new_folder = Path(logger.log_dir)
        self._check_folder(trainer)
        return trainer

    def _resumed(self, trainer: Trainer, records: Records, default_logger: bool) -> Path | None:
        """The folder of the run to go on with; a logger of the user's own is led there."""
        resume = self._get(self.config_init, "resume")
        if resume not in (AUTO, HERE):
            return None if resume is None else Path(resume).expanduser().resolve()
        numbering = [logger for logger in trainer.loggers if getattr(logger, "_version", 0) is None]
        if default_logger:
            logs = Path(trainer.default_root_dir) / LOGS
        else:
            folder = run_folder(trainer)
            logs = folder.parent if numbering else folder
        found, passed_over = find_run(logs.resolve(), records.config or {})
        if resume == HERE and found is None and passed_over:
            raise InputError(
                f"{passed_over[0]}; go back to its configuration, or write elsewhere: "
                "--trainer.default_root_dir FOLDER"
            )
        for reason in passed_over[:3] if trainer.is_global_zero else ():
            print(f"--resume auto passes over a run: {reason}", file=sys.stderr)
        for logger in numbering:
            if found is not None:
                logger._version = version(found)  # type: ignore[attr-defined]
        return found

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


def command(args: Sequence[str]) -> int:
    """Run ``test``, ``predict`` or ``fit``; the exit status."""
    return run(args)[0]


def run(args: Sequence[str]) -> tuple[int, Trainer | None]:
    """Run ``test``, ``predict`` or ``fit``; the exit status and, where it is 0, the trainer.

    Raises:
        Exception: what was given is wrong, and this is the first process; or a defect.
    """
    check_configured(args)
    threading.excepthook = _in_thread
    strict_yaml.install()
    raising = {"exit_on_error": False}  # jsonargparse then raises instead of printing its usage
    descriptions = {name: {"description": COMMANDS[name][1], **raising} for name in RUNS}
    try:
        # A training finishes its step first, as Lightning has it.
        with quiet(), interruptible(by_sigterm="fit" not in args[:1]):
            cli = PurifyCLI(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                seed_everything_default=False,
                save_config_callback=None,  # RunConfig does it
                trainer_defaults={"inference_mode": False, "enable_model_summary": False},
                parser_kwargs={"prog": "lit_purify", **raising, **descriptions},
                args=with_attack_class(with_run_config(args)),
            )
    except Terminated:
        return 128 + signal.SIGTERM, None
    except KeyboardInterrupt:
        return 128 + signal.SIGINT, None
    except Exception as error:
        # What is wrong with the input is so on every process: one says it.
        if rank_zero_only.rank != 0 and explanation(error) is not None:  # type: ignore[attr-defined]
            return STATUS, None
        raise
    return 0, cli.trainer


def _in_thread(error: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread, whose failure the next write in the main one repeats."""
    if explanation(error.exc_value) is None:
        threading.__excepthook__(error)
