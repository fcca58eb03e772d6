"""``search``: purifiers of high clean accuracy and low compression, then the best under attack."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from lit_purify.cli import COMMANDS
from lit_purify.cli.forked import fork
from lit_purify.cli.sweep import FAILED, parsed, read_plan, stoppable
from lit_purify.records.files import write_whole
from lit_purify.records.summary import write_json
from lit_purify.report.terminal import print_whole
from lit_purify.search.halving import Round, Runner, finished, going_on, halve
from lit_purify.search.space import Space
from lit_purify.search.tables import final_table, round_table
from lit_purify.search.verdict import Attacked, Verdict, attacked, numbers, verdicts
from lit_purify.sweeps.display import Display
from lit_purify.sweeps.local import run_here
from lit_purify.sweeps.states import Sweep
from lit_purify.types import InputError

BASE = ["cifar_fixed"]
"""The configuration of every run where none is given."""


def parser() -> ArgumentParser:
    """The options of the command."""
    found = ArgumentParser(
        prog="lit_purify search",
        description=f"{COMMANDS['search'][1]} What is finished stays: start it again to go on. "
        "Beside these options, --config NAME (default: cifar_fixed) and options of test with a "
        "dot, such as --data.batch_size 16, go to every run.",
        exit_on_error=False,
    )
    found.add_argument(
        "--space",
        type=str,
        default="search/default",
        metavar="FILE",
        help="What is tried: a YAML file, or a name (default: search/default).",
    )
    found.add_argument(
        "--root",
        type=str,
        default="lightning_logs/search",
        metavar="FOLDER",
        help="Where the runs and the result go (default: lightning_logs/search).",
    )
    found.add_argument(
        "--budget",
        type=int | None,
        metavar="N",
        help="Evaluations of a denoiser, counted per image, that the rounds may take before the "
        "attack; the first round is always run (default: no limit).",
    )
    found.add_argument("--jobs", type=int, default=1, help="Runs at once (default: 1).")
    found.add_argument("--list", action="store_true", help="Print what would be tried only.")
    return found


def command(args: Sequence[str]) -> int:
    """Run ``search``; the exit status.

    Raises:
        InputError, ArgumentError: what was given is wrong.
    """
    options, more = parsed(parser(), args[1:])
    if options.budget is not None and options.budget < 1:
        raise InputError(f"--budget is {options.budget}; expected 1 or more")
    configs = [word.removeprefix("--config=") for word in more if word.startswith("--config=")]
    more = [word for word in more if not word.startswith("--config=")]
    space = Space.of(read_plan(options.space))
    candidates = space.candidates([*(configs or BASE), "measure/compression"], more)
    if options.list:
        print(*(run.name for runs in candidates.values() for run in runs), sep="\n", flush=True)
        return 0
    root = Path(options.root).expanduser()

    def run(sweep: Sweep) -> None:
        with Display(sweep, options.jobs) as watch:
            run_here(sweep, jobs=options.jobs, watch=watch, launcher=fork)

    def work() -> int:
        rounds = halve(
            space,
            candidates,
            root,
            run,
            budget=options.budget,
            told=lambda each: print_whole(round_table(space, each)),
        )
        finalists, failed = _attack(space, rounds[-1], root, run, more)
        for each in rounds:
            failed = {**each.failed, **failed}
        _conclude(space, rounds, finalists, failed, root)
        return FAILED if failed else 0

    return stoppable(work)


def _attack(
    space: Space, last: Round, root: Path, run: Runner, more: Sequence[str]
) -> tuple[list[Attacked], dict[str, str]]:
    """The finalists under attack, and what failed."""
    chosen = [each for its in last.found.values() for each in its[: space.finalists]]
    words = ["--model.protocols=[fixed]", f"--data.limit={last.images}"]
    runs = [each.command._replace(options=(*each.command.options, *words)) for each in chosen]
    sweep = Sweep([space.attacked(each, more) for each in runs], root / f"attacked_{last.images}")
    run(sweep)
    results = finished(sweep)
    found = [attacked(each, results[each.name]) for each in chosen if each.name in results]
    return found, sweep.errors


def _conclude(
    space: Space,
    rounds: Sequence[Round],
    finalists: Sequence[Attacked],
    failed: dict[str, str],
    root: Path,
) -> None:
    """Print what came out, and write it."""
    print_whole(final_table(finalists))
    for each in finalists:
        for flag in each.flags:
            print(f"dropped: {each.name}: {flag}")
    for name, told in failed.items():
        print(f"failed: {name}: {told}", file=sys.stderr)
    compared = verdicts(finalists)
    sentences = [f"{verdict}." for verdict in compared]
    sentences.append(conclusion(compared))
    print(*sentences, sep="\n")
    spent = sum(each.evaluations for each in rounds)
    print(f"the denoiser was evaluated {spent} times on clean images, counted per image")
    found = {
        "rounds": [_round(space, each) for each in rounds],
        "attacked": [numbers(each) for each in finalists],
        "verdicts": sentences,
        "failed": failed,
    }
    write_json(root / "search.json", found)
    if compared:
        write_whole(root / "overlay.yaml", overlay(compared[0], sentences[-1]).encode())
    # Plain print: the last line is for scripts too.
    print(root, flush=True)


def conclusion(compared: Sequence[Verdict]) -> str:
    """What the search has found, in a sentence."""
    if not compared:
        return "There were no two sound purifiers to compare"
    better = [verdict.found.name for verdict in compared if verdict.better]
    if better:
        return f"Found: {better[0]} beats the preset that it was compared with"
    return "Nothing better than the presets was found"


def overlay(verdict: Verdict, sentence: str) -> str:
    """The configuration of a purifier, to be given as ``--config`` after that of a run."""
    folder = verdict.found.run.folder
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    part = {"model": {"init_args": {"purifier": config["model"]["init_args"]["purifier"]}}}
    said = f"# Overlay on cifar_fixed.yaml: found by a search.\n# {verdict}\n# {sentence}.\n"
    return said + yaml.safe_dump(part, sort_keys=False)


def _round(space: Space, found: Round) -> dict[str, object]:
    return {
        "images": found.images,
        "evaluations": found.evaluations,
        "purifiers": [
            {
                "name": each.name,
                "group": group,
                "clean": list(each.clean),
                "compression_rate": list(each.rate),
                "goes_on": place < going_on(space, len(its)),
            }
            for group, its in found.found.items()
            for place, each in enumerate(its)
        ],
    }
