"""Faces of CelebA-HQ, or CelebA, with one of their attributes as the class."""

from __future__ import annotations

import re
from pathlib import Path

from lit_purify.data.image_files import Labelled, is_picture, visible
from lit_purify.data.photographs_module import PhotographsDataModule
from lit_purify.types import Auto, InputError, did_you_mean

ATTRIBUTE_FILES = (
    "list_attr_celebahq.txt",
    "list_attr_celeba.txt",
    "CelebAMask-HQ-attribute-anno.txt",
)
"""Names under which lists of attributes are distributed."""


class CelebAHQDataModule(PhotographsDataModule):
    """Faces in [0, 1] for evaluation; the label is 1 where they have an attribute, 0 elsewhere.

    ``index`` in a batch is the position among the images that are there, in the order of the list
    of attributes, also where only some images are taken. Files are read when their turn comes, and
    up to 1000 of them also before the run, so that a damaged one shows in time.

    Args:
        source: folder with the images directly in it, all of the list or some. A name of the list
            and a file belong together where they are the same up to the suffix.
        attribute: one of the 40 attributes by its name in the list. Purification is usually
            measured on ``Male`` (gender), ``Eyeglasses`` and ``Smiling``.
        attribute_file: the list: the names of the attributes, then a line for every image with its
            file name and, for every attribute, 1 or -1, between spaces or commas; a line with the
            number of images may stand first. ``None`` takes the one of :data:`ATTRIBUTE_FILES` that
            lies beside the images, or beside their folder.
        preprocessing: what makes the images the classifier's size, by RobustBench's names:
            ``Res256`` stretches to 256 x 256, bilinear; ``Crop256`` leaves images of that size as
            they are.
        batch_size: images per batch, for each process; ``auto`` chooses by the memory.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer; applied
            to ``indices`` where both are given.
        indices: positions in the source of the images to evaluate on, in this order.
        num_workers: loading processes; 0 loads in the main one.

    Raises:
        InputError: an argument, the folder or one of its files is not as above.
    """

    dataset = "CelebA-HQ"
    num_classes = 2

    def __init__(
        self,
        *,
        source: str,
        attribute: str,
        attribute_file: str | None = None,
        preprocessing: str = "Res256",
        batch_size: int | Auto = 10,
        limit: int | None = 200,
        indices: list[int] | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            source=source,
            preprocessing=preprocessing,
            batch_size=batch_size,
            limit=limit,
            indices=indices,
            num_workers=num_workers,
        )
        self.attribute = attribute
        self.attribute_file = attribute_file
        self.class_names = (f"not {attribute}", attribute)

    def setup(self, stage: str) -> None:
        """Find the images of a ``test``, and look whether they can be read."""
        if stage != "test":
            return
        folder = Path(self.source)
        if not folder.is_dir():
            raise InputError(
                f"there is no folder {self.source!r}; expected the images of CelebA-HQ; type "
                "--data.source FOLDER"
            )
        given = self.attribute_file
        file = _attribute_file(folder) if given is None else Path(given)
        samples = _labelled(folder, read_attribute(file, self.attribute), file)
        self.details = {
            "data_attribute": self.attribute,
            "data_preprocessing": self.preprocessing,
            "data_source_images": len(samples),
        }
        self.test_set = self.photographs(samples)


def _attribute_file(folder: Path) -> Path:
    """The list of attributes beside the images, or beside their folder."""
    for place in (folder, folder.resolve().parent):
        if found := [place / name for name in ATTRIBUTE_FILES if (place / name).is_file()]:
            if len(found) > 1:
                names = " and ".join(path.name for path in found)
                raise InputError(
                    f"{str(place)!r} holds {names}; expected one list of attributes; name it by "
                    "--data.attribute_file FILE"
                )
            return found[0]
    raise InputError(
        f"there is no list of attributes in {str(folder)!r}, nor beside it; expected "
        f"{', '.join(ATTRIBUTE_FILES[:-1])} or {ATTRIBUTE_FILES[-1]}; put it there, or name it by "
        "--data.attribute_file FILE"
    )


def read_attribute(file: Path, attribute: str) -> dict[str, int]:
    """One attribute of a list.

    Args:
        file: as ``attribute_file`` of :class:`CelebAHQDataModule`.
        attribute: its name, in any case.

    Returns:
        Stem of an image file -> 1 where it has the attribute, 0 elsewhere, in the file's order.

    Raises:
        InputError: the file cannot be read, is no such list, or lacks the attribute.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"the list of attributes {str(file)!r} cannot be read ({reason}); expected a text file "
            "such as list_attr_celeba.txt; name it by --data.attribute_file FILE"
        ) from error
    rows = [re.split(r"[,\s]+", line.strip(", \t")) for line in lines if line.strip()]
    if rows and len(rows[0]) == 1 and rows[0][0].isdigit():  # how many images there are
        del rows[0]
    values = {"1": 1, "0": 0, "-1": 0}
    count = len(rows[1]) - 1 if len(rows) > 1 else 0
    # A table may name the column of the files too.
    if count < 1 or len(rows[0]) not in (count, count + 1) or rows[0][-1] in values:
        raise InputError(
            f"{file} is no list of attributes; expected a line with their names, then a line for "
            "every image; name another by --data.attribute_file FILE"
        )
    names = rows[0][-count:]
    folded = [name.casefold() for name in names]
    if attribute.casefold() not in folded:
        raise InputError(
            f"{file} has no attribute {attribute!r}{did_you_mean(attribute, names)}; expected one "
            f"of {', '.join(names)}"
        )
    column = folded.index(attribute.casefold()) + 1
    found: dict[str, int] = {}
    for row in rows[1:]:
        if len(row) != count + 1 or row[column] not in values:
            raise InputError(
                f"{file} has the line {' '.join(row)[:60]!r}; expected a file name and 1 or -1 for "
                f"each of {count} attributes; mend it, or get it again"
            )
        found[Path(row[0]).stem] = values[row[column]]
    return found


def _labelled(folder: Path, attributes: dict[str, int], file: Path) -> Labelled:
    """The images of a folder in the order of the list."""
    files = {path.stem: path for path in visible(folder) if is_picture(path)}
    if not files:
        raise InputError(
            f"the folder {str(folder)!r} holds no images; expected files such as 00001.jpg "
            "directly in it; check --data.source"
        )
    unknown = [path.name for stem, path in files.items() if stem not in attributes]
    if unknown:
        raise InputError(
            f"the folder {str(folder)!r} holds {', '.join(unknown[:3])}, which {file} does not "
            "name; expected images of that list; move them away, or name another list by "
            "--data.attribute_file FILE"
        )
    return [(files[stem], label) for stem, label in attributes.items() if stem in files]
