"""``summary.json``, the settings before the work and the table after it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from lit_purify.callbacks.records import find_records
from lit_purify.callbacks.run_folder import run_folder
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.records import read_summary, versions, write_summary
from lit_purify.report import conclusion, flags, summary_table


class Summary(Callback):
    """Prints the resolved settings, keeps ``summary.json`` and prints the result.

    :class:`~lit_purify.callbacks.Records`, which knows the settings, must stand before it in the
    list of callbacks. The file says ``running`` from the start and ``finished`` only at the end; an
    interrupted or failed run says so.

    Args:
        next_step: printed after the table: what to type next.
        verbose: print settings and result; without it the file alone is written.
    """

    def __init__(self, *, next_step: str | None = None, verbose: bool = True) -> None:
        self.verbose = verbose
        self.next_step = next_step
        self._folder = Path()
        self._settings: dict[str, Any] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._finished = False
        self._console = Console()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "test" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        module = PurifiedClassifier.tested_by(self, pl_module)
        self._folder = run_folder(trainer)
        self._finished = False
        self._settings = find_records(trainer, self).settings
        self._labels = {
            name: {"section": shown.section, "label": shown.label, "unit": shown.unit}
            for name, shown in module.registered.items()
        }
        with suppress(OSError, ValueError):  # of an earlier session, which may have left no work
            module.preflight = read_summary(self._folder / "summary.json").get("preflight", {})
        if self.verbose and trainer.is_global_zero:
            self._print_settings()
        self._write_running(trainer, module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._settings and trainer.is_global_zero:  # with what the module's preflight has found
            assert isinstance(pl_module, PurifiedClassifier)
            self._write_running(trainer, pl_module)
            if self.verbose:
                self._print_flags(flags({}, self._settings, pl_module.preflight))

    def _write_running(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        """Unless the run was finished before: its result stands until there is a new one."""
        with suppress(OSError, ValueError):
            if read_summary(self._folder / "summary.json")["status"] == "finished":
                return
        self._write(trainer, module, "running", {})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Where nothing was missing Lightning calls no other hook.
        self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, module: LightningModule) -> None:
        if self._settings and not self._finished and trainer.is_global_zero:
            assert isinstance(module, PurifiedClassifier)
            metrics = module.statistics
            self._write(trainer, module, "finished", metrics)
            self._finished = True  # what fails from here on does not make it less so
            if not trainer.callback_metrics:  # nothing was missing, so nothing was logged
                known = {name: f["value"] for name, f in metrics.items()}
                module.log_metrics({name: v for name, v in known.items() if v is not None})
            if self.verbose:
                self._print_result(self._folder, self._summary(module, "finished", metrics))
        self._finished = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if self._settings and not self._finished:
            interrupted = isinstance(exception, (KeyboardInterrupt, SystemExit))
            self._finished = True
            assert isinstance(pl_module, PurifiedClassifier)
            self._write(trainer, pl_module, "interrupted" if interrupted else "failed", {})

    def _write(
        self, trainer: Trainer, module: PurifiedClassifier, status: str, metrics: dict[str, Any]
    ) -> None:
        if trainer.is_global_zero:
            write_summary(self._folder / "summary.json", self._summary(module, status, metrics))

    def _summary(
        self, module: PurifiedClassifier, status: str, metrics: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "status": status,
            "versions": versions(),
            "settings": self._settings,
            "metrics": metrics,
            "preflight": module.preflight,
            "flags": flags(metrics, self._settings, module.preflight),
            "labels": self._labels,
            "class_names": module.class_names,
        }

    def _print_settings(self) -> None:
        settings = _a_line_each(self._settings)
        width = max(map(len, settings))
        for name, value in settings.items():
            if name == "models":
                for role, model in value.items():
                    digest = model["sha256"]
                    known = f"sha256 {digest[:12]}" if digest else "weights not from a file"
                    print(f"  {role:<{width}}  {model['source']} ({known})")
            elif name.split("_")[-1] == "eps" and value <= 1:  # above 1 it is not of pixels
                print(f"  {name:<{width}}  {value:.6g} ({value * 255:.4g}/255)")
            else:
                print(f"  {name:<{width}}  {_plain(value)}")
        print(flush=True)

    def _print_flags(self, found: list[str]) -> None:
        for flag in found:
            self._console.print(f"Warning: {flag}", markup=False, highlight=False)

    def _print_result(self, folder: Path, summary: dict[str, Any]) -> None:
        self._console.print(summary_table(summary))
        self._print_flags(summary["flags"])
        sentence = conclusion(summary)
        if sentence is not None:
            self._console.print(f"\n{sentence}\n", markup=False)
        if self.next_step is not None:
            self._console.print(f"{self.next_step}\n", soft_wrap=True, markup=False)
        # Plain print: the last line is for scripts too, so it is never wrapped or coloured.
        print(folder, flush=True)


def _a_line_each(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with a name of its own for every part of those that have parts, but for the models.

    Example:
        >>> _a_line_each({"eps": 0.1, "rungs": {"pgd": {"steps": 9}, "square": {"queries": 5}}})
        {'eps': 0.1, 'rungs.pgd': {'steps': 9}, 'rungs.square': {'queries': 5}}
    """
    lines: dict[str, Any] = {}
    for name, value in settings.items():
        parts = value if isinstance(value, dict) and name != "models" else {}
        nested = bool(parts) and all(isinstance(part, dict) for part in parts.values())
        lines |= {f"{name}.{key}": parts[key] for key in parts} if nested else {name: value}
    return lines


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
