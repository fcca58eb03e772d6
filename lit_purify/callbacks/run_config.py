"""``config.yaml``: the command that made a run folder."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_purify.callbacks.run_folder import run_folder
from lit_purify.records.files import write_whole

CONFIG = "config.yaml"


class RunConfig(Callback):
    """Writes the resolved configuration into the run folder; one that is there stays.

    Lightning's own callback writes in place, at the end of the set-up: a run killed there would
    have records and no configuration.

    Args:
        text: the configuration as YAML.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        path = run_folder(trainer) / CONFIG
        if trainer.is_global_zero and not path.exists():
            write_whole(path, self.text.encode())
