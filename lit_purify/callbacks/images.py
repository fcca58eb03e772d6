"""Images of a run in TensorBoard: clean, adversarial, purified and their differences."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from torch import Tensor

from lit_purify.callbacks.measurement import Measurement, save_figure
from lit_purify.callbacks.run_folder import run_folder
from lit_purify.data.base import evaluated_images
from lit_purify.figures import image_grid
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.protocols import PROTOCOLS
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.types import Batch, InputError


class ImageGrid(Measurement):
    """Draws the first images of a run, once for every protocol.

    The grids go to TensorBoard and, as ``images_<protocol>.png``, into the run folder, before the
    first batch counts as done: one can look while the run goes on, and what a kill takes away is
    drawn when the run is resumed.

    For the page of ``report --html`` it records, of every image and in 8 bits, what the adversarial
    images beside it lack: ``image/clean``, ``image/purified`` (the clean one, purified) and
    ``image/<protocol>`` (the adversarial one, purified), uint8 (N, C, H, W), clipped to [0, 1] and
    with 0 for what is not a number.

    Args:
        count: images drawn; those of the first batch, at most.
    """

    def __init__(self, *, count: int = 8) -> None:
        if count < 1:
            raise InputError(f"ImageGrid needs a count of 1 or more images, got {count}")
        self.count = count
        self._folder = Path()
        self._first: int | None = None

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        shape = getattr(data, "image_shape", None) or module.classifier.image_shape
        if shape is not None and shape[0] not in (1, 3):
            raise InputError(
                f"ImageGrid draws images of 1 or 3 channels, and these have {shape[0]}; drop "
                "ImageGrid (--measure.images null)"
            )
        self._folder = run_folder(trainer)
        images = evaluated_images(trainer)
        self._first = None if images is None else int(images.indices[0])

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        shown = {"clean": batch["image"]}
        if module.purifies:
            shown["purified"] = outputs["fixed/clean"].image
        for protocol in module.protocols:
            if protocol != "base":
                shown[protocol] = outputs[f"{protocol}/adversarial"].image
        for name, images in shown.items():
            module.record(f"image/{name}", _in_8_bits(images))
        index = batch["index"].tolist()
        if self._first is None:  # data that name no order: what comes first
            self._first = index[0]
        # The first process has the first of the batches that are left.
        skipped = not trainer.is_global_zero or trainer.fast_dev_run  # type: ignore[attr-defined]
        if skipped or self._first not in index:
            return
        names = module.class_name
        first = slice(self.count)
        clean, labels = batch["image"][first].cpu(), batch["label"][first].tolist()
        for protocol in module.protocols:
            attacked = outputs[f"{protocol}/adversarial"]
            seen_clean = outputs["base/clean" if protocol == "base" else "fixed/clean"]
            adversarial = batch["adversarial"][PROTOCOLS[protocol].surface][first].cpu()
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


def _in_8_bits(images: Tensor) -> Tensor:
    return (255 * images.float().nan_to_num(0, 1, 0).clamp(0, 1)).round().byte()
