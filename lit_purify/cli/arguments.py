"""What short arguments stand for, put in before the command line is parsed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from lit_purify import attacks
from lit_purify.types import InputError, did_you_mean

AUTO = "auto"
"""Value of ``--resume`` that looks for the newest run of the same configuration."""
HERE = "here"
"""Value of ``--resume`` like :data:`AUTO`, which refuses where there are runs of others only."""


def given(args: Sequence[str], option: str) -> Iterator[tuple[slice, str]]:
    """Where an option stands among arguments, and its value; one without a value is passed over."""
    for place, (word, following) in enumerate(pairwise([*args, ""])):
        name, equals, value = word.partition("=")
        if name == option and equals:
            yield slice(place, place + 1), value
        elif word == option and place + 1 < len(args):
            yield slice(place, place + 2), following


def with_run_config(args: Sequence[str]) -> list[str]:
    """Arguments in which ``--resume FOLDER`` brings the folder's own configuration.

    It comes first, so that what else is given is compared with it.

    Raises:
        InputError: the folder does not hold a run of ``test``.
    """
    for _, value in given(args, "--resume"):
        if value in (AUTO, HERE, "null"):
            continue
        config = Path(value).expanduser() / "config.yaml"
        if not config.is_file():
            raise InputError(
                f"there is no run in {value}: it holds no config.yaml; give the folder that a run "
                "printed, such as lightning_logs/version_0, or auto"
            )
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
        if not any(line.startswith("attack:") for line in lines):
            raise InputError(
                f"the run in {value} is none of test, as its config.yaml has no attack; give the "
                "folder that a test printed"
            )
        return [args[0], "--config", str(config), *args[1:]]
    return list(args)


def check_configured(args: Sequence[str]) -> None:
    """Raise :class:`InputError` where a command has no configuration, and say which one it wants.

    Whoever names a model needs none, nor who asks for help.
    """
    own = {"-c", "--config", "--model", "--resume", "--print_config"}
    helped = {"-h", "--help", "--model.help", "--data.help", "--attack.help"}
    shipped = {"test": "cifar_fixed", "predict": "predict", "fit": "train_cifar_small"}
    if args[0] in shipped and not {word.partition("=")[0] for word in args} & (own | helped):
        raise InputError(
            f"{args[0]} has no configuration: model and data are required; start from the one that "
            f"comes with lit_purify: {args[0]} --config {shipped[args[0]]}"
        )


def with_attack_class(args: Sequence[str]) -> list[str]:
    """Arguments in which the short name of an attack, such as ``--attack pgd``, is its class path.

    Upper and lower case are the same, and ``pgd_eot`` is ``PGDEOT``. A class path, a file and YAML
    stay as they are.

    Raises:
        InputError: no attack has that name.
    """
    kinds = filter(inspect.isclass, (getattr(attacks, name) for name in attacks.__all__))
    classes = [
        kind.__name__
        for kind in kinds
        if issubclass(kind, attacks.Attack) and not inspect.isabstract(kind)
    ]
    short = {name.lower(): f"lit_purify.attacks.{name}" for name in classes}
    args = list(args)
    for place, value in reversed(list(given(args, "--attack"))):
        word = value.lower().replace("_", "").replace("-", "")
        if word in short:
            args[place] = [f"--attack={short[word]}"]
        elif value.isidentifier() and value not in ("null", "None"):
            raise InputError(
                f"there is no attack {value!r}; expected one of {', '.join(classes)}, or the "
                f"path of a class{did_you_mean(word, classes)}"
            )
    return args
