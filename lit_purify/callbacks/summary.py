"""``summary.json``, the settings before the work and the table after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from lit_purify.callbacks.run_folder import run_folder
from lit_purify.checkpoints.files import sha256
from lit_purify.metrics import SummaryMetric
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.report import finding, summary_table, versions, write_summary


class Summary(Callback):
    """Prints the resolved settings, keeps ``summary.json`` and prints the result.

    The file says ``running`` from the start and ``finished`` only at the end; an interrupted or
    failed run says so.

    Args:
        next_step: printed after the table: what to type next.
    """

    def __init__(self, *, next_step: str | None = None) -> None:
        self.next_step = next_step
        self._folder = Path()
        self._settings: dict[str, Any] = {}
        self._metrics: dict[str, Any] = {}
        self._console = Console()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder = run_folder(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, PurifiedClassifier)
        self._settings = _settings(trainer, pl_module)
        if trainer.is_global_zero:
            self._print_settings()
        self._write(trainer, "running", {})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Here, not at the end: Lightning resets the metrics in between. Every rank takes part.
        assert isinstance(pl_module, PurifiedClassifier)
        self._metrics = {
            name: metric.summary()
            for name, metric in pl_module.metrics.items()
            if isinstance(metric, SummaryMetric)
        }

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, "finished", self._metrics)
        if trainer.is_global_zero:
            self._print_result(self._folder, self._metrics)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if self._settings:
            interrupted = isinstance(exception, (KeyboardInterrupt, SystemExit))
            self._write(trainer, "interrupted" if interrupted else "failed", {})

    def _write(self, trainer: Trainer, status: str, metrics: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            write_summary(self._folder / "summary.json", self._summary(status, metrics))

    def _summary(self, status: str, metrics: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": status,
            "versions": versions(),
            "settings": self._settings,
            "metrics": metrics,
        }

    def _print_settings(self) -> None:
        width = max(map(len, self._settings))
        for name, value in self._settings.items():
            if name == "models":
                for role, model in value.items():
                    digest = model["sha256"]
                    known = f"sha256 {digest[:12]}" if digest else "weights not from a file"
                    print(f"  {role:<{width}}  {model['source']} ({known})")
            elif name.split("_")[-1] == "eps":
                print(f"  {name:<{width}}  {value:.6g} ({value * 255:.4g}/255)")
            else:
                print(f"  {name:<{width}}  {_plain(value)}")
        print(flush=True)

    def _print_result(self, folder: Path, metrics: dict[str, Any]) -> None:
        summary = self._summary("finished", metrics)
        self._console.print(summary_table(summary))
        sentence = finding(summary)
        if sentence is not None:
            self._console.print(f"\n{sentence}\n")
        if self.next_step is not None:
            self._console.print(f"{self.next_step}\n", soft_wrap=True)
        # Plain print: the last line is for scripts too, so it is never wrapped or coloured.
        print(folder, flush=True)


def _settings(trainer: Trainer, module: PurifiedClassifier) -> dict[str, Any]:
    """Everything that decides the numbers, from whoever knows it."""
    settings: dict[str, Any] = {}
    for part in (module, *trainer.callbacks, trainer.datamodule):  # type: ignore[attr-defined]
        report: Callable[[], dict[str, Any]] | None = getattr(part, "settings", None)
        if callable(report):
            settings |= report()
    settings["models"] = {
        role: {"source": model.source, "sha256": model.file and sha256(model.file)}
        for role, model in module.models().items()
    }
    settings["device"] = str(trainer.strategy.root_device)
    settings["processes"] = trainer.world_size
    settings["precision"] = trainer.precision
    return settings


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
