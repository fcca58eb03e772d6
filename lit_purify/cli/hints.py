"""The names that somebody may have meant by a wrong one."""

from __future__ import annotations

import inspect
import pydoc
import re
from contextlib import suppress
from importlib import import_module

from lit_purify.types import did_you_mean

_CLASSES = (
    *("attacks", "callbacks", "checkpoints", "classifiers", "data", "diffusion", "modules"),
    "purifiers",
)
_PLACES = {
    "model": "lit_purify.PurifiedClassifier",
    "model.purifier": "lit_purify.DiffusionPurifier",
    "attack": "lit_purify.attacks.PGD",
    "data": "lit_purify.data.CIFAR10DataModule",
}
"""Where most options are, and of which class."""
_OWN = {"accuracy", "budget", "export", "html", "key", "output", "root", "space"}
"""Options of commands that run no single test."""
_WRONG_OPTION = re.compile(
    r"(?:Option '|does not accept option '|unrecognized arguments: --)([\w.+-]+)"
)
_WRONG_CLASS = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_NO_CLASS = re.compile(r"class_path 'lightning\.[\w.]*Lightning(?:Data)?Module':\s+Option")
_WRONG_KIND = re.compile(r"Import path ([\w.]+) does not correspond to a subclass of (\w+)")
_ABSTRACT = re.compile(r'"(\w+)":.*?Expected an instantiatable class, but', re.DOTALL)
_ONLY_IN_TESTS = re.compile(r"Subcommand '(\w+)' does not accept option '(attack|measure)\.")
_PLACE = re.compile(r'Parser key "([\w.]+)"')
_CALLBACKS = re.compile(r'Parser key "trainer\.callbacks"')


def hint(message: str) -> str:
    """What to add to the parser's message about a name that is wrong."""
    if found := _WRONG_CLASS.search(message):
        module, word = found.groups()
        return did_you_mean(word, getattr(import_module(module), "__all__", ()))
    if found := _WRONG_KIND.search(message):
        return _annotation(pydoc.locate(found[1]), found[2])
    if found := _ABSTRACT.search(message):
        return f"; name a class that can be made as {found[1]}, before its arguments"
    if not (found := _WRONG_OPTION.search(message)):
        return ""
    if of_tests := _ONLY_IN_TESTS.search(message):
        command, section = of_tests.groups()
        return f"; {command} has no section {section}: leave the overlay out that names it, or test"
    # The class that refuses the option stands last before it; without one any may be meant.
    classes = re.findall(r"given class_path '([\w.]+)'", message[: found.start()])
    known = _arguments(pydoc.locate(classes[-1])) if classes else _every_argument()
    wrong = [part for part in found[1].strip("+").split(".") if part not in known]
    place = ".".join(_PLACE.findall(message[: found.start()]))
    meant = (
        (wrong and did_you_mean(wrong[0], known))
        or _elsewhere(found[1], place)
        or (_taken(classes[-1], known) if classes else "")
    )
    if _CALLBACKS.search(message):
        meant += "; measurements are changed by their names, such as --measure.jacobian.top_k 8"
    if _NO_CLASS.search(message):
        return (
            "; no class is named that could take it: an overlay stands behind the configuration "
            "that it changes, such as --config cifar_fixed --config protocol/all"
        )
    return meant


def _elsewhere(option: str, given: str) -> str:
    """The places that an argument has, which was given at another one."""
    name = option.rpartition(".")[2]
    places = [
        f"--{place}.{name}"
        for place, made in _PLACES.items()
        if place != given and name in _arguments(pydoc.locate(made))
    ]
    return f"; did you mean {' or '.join(places)}?" if places else ""


def _taken(made: str, known: set[str]) -> str:
    """What a class does take in the place of an argument that is not its own."""
    return f"; {made.rpartition('.')[2]} takes {', '.join(sorted(known)) or 'no arguments'}"


def _annotation(function: object, kind: str) -> str:
    """What a function lacks that makes something and does not say what."""
    if not inspect.isfunction(function) or "return" in function.__annotations__:
        return ""
    return f"; {function.__name__} does not say what it returns: add `-> {kind}` to its def"


def _arguments(made: object) -> set[str]:
    with suppress(TypeError, ValueError):  # nothing that can be called, or it has no signature
        return set(inspect.signature(made).parameters)  # type: ignore[arg-type]
    return set()


def _every_argument() -> set[str]:
    """Sections and arguments of a command, and those of every class that a YAML can name."""
    from lightning.pytorch import Trainer

    from lit_purify.cli.measure import MEASUREMENTS

    names = {"model", "data", "trainer", "attack", "measure", "config", "next_step", "resume"}
    names |= {"seed_everything", "ckpt_path", *_OWN, *MEASUREMENTS, *_arguments(Trainer)}
    for room in _CLASSES:
        module = import_module(f"lit_purify.{room}")
        for name in module.__all__:
            names |= _arguments(getattr(module, name))
    return names - {"args", "kwargs"}
