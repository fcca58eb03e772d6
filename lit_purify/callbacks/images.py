"""Images of a run in TensorBoard: clean, adversarial, purified and their differences."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lit_purify.callbacks.measurement import Measurement, save_figure
from lit_purify.figures import image_grid
from lit_purify.modules.purified_classifier import Outcomes, PurifiedClassifier
from lit_purify.types import Batch, InputError


class ImageGrid(Measurement):
    """Draws the first images of a run, once for every protocol that attacks the purifier.

    The grids go to TensorBoard and, as ``images_<protocol>.png``, into the run folder.

    Args:
        count: images drawn; those of the first batch, at most.
    """

    def __init__(self, *, count: int = 8) -> None:
        if count < 1:
            raise InputError(f"ImageGrid needs a count of 1 or more images, got {count}")
        self.count = count
        self._drawn = False

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        self._drawn = False

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        if self._drawn or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._drawn = True  # at once, and not at the end: one can look while the run goes on
        names = module.classifier.class_name
        first = slice(self.count)
        clean, labels = batch["image"][first].cpu(), batch["label"][first].tolist()
        resumed = bool(getattr(trainer.datamodule, "done", ()))  # type: ignore[attr-defined]
        for protocol in module.protocols:
            if resumed and (self._folder / f"images_{protocol}.png").exists():
                continue  # drawn of the first images, before the run was resumed
            attacked = outputs[f"{protocol}/adversarial"]
            seen_clean = outputs["base/clean" if protocol == "base" else "fixed/clean"]
            adversarial = batch["adversarial"][module.surface(protocol)][first].cpu()
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
