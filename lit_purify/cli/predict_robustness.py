"""``predict-robustness``: a ``test`` that attacks nothing, and what it predicts as a table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lit_purify.callbacks.run_folder import run_folder
from lit_purify.cli import COMMANDS, run
from lit_purify.cli.arguments import AUTO, check_configured, given
from lit_purify.records.summary import read_summary, write_json
from lit_purify.report.prediction import prediction_table, predictions
from lit_purify.report.terminal import print_whole
from lit_purify.types import InputError

OVERLAY = "measure/prediction"


def parser() -> argparse.ArgumentParser:
    """The options that the command has beside those of ``test``."""
    found = argparse.ArgumentParser(
        prog="lit_purify predict-robustness",
        usage="%(prog)s --config cifar_fixed [--eps EPS ...] [options of test ...]",
        description=f"{COMMANDS['predict-robustness'][1]} It takes the configurations and options "
        "of test; the attack says the norm, and is only made on the classifier alone.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    found.add_argument("--eps", nargs="+", metavar="EPS", help="Budgets, such as 1/255 2/255.")
    found.add_argument(
        "--gradients",
        metavar="N",
        help="Gradients of the whole chain per image and budget; 0 leaves the first order out.",
    )
    found.add_argument(
        "--runs", nargs="+", metavar="RUN_FOLDER", help="Attacked runs that a law is fitted to."
    )
    found.add_argument(
        "--json", type=Path, metavar="PATH", help="Write the predictions there as well."
    )
    return found


def arguments_of_test(args: Sequence[str]) -> tuple[list[str], Path | None]:
    """What ``test`` is called with, and where the predictions go beside the terminal."""
    own, others = parser().parse_known_args(list(args))
    resumed = [value for _, value in given(others, "--resume") if value != AUTO]
    first = [] if resumed else ["--config", OVERLAY]  # a resumed run has its own configuration
    for name in ("eps", "runs"):
        if (values := getattr(own, name)) is not None:
            others.append(f"--measure.prediction.{name}={json.dumps(values)}")
    if own.gradients is not None:
        others.append(f"--measure.prediction.gradients={own.gradients}")
    if not any(word.partition("=")[0] == "--model.protocols" for word in others):
        others.append("--model.protocols=[]")
    return ["test", *first, *others], own.json


def command(args: Sequence[str]) -> int:
    """Run ``predict-robustness``; the exit status.

    Raises:
        InputError, ArgumentError: what was given is wrong.
    """
    if {"-h", "--help"} & {*args}:
        parser().print_help()
        return 0
    check_configured(args)
    for_test, path = arguments_of_test(args[1:])
    status, trainer = run.run(for_test)
    if trainer is None or not trainer.is_global_zero:
        return status
    folder = run_folder(trainer)
    found = predictions(read_summary(folder / "summary.json"))
    print_whole(prediction_table(found))
    for note in found["notes"]:
        print(f"note: {note}")
    for flag in found["flags"]:
        print(f"Warning: {flag}")
    if path is not None:
        try:
            write_json(path, found | {"run": str(folder)})
        except OSError as error:
            raise InputError(
                f"the predictions cannot be written to {path} ({error.strerror}); choose another "
                "file by --json"
            ) from error
    # Plain print: the last line is for scripts too.
    print(folder, flush=True)
    return status
