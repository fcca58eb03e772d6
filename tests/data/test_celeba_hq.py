"""CelebA-HQ's layout: attributes as labels, the forms of their list, and what is refused."""

from pathlib import Path
from typing import Any

import layouts
import pytest

from lit_purify.data import CelebAHQDataModule
from lit_purify.data.celeba_hq import ATTRIBUTE_FILES
from lit_purify.types import InputError


def _data(folder: Path, attribute: str = "Smiling", **arguments: Any) -> CelebAHQDataModule:
    data = CelebAHQDataModule(
        source=str(folder), attribute=attribute, **{"preprocessing": "Crop64"} | arguments
    )
    data.setup("test")
    return data


@pytest.fixture
def faces(tmp_path):
    folder = layouts.celeba_hq(tmp_path)
    (tmp_path / ATTRIBUTE_FILES[1]).write_text(layouts.attribute_list("txt"))
    return folder


@pytest.mark.parametrize(("attribute", "labels"), [("Smiling", [1, 0, 1]), ("male", [0, 0, 1])])
def test_labels_are_an_attribute_in_the_order_of_the_list(faces, attribute, labels):
    data = _data(faces, attribute, batch_size=2)
    batches = list(data.test_dataloader())
    assert [batch["index"].tolist() for batch in batches] == [[0, 1], [2]]
    assert data.test_set.labels.tolist() == labels
    greys = [round(float(data.test_set[k]["image"][0, 0, 0]) * 255) for k in range(3)]
    assert greys == [3, 1, 2]
    assert data.test_set[0]["image"].shape == data.image_shape == (3, 64, 64)
    assert (data.num_classes, data.class_names) == (2, (f"not {attribute}", attribute))
    settings = data.settings()
    assert settings["dataset"] == "CelebA-HQ"
    assert settings["data_attribute"] == attribute
    assert settings["data_source_images"] == 3
    assert _data(faces, attribute, indices=[2, 0]).test_set.labels.tolist() == labels[::-2]


@pytest.mark.parametrize("kind", ["txt", "csv"])
@pytest.mark.parametrize("place", ["inside", "given"])
def test_forms_of_the_list(tmp_path, kind, place):
    folder = layouts.celeba_hq(tmp_path)
    file = folder / ATTRIBUTE_FILES[0] if place == "inside" else tmp_path / "mine.txt"
    file.write_text(layouts.attribute_list(kind))
    given = {} if place == "inside" else {"attribute_file": str(file)}
    assert _data(folder, **given).test_set.labels.tolist() == [1, 0, 1]


def test_without_a_list(tmp_path):
    folder = layouts.celeba_hq(tmp_path)
    with pytest.raises(InputError, match=r"no list.*--data\.attribute_file"):
        _data(folder)
    with pytest.raises(InputError, match=r"mine\.txt.*cannot be read"):
        _data(folder, attribute_file=str(tmp_path / "mine.txt"))


LISTS = {
    "empty": ("", "no list of attributes"),
    "count alone": ("3\n", "no list of attributes"),
    "no names": ("00001.jpg 1 -1\n00002.jpg 1 1\n", "no list of attributes"),
    "short line": ("Smiling Male\n00001.jpg 1 -1\n00002.jpg 1\n", r"00002\.jpg 1'"),
    "other values": ("Smiling Male\n00001.jpg yes -1\n", "yes"),
    "not all images": ("Smiling Male\n00001.jpg 1 -1\n00002.jpg 1 1\n", r"00003\.png"),
}


@pytest.mark.parametrize(("text", "message"), LISTS.values(), ids=LISTS.keys())
def test_refused_lists(faces, text, message):
    (faces.parent / ATTRIBUTE_FILES[1]).write_text(text)
    with pytest.raises(InputError, match=message):
        _data(faces)


def test_refused_folders_and_names(faces):
    with pytest.raises(InputError, match="did you mean Smiling"):
        _data(faces, "Smilling")
    with pytest.raises(InputError, match=r"--data\.source FOLDER"):
        _data(faces / "none")
    (faces.parent / ATTRIBUTE_FILES[0]).write_text("")
    with pytest.raises(InputError, match=r"hq\.txt and .*expected one"):
        _data(faces)
    (faces.parent / ATTRIBUTE_FILES[0]).unlink()
    for path in faces.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no images"):
        _data(faces)
