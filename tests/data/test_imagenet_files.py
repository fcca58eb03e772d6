"""ImageNet's files: which, in which order, of which class, and the layouts that are refused."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet50_Weights

from lit_purify.data.imagenet_files import class_indices, folder_files, foolbox_samples
from lit_purify.types import InputError

TENCH, HEN, TISSUE = "n01440764", "n01514859", "n15075141"
CLASSES = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]


def test_class_indices_are_those_of_timms_list():
    spec = importlib.util.find_spec("timm")  # a dependency of robustbench, slow to import
    listed = (Path(spec.origin).parent / "data/_info/imagenet_synsets.txt").read_text()
    assert class_indices() == {wnid: k for k, wnid in enumerate(listed.splitlines())}


def test_foolbox_samples():
    samples = foolbox_samples()
    assert [path.name.split("_")[1] for path, _ in samples] == [f"{k:02d}" for k in range(20)]
    assert all(path.stem.endswith(f"_{label}") for path, label in samples)
    # As seen in the pictures.
    seen = {0: "bull mastiff", 4: "strawberry", 9: "bottlecap", 10: "drum", 16: "dalmatian"}
    assert {k: CLASSES[samples[k][1]] for k in seen} == seen


def _installed_at(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """Every package looks installed in that folder, or in none."""
    spec = None
    if folder is not None:
        spec = ModuleSpec("package", None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_missing_packages_are_named(monkeypatch):
    _installed_at(monkeypatch, None)
    with pytest.raises(InputError, match=r"pip install foolbox"):
        foolbox_samples()
    with pytest.raises(InputError, match=r"pip install robustbench"):
        class_indices()


def test_missing_samples_are_refused(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    for path, _ in foolbox_samples()[:-1]:
        shutil.copy(path, tmp_path / "data")
    _installed_at(monkeypatch, tmp_path)
    with pytest.raises(InputError, match="19 images"):
        foolbox_samples()


@pytest.mark.parametrize(
    "content",
    [None, "", "[]", '{"n01440764": 0}', json.dumps({f"n{k:08d}": 999 - k for k in range(1000)})],
    ids=["missing", "empty", "list", "short", "reversed"],
)
def test_damaged_list_of_classes_is_refused(monkeypatch, tmp_path, content):
    (tmp_path / "helper_files").mkdir()
    if content is not None:
        path = tmp_path / "helper_files" / "imagenet_class_to_id_map.json"
        path.write_text(content, encoding="utf-8")
    _installed_at(monkeypatch, tmp_path)
    with pytest.raises(InputError, match="reinstall"):
        class_indices()


def _name(number: int, suffix: str = "JPEG") -> str:
    return f"ILSVRC2012_val_{number:08d}.{suffix}"


def _touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def _validation(folder: Path) -> Path:
    """Seven images of three classes; the names are of interest, the pixels are not."""
    _touch(folder / TISSUE, _name(3), _name(50_000), _name(1))
    _touch(folder / TENCH, _name(293), _name(4), "._" + _name(9), "notes.txt")
    _touch(folder / HEN, _name(2), _name(40_000, "png"))
    _touch(folder / ".cache", _name(8))
    (folder / "meta.bin").touch()
    return folder


def test_validation_order_goes_by_number(tmp_path):
    samples = folder_files(_validation(tmp_path), "validation")
    assert [int(path.stem[-8:]) for path, _ in samples] == [1, 2, 3, 4, 293, 40_000, 50_000]
    assert [label for _, label in samples] == [999, 8, 999, 0, 0, 8, 999]
    assert all({0: TENCH, 8: HEN, 999: TISSUE}[k] == path.parent.name for path, k in samples)


def test_folder_order_is_image_folders(tmp_path):
    samples = folder_files(_validation(tmp_path), "folder")
    shutil.rmtree(tmp_path / ".cache")  # ImageFolder takes it for a class
    (tmp_path / TENCH / ("._" + _name(9))).unlink()
    oracle = ImageFolder(str(tmp_path)).samples
    # Its own numbers are 0, 1, 2: places among the classes that are there.
    assert samples == [(Path(path), (0, 8, 999)[label]) for path, label in oracle]


def test_what_holds_val_is_as_good(tmp_path):
    _validation(tmp_path / "val")
    _touch(tmp_path / "train" / TENCH, "n01440764_18.JPEG")
    _touch(tmp_path, "ILSVRC2012_devkit_t12.tar.gz")
    assert folder_files(tmp_path, "validation") == folder_files(tmp_path / "val", "validation")
    assert folder_files(str(tmp_path), "folder") == folder_files(tmp_path / "val", "folder")


def test_names_without_numbers_go_class_by_class_only(tmp_path):
    _touch(tmp_path / TENCH, "n01440764_18.JPEG", "a.webp")
    samples = [(path.name, label) for path, label in folder_files(tmp_path, "folder")]
    assert samples == [("a.webp", 0), ("n01440764_18.JPEG", 0)]
    with pytest.raises(InputError, match=r"a\.webp.*--data\.order folder"):
        folder_files(tmp_path, "validation")


def _beside(*place: str) -> Callable[[Path], None]:
    """Three classes, and one file more."""
    return lambda folder: _touch(_validation(folder).joinpath(*place[:-1]), place[-1])


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda folder: None, "no folder"),
    "a file": (lambda folder: folder.write_text("x"), "no folder"),
    "empty": (lambda folder: folder.mkdir(), "holds no folders"),
    "flat": (lambda folder: _touch(folder, _name(1), _name(2)), r"directly.*00000001\.JPEG"),
    "flat beside classes": (_beside(_name(77)), r"directly.*00000077\.JPEG"),
    "other names": (lambda folder: _touch(folder / "tench", _name(1)), "holds tench"),
    "train alone": (lambda folder: _touch(folder / "train" / HEN, "a.JPEG"), "holds train"),
    "no images": (lambda folder: _touch(folder / HEN, "a.txt"), "no images"),
    "one number twice": (_beside(HEN, _name(293)), rf"{TENCH}.*293\.JPEG and .*{HEN}"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_folders(tmp_path, make, message):
    make(tmp_path / "here")
    with pytest.raises(InputError, match=message) as caught:
        folder_files(tmp_path / "here", "validation")
    assert "here" in str(caught.value)


def test_unreadable_folder_is_refused(tmp_path, monkeypatch):
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        folder_files(tmp_path, "folder")
