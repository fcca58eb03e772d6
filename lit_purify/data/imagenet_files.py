"""Where ImageNet's files and class numbers are: the foolbox wheel, a folder, RobustBench's list."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lit_purify.data.image_files import SUFFIXES
from lit_purify.types import InputError

Order = Literal["validation", "folder"]

Labelled = tuple[list[Path], list[int]]
"""Image files, and the class index of each."""

NUM_CLASSES = 1000

_FOOLBOX_COUNT = 20
_LAYOUT = (
    "expected a folder for every class, named by its WordNet id, with the images in it, such as "
    "val/n01440764/ILSVRC2012_val_00000293.JPEG"
)
_MAKE_LAYOUT = (
    "torchvision.datasets.ImageNet(root, split='val') makes it from ILSVRC2012_img_val.tar and "
    "ILSVRC2012_devkit_t12.tar.gz in root"
)


def foolbox_samples() -> Labelled:
    """The 20 photographs of ImageNet classes that foolbox ships, in the order of their numbers.

    Raises:
        InputError: foolbox, or a part of it, is not installed.
    """
    folder = _package("foolbox", "foolbox") / "data"
    found = {}
    for path in folder.glob("imagenet_*"):
        # imagenet_<number>_<class index>.jpg
        if match := re.fullmatch(r"imagenet_(\d+)_(\d+)", path.stem):
            found[int(match[1])] = path, int(match[2])
    if sorted(found) != list(range(_FOOLBOX_COUNT)):
        raise InputError(
            f"{folder} holds {len(found)} images of the {_FOOLBOX_COUNT} that belong to foolbox. "
            "Reinstall it (pip install --force-reinstall --no-deps foolbox)."
        )
    numbered = [found[number] for number in sorted(found)]
    return [path for path, _ in numbered], [label for _, label in numbered]


def class_indices() -> dict[str, int]:
    """Class index of every WordNet id of ILSVRC2012: 0 .. 999 in the order of the ids.

    The list is RobustBench's, read as data without importing that package.

    Raises:
        InputError: robustbench is not installed, or its list is damaged.

    Example:
        >>> indices = class_indices()
        >>> indices["n01440764"], indices["n15075141"]  # tench, toilet tissue
        (0, 999)
    """
    package = _package("robustbench", "robustbench==1.1.1")
    path = package / "helper_files" / "imagenet_class_to_id_map.json"
    try:
        indices = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if (
        not isinstance(indices, dict)
        or len(indices) != NUM_CLASSES
        or indices != {wnid: k for k, wnid in enumerate(sorted(indices))}
    ):
        raise _damaged(path, f"it does not number {NUM_CLASSES} classes by their ids")
    return indices


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"The list of ImageNet's classes cannot be read from {path} ({why}). Reinstall it "
        "(pip install --force-reinstall --no-deps robustbench==1.1.1)."
    )


def _package(name: str, requirement: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"The package {name} is not installed (pip install {requirement}).")
    return Path(spec.submodule_search_locations[0])


def folder_files(folder: str | Path, order: Order) -> Labelled:
    """The images of a folder in the layout of ImageNet's validation set.

    Args:
        folder: holds a folder for every class, named by its WordNet id; or holds ``val``, which
            does. Some of the classes or images are enough. Hidden files, files that are no
            images and folders within the class folders are left out.
        order: ``validation`` goes by the number in ``ILSVRC2012_val_00000293.JPEG``; ``folder``
            class by class, in a class by name, as torchvision's ``ImageFolder``.

    Raises:
        InputError: the folder is missing, laid out in another way or without images; or the
            images have no number, or the same one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {str(folder)!r}; {_LAYOUT}; or source is 'foolbox', or the path "
            "of an .npz file with the keys 'images' and 'labels'."
        )
    if (folder / "val").is_dir():
        folder = folder / "val"
    indices = class_indices()
    files: list[Path] = []
    labels: list[int] = []
    for name in _class_folders(folder, indices):
        inside = [folder / name / entry.name for entry in _entries(folder / name)]
        images = [path for path in inside if path.suffix.lower() in SUFFIXES]
        files += images
        labels += [indices[name]] * len(images)
    if not files:
        raise InputError(
            f"The class folders in {str(folder)!r} hold no images; expected files that end in "
            f"{', '.join(SUFFIXES)} directly in them. Check that the images were unpacked."
        )
    if order == "folder":
        return files, labels
    numbers = _validation_numbers(files)
    places = sorted(range(len(files)), key=numbers.__getitem__)
    return [files[place] for place in places], [labels[place] for place in places]


def _class_folders(folder: Path, indices: dict[str, int]) -> list[str]:
    entries = _entries(folder)
    loose = [entry.name for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES]
    if loose:
        raise InputError(
            f"The folder {str(folder)!r} holds images directly, such as {loose[0]}, whose class is "
            f"not known; {_LAYOUT}; {_MAKE_LAYOUT}."
        )
    names = [entry.name for entry in entries if entry.is_dir()]
    if not names:
        raise InputError(f"The folder {str(folder)!r} holds no folders; {_LAYOUT}; {_MAKE_LAYOUT}.")
    unknown = [name for name in names if name not in indices]
    if unknown:
        raise InputError(
            f"The folder {str(folder)!r} holds {', '.join(unknown[:3])}, which is no WordNet id of "
            f"the {NUM_CLASSES} classes; {_LAYOUT}. Rename such folders, or move them away."
        )
    return names


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name; hidden things are left out."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if entry.name[0] != "."), key=lambda e: e.name
            )
    except OSError as error:
        raise InputError(
            f"The folder {str(folder)!r} cannot be read ({error.strerror}). Check who may read it."
        ) from error


def _validation_numbers(files: Sequence[Path]) -> list[int]:
    """The official number of every image, each once."""
    numbers = []
    for path in files:
        match = re.fullmatch(r"ILSVRC2012_val_(\d{8})", path.stem)
        if match is None:
            raise InputError(
                f"{path}: the name has no place in the validation order; expected names such as "
                "ILSVRC2012_val_00000293.JPEG. Take the images class by class: --data.order folder."
            )
        numbers.append(int(match[1]))
    seen: dict[int, Path] = {}
    for number, path in zip(numbers, files, strict=True):
        if number in seen:
            raise InputError(
                f"{seen[number]} and {path} have the same number; expected each image of the "
                "validation set once. Remove one of them."
            )
        seen[number] = path
    return numbers
