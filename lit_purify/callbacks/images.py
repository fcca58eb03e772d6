"""Images of a run in TensorBoard: clean, adversarial, purified and their differences."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_purify.callbacks.measurement import save_figure
from lit_purify.callbacks.run_folder import run_folder
from lit_purify.modules.purified_classifier import Outcomes, PurifiedClassifier
from lit_purify.report import image_grid
from lit_purify.types import Batch, InputError


class ImageGrid(Callback):
    """Draws the first images of a run, once for every protocol that attacks the purifier.

    The grids go to TensorBoard and, as ``images_<protocol>.png``, into the run folder.

    Args:
        count: images drawn; those of the first batch, at most.
    """

    def __init__(self, *, count: int = 8) -> None:
        if count < 1:
            raise InputError(f"ImageGrid needs a count of 1 or more images, got {count}")
        self.count = count
        self._folder = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder = run_folder(trainer)

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: PurifiedClassifier,
        outputs: Outcomes,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx > 0 or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        names = pl_module.classifier.class_name
        first = slice(self.count)
        clean, labels = batch["image"][first].cpu(), batch["label"][first].tolist()
        resumed = bool(getattr(trainer.datamodule, "done", ()))  # type: ignore[attr-defined]
        for protocol in pl_module.protocols:
            if resumed and (self._folder / f"images_{protocol}.png").exists():
                continue  # drawn of the first images, in an earlier sitting
            attacked = outputs[f"{protocol}/adversarial"]
            seen_clean = outputs["base/clean" if protocol == "base" else "fixed/clean"]
            adversarial = batch["adversarial"][pl_module.surface(protocol)][first].cpu()
            columns = {"clean": clean, "adversarial": adversarial}
            columns["difference"] = adversarial - clean
            if protocol != "base":
                purified, anchor = attacked.image[first].cpu(), seen_clean.image[first].cpu()
                columns["purified clean"] = anchor
                columns["purified adversarial"] = purified
                columns["difference purified"] = purified - anchor
            before = seen_clean.logits[first].argmax(1).tolist()
            after = attacked.logits[first].argmax(1).tolist()
            rows = [
                f"{names(label)}:\n{names(b)} → {names(a)}"
                for label, b, a in zip(labels, before, after, strict=True)
            ]
            figure = image_grid(columns, rows)
            save_figure(trainer, self._folder, f"images/{protocol}", figure)
