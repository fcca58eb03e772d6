"""Every overlay in configs/data names a data module that serves its layout; grey runs whole."""

import contextlib
import io
import pydoc

import layouts
import numpy as np
import pytest
import tiny
import yaml
from PIL import Image
from safetensors.numpy import load_file

from lit_purify.cli import main
from lit_purify.records.summary import read_summary

SIZES = {
    "cifar100": (3, 32, 32),
    "svhn": (3, 32, 32),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "tiny_imagenet": (3, 64, 64),
    "celeba_hq": (3, 256, 256),
}


def _written(name, folder, patch):
    """A layout on the disk, and the arguments that name it."""
    if name == "celeba_hq":
        source = layouts.celeba_hq(folder)
        (folder / "list_attr_celebahq.txt").write_text(layouts.attribute_list("csv"))
        return {"source": str(source)}
    if name == "tiny_imagenet":
        return {"source": str(layouts.tiny_imagenet(folder))}
    if name == "cifar100":
        layouts.cifar100(folder, patch)
    elif name == "svhn":
        layouts.svhn(folder, patch)
    else:
        layouts.mnist(folder, "MNIST" if name == "mnist" else "FashionMNIST")
    return {"root": str(folder)}


def test_all_are_tested():
    assert {path.stem for path in (tiny.CONFIGS / "data").glob("*.yaml")} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_it_serves_its_layout(name, tmp_path, monkeypatch):
    printed = io.StringIO()
    words = ["test", "--config", "cifar_fixed", "--config", f"data/{name}", "--print_config"]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main(words)
    given = yaml.safe_load(printed.getvalue())["data"]
    arguments = given["init_args"] | _written(name, tmp_path, monkeypatch)
    data = pydoc.locate(given["class_path"])(**arguments)
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape[1:] == data.image_shape == SIZES[name]
    assert batch["index"].tolist() == list(range(len(data.test_set)))


GREY = {
    "--trainer.accelerator": "cpu",
    "--model.purifier.denoiser": "layouts.grey_denoiser",
    "--model.purifier.t_star": "20",
    "--model.purifier.num_steps": "2",
    "--model.classifier": "layouts.grey_classifier",
}


def _run(command, folder, *more):
    words = [word for option in GREY.items() for word in option]
    assert main([command, *more, *words, "--trainer.default_root_dir", str(folder)]) == 0
    return tiny.run_folder(folder)


def test_grey_images_run_whole(tmp_path):
    (images, labels), _ = layouts.mnist(tmp_path)
    measures = ("images", "compression", "distances", "quality", "magnitude")
    folder = _run(
        *("test", tmp_path, "--config", "cifar_fixed", "--config", "data/mnist"),
        *(word for name in measures for word in (f"--measure.{name}", "{}")),
        *("--measure.quality.features", "classifier", "--attack.steps", "2"),
        *("--data.root", str(tmp_path), "--data.limit", "3", "--data.batch_size", "2"),
    )
    summary = read_summary(folder / "summary.json")
    assert summary["status"] == "finished"
    assert summary["settings"]["dataset"] == "MNIST"
    assert summary["class_names"] == list("0123456789")
    tensors = load_file(folder / "records" / "tensors.safetensors")
    assert tensors["label"].tolist() == labels[:3].tolist()
    assert np.array_equal(tensors["image/clean"], images[:3].transpose(0, 3, 1, 2))
    attacked = tensors["fixed/adversarial"] - tensors["image/clean"] / np.float32(255)
    assert 0 < np.abs(attacked).max() <= 8 / 255 + 1e-6
    assert (folder / "images_fixed.png").is_file()
    page = tmp_path / "report.html"
    assert main(["report", str(folder), "--html", str(page), "--output", str(tmp_path)]) == 0
    assert "MNIST" in page.read_text(encoding="utf-8")


def test_grey_images_are_purified(tmp_path):
    (images, _), _ = layouts.mnist(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    for k in range(2):
        Image.fromarray(images[k, ..., 0]).save(source / f"{k}.png")
    folder = _run(
        *("predict", tmp_path, "--config", "predict", "--data.source", str(source)),
        *("--data.image_shape", "[1,28,28]"),
    )
    with np.load(folder / "purified.npz") as purified:
        pixels = (purified["images"].clip(0, 1) * 255).round().astype(np.uint8)
    assert pixels.shape == (2, 28, 28, 1)
    with Image.open(folder / "purified" / "1.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), pixels[1, ..., 0])
