"""Where ImageNet's files and class numbers are: the foolbox wheel, a folder, RobustBench's list."""

from __future__ import annotations

import importlib.util
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Literal

from lit_purify.data.image_files import SUFFIXES, Labelled, is_picture, visible
from lit_purify.types import InputError

Order = Literal["validation", "folder"]

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
    paths = sorted(folder.glob("imagenet_*_*.jpg"))
    # imagenet_<number>_<class index>.jpg
    names = [path.stem.split("_") for path in paths]
    if [number for _, number, _ in names] != [f"{k:02d}" for k in range(_FOOLBOX_COUNT)]:
        raise InputError(
            f"{folder} holds {len(paths)} images of the {_FOOLBOX_COUNT} that belong to foolbox; "
            "reinstall it: pip install --force-reinstall --no-deps foolbox"
        )
    return [(path, int(label)) for path, (_, _, label) in zip(paths, names, strict=True)]


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
        if indices != {wnid: k for k, wnid in enumerate(sorted(indices))}:
            raise ValueError("it does not number classes by their ids")
        if len(indices) != NUM_CLASSES:
            raise ValueError(f"it holds {len(indices)} classes")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"the list of ImageNet's classes cannot be read from {path} ({error}); reinstall it: "
            "pip install --force-reinstall --no-deps robustbench==1.1.1"
        ) from error
    return dict(indices)


def _package(name: str, requirement: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the package {name} is not installed; pip install {requirement}")
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
            f"there is no folder {str(folder)!r}; {_LAYOUT}; or source is 'foolbox', or the path "
            "of an .npz file with the keys 'images' and 'labels'"
        )
    if (folder / "val").is_dir():
        folder = folder / "val"
    indices = class_indices()
    samples = [
        (path, indices[class_folder.name])
        for class_folder in _class_folders(folder, indices)
        for path in filter(is_picture, visible(class_folder))
    ]
    if not samples:
        raise InputError(
            f"the class folders in {str(folder)!r} hold no images; expected files that end in "
            f"{', '.join(SUFFIXES)} directly in them; check that the images were unpacked"
        )
    return samples if order == "folder" else _by_number(samples)


def _class_folders(folder: Path, indices: dict[str, int]) -> list[Path]:
    entries = visible(folder)
    loose = next(filter(is_picture, entries), None)
    if loose is not None:
        raise InputError(
            f"the folder {str(folder)!r} holds images directly, such as {loose.name}, whose class "
            f"is not known; {_LAYOUT}; {_MAKE_LAYOUT}"
        )
    folders = [path for path in entries if path.is_dir()]
    if not folders:
        raise InputError(f"the folder {str(folder)!r} holds no folders; {_LAYOUT}; {_MAKE_LAYOUT}")
    unknown = [path.name for path in folders if path.name not in indices]
    if unknown:
        raise InputError(
            f"the folder {str(folder)!r} holds {', '.join(unknown[:3])}, which is no WordNet id of "
            f"the {NUM_CLASSES} classes; {_LAYOUT}; rename such folders, or move them away"
        )
    return folders


def _by_number(samples: Labelled) -> Labelled:
    """In the order of the official numbers, each once."""
    for path, _ in samples:
        if not re.fullmatch(r"ILSVRC2012_val_\d{8}", path.stem):
            raise InputError(
                f"{path}: the name has no place in the validation order; expected names such as "
                "ILSVRC2012_val_00000293.JPEG; take the images class by class: --data.order folder"
            )
    numbered = sorted(samples, key=lambda sample: sample[0].stem)
    for (path, _), (following, _) in pairwise(numbered):
        if path.stem == following.stem:
            raise InputError(
                f"{path} and {following} have the same number; expected each image of the "
                "validation set once; remove one of them"
            )
    return numbered
