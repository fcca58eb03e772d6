"""The images of a run, from its records, as pictures that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from lit_purify.types import InputError

MOST = 100
"""Images of a run that are looked at."""
_FOUND_ON = {
    **{"base": "base", "blind": "base"},
    **{"fixed": "fixed", "transfer": "fixed", "fresh": "fresh"},
}
"""Protocol -> what its adversarial images are found against, in the order of the page."""
_EXACT = 64
"""Largest side, in pixels, of images that are stored without loss."""
_SCALES = (100, 50, 20, 10, 5, 2, 1)
_MARKUP = 160
"""Bytes that the page adds to a picture."""

Columns = Mapping[str, np.ndarray]
"""Records by name, the first samples of them."""


class Tile(NamedTuple):
    """One picture.

    Attributes:
        title: what it shows.
        uri: a data URI.
    """

    title: str
    uri: str


class View(NamedTuple):
    """An image under one protocol.

    Attributes:
        protocol: its name.
        outcome: ``fooled`` by the attack, ``right`` under it, or ``wrong`` on the clean image
            already.
        words: what the classifier made of it.
        tiles: the pictures that are recorded.
    """

    protocol: str
    outcome: str
    words: str
    tiles: list[Tile]


class Sample(NamedTuple):
    """An image.

    Attributes:
        number: its index in the data set.
        label: its class.
        views: one for each protocol.
    """

    number: int
    label: str
    views: list[View]


class Gallery(NamedTuple):
    """The images of a run.

    Attributes:
        samples: those that are shown, the first of the records.
        side: width and height in pixels, of the larger one.
        notes: what is missing, or shown otherwise than it was, in sentences.
    """

    samples: list[Sample]
    side: int
    notes: list[str]

    @property
    def protocols(self) -> list[str]:
        """Those that images are seen under."""
        return [view.protocol for view in self.samples[0].views] if self.samples else []


def gallery(tensors: Path, class_names: Sequence[str], room: int) -> Gallery:
    """The first images of a run.

    Args:
        tensors: the merged records, ``records/tensors.safetensors``.
        class_names: may be empty; classes are then numbers.
        room: bytes that all pictures together may take.

    Returns:
        As many images as have room; none where none are recorded, which the notes say.

    Raises:
        InputError: the file is damaged.
    """
    if not tensors.exists():
        return Gallery([], 0, ["No images are recorded."])
    columns, count = _read(tensors)
    protocols = [name for name in _FOUND_ON if _adversarial(columns, name) is not None]
    if not protocols:
        return Gallery([], 0, ["No adversarial images of 1 or 3 channels are recorded."])
    pictures = {name: _pictures(columns, name) for name in protocols}
    side = max(next(iter(pictures[protocols[0]].values())).shape[1:3])
    samples: list[Sample] = []
    for row in range(len(columns["index"])):
        views = [_view(columns, row, name, pictures[name], class_names) for name in protocols]
        room -= sum(len(tile.uri) + _MARKUP for view in views for tile in view.tiles)
        if room < 0:
            break
        label = _class(columns["label"][row], class_names)
        samples.append(Sample(int(columns["index"][row]), label, views))
    return Gallery(samples, side, _notes(columns, side, len(samples), count))


def _notes(columns: Columns, side: int, shown: int, count: int) -> list[str]:
    notes = []
    if shown < count:
        notes.append(f"The first {shown} of {count} images, so that the page stays small.")
    if "image/clean" not in columns:
        notes.append(
            "The clean and the purified images are not recorded, so that the adversarial ones "
            "stand alone; runs with measure.images record them."
        )
    if side > _EXACT:
        notes.append("Compressed with loss (WebP, quality 90).")
    return notes


def _read(tensors: Path) -> tuple[dict[str, np.ndarray], int]:
    """The first samples of the columns that are shown, and how many samples there are."""
    endings = ("_prediction", "_any_iteration", "/adversarial")
    try:
        with safe_open(tensors, "np") as file:
            names = [
                name
                for name in file.keys()  # noqa: SIM118 (not a mapping)
                if name in ("index", "label") or name.startswith("image/") or name.endswith(endings)
            ]
            count = file.get_slice("index").get_shape()[0]
            return {name: file.get_slice(name)[: min(count, MOST)] for name in names}, count
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{tensors} is damaged ({error}); restore it, or leave out its run"
        ) from None


def _adversarial(columns: Columns, protocol: str) -> np.ndarray | None:
    """The adversarial images of a protocol that the run has, in [0, 1], (N, H, W, C)."""
    images = columns.get(f"{_FOUND_ON[protocol]}/adversarial")
    asked = {f"{protocol}/robust_prediction", f"{protocol}/robust_accuracy_any_iteration"}
    if images is None or not asked & columns.keys() or images.shape[1] not in (1, 3):
        return None
    return np.moveaxis(images, 1, -1)


def _pictures(columns: Columns, protocol: str) -> dict[str, np.ndarray]:
    """Title -> images in [0, 1], (N, H, W, C); differences are scaled around grey."""
    adversarial = _adversarial(columns, protocol)
    assert adversarial is not None
    found = {
        name.removeprefix("image/"): np.moveaxis(images, 1, -1) / np.float32(255)
        for name, images in columns.items()
        if name.startswith("image/")
    }
    pictures = {"adversarial": adversarial}
    if "clean" in found:
        pictures = {"clean": found["clean"], **pictures}
        pictures |= _difference("added by the attack", adversarial - found["clean"])
    if {"purified", protocol} <= found.keys():
        pictures["purified clean"] = found["purified"]
        pictures["purified adversarial"] = found[protocol]
        pictures |= _difference("left of it", found[protocol] - found["purified"])
    return pictures


def _difference(title: str, signed: np.ndarray) -> dict[str, np.ndarray]:
    """Signed differences, scaled so that 99.5 % of them can be told apart, around mid-grey."""
    reach = float(np.quantile(np.abs(np.nan_to_num(signed)), 0.995))
    scale = next((scale for scale in _SCALES if scale * reach <= 0.5), 1)
    return {f"{title}, ×{scale}": 0.5 + scale * signed}


def _view(
    columns: Columns,
    row: int,
    protocol: str,
    pictures: Mapping[str, np.ndarray],
    class_names: Sequence[str],
) -> View:
    label = int(columns["label"][row])
    before = columns.get(f"{'base' if protocol == 'base' else 'purified'}/clean_prediction")
    after = columns.get(f"{protocol}/robust_prediction")
    stood = columns.get(f"{protocol}/robust_accuracy_any_iteration")
    # An attack that stops early has no last iteration.
    right = after[row] == label if after is not None else stood is not None and bool(stood[row])
    outcome = "right" if right else "fooled"
    seen = []
    if before is not None:
        seen = [f"clean: {_class(before[row], class_names)}"]
        if not right and before[row] != label:
            outcome = "wrong"
    if after is not None:
        seen.append(f"attacked: {_class(after[row], class_names)}")
    tiles = [Tile(title, _uri(images[row])) for title, images in pictures.items()]
    return View(protocol, outcome, ", ".join(seen), tiles)


def _class(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else f"class {label}"


def _uri(image: np.ndarray) -> str:
    """A picture of an image in [0, 1], (H, W, C)."""
    pixels = (255 * np.nan_to_num(image).clip(0, 1)).round().astype(np.uint8)
    picture, kind = io.BytesIO(), "png"
    shown = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if max(shown.size) <= _EXACT:
        shown.save(picture, "PNG", optimize=True)
    else:
        kind = "webp"
        shown.save(picture, "WEBP", quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(picture.getvalue()).decode()}"
