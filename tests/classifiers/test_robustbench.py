"""RobustBench's networks: the same logits as its own load_model gives, and nothing else loaded."""

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import requests
import torch
from torch import Tensor, nn
from weights_files import Code

from lit_purify.classifiers import Classifier, robustbench_classifier, robustbench_names
from lit_purify.classifiers.embedded import CLASS_NAMES
from lit_purify.classifiers.robustbench_import import import_robustbench
from lit_purify.types import InputError
from lit_purify.weights.content import sha256

State = dict[str, Tensor]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Removed after the test; pytest keeps its own, and these files are large."""
    with TemporaryDirectory() as name:
        yield Path(name)


def build(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with random weights and statistics, which no other seed has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = make().eval()
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return network


def zoo(name: str, dataset: str = "cifar10", threat_model: str = "Linf") -> nn.Module:
    enums = import_robustbench("robustbench.model_zoo.enums")
    dicts = import_robustbench("robustbench.model_zoo").model_dicts
    entries = dicts[enums.BenchmarkDataset(dataset)][enums.ThreatModel(threat_model)]
    return build(entries[name]["model"])


def save(content: Any, folder: Path, name: str, dataset: str = "cifar10") -> Path:
    """A file where RobustBench looks for it."""
    path = folder / dataset / "Linf" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def theirs(name: str, folder: Path, dataset: str = "cifar10") -> nn.Module:
    """RobustBench's own loading."""
    load_model = import_robustbench("robustbench.utils").load_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision's old arguments
        return load_model(name, model_dir=folder, dataset=dataset, threat_model="Linf")


def random_states() -> tuple[Any, ...]:
    """Of every global generator."""
    numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
    return torch.get_rng_state().tolist(), numpy, random.getstate()


def assert_same(ours: Classifier, *others: nn.Module) -> None:
    images = torch.rand(1, *ours.image_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = ours(images)
        assert torch.isfinite(logits).all()
        assert logits.std() > 0
        for other in others:
            assert torch.equal(other(images), logits)


def test_standard_from_a_file_in_robustbench_layout(folder):
    network = zoo("Standard")
    state = network.state_dict()
    assert len(state) == 155
    path = save(state, folder, "Standard.pt")
    before = random_states()
    classifier = robustbench_classifier(model_dir=str(folder))
    assert random_states() == before
    assert sum(p.numel() for p in classifier.parameters()) == 36_479_194
    assert not any(p.requires_grad for p in classifier.parameters())
    assert not any(module.training for module in classifier.modules())
    assert classifier.source == "RobustBench cifar10/Linf/Standard"
    assert classifier.file == path
    assert (classifier.num_classes, classifier.image_shape) == (10, (3, 32, 32))
    assert classifier.class_names == CLASS_NAMES
    assert classifier.preprocessing is None
    assert_same(classifier, theirs("Standard", folder), network)


PUBLISHED = {
    "Standard": lambda s: {"state_dict": {f"module.{key}": s[key] for key in s}, "epoch": 200},
    "Wong2020Fast": lambda s: {key: s[key] for key in s if key not in ("mu", "sigma")},
    "Andriushchenko2020Understanding": lambda s: {"last": s, "best": {}},
}
"""Files as they were published: prefixed, without constants, with two states of a training."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_are_read_as_robustbench_reads_them(folder, name):
    network = zoo(name)
    save(PUBLISHED[name](network.state_dict()), folder, f"{name}.pt")
    classifier = robustbench_classifier(name=name, model_dir=str(folder))
    assert_same(classifier, theirs(name, folder), network)


def test_constants_that_are_weights_may_not_be_missing(folder):
    """Modas2021PRIMEResNet18 was published with its own."""
    name = "Modas2021PRIMEResNet18"
    state = zoo(name, threat_model="corruptions").state_dict()
    del state["mu"]
    path = save(state, folder, "any.pt")
    with pytest.raises(InputError, match=r'does not hold the weights.*"mu"'):
        robustbench_classifier(name=name, threat_model="corruptions", file=str(path))


def test_an_ensemble_has_several_files(folder):
    name = "Chen2020Adversarial"
    network = zoo(name)
    parts = [
        save({"state_dict": part.state_dict()}, folder, f"{name}.pt_m{i}.pt")
        for i, part in enumerate(network.models)
    ]
    classifier = robustbench_classifier(name=name, file=str(folder / f"cifar10/Linf/{name}.pt"))
    assert_same(classifier, theirs(name, folder), network)
    assert classifier.file is None
    for part in parts:
        assert f"{part.name} SHA-256 {sha256(part)[:12]}" in classifier.source


def test_a_network_that_robustbench_leaves_to_timm(folder, monkeypatch):
    import_robustbench()
    import timm

    name, hub_name = "Debenedetti2022Light_XCiT-S12", "debenedetti2022light-xcit-s-cifar10-linf"
    timm_name = "debenedetti2022light_xcit_s12_cifar10_linf"
    network = build(lambda: timm.create_model(timm_name, num_classes=10))
    path = folder / "checkpoints" / f"{hub_name}.pth.tar"
    path.parent.mkdir()
    torch.save({"model": network.model.state_dict()}, path)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(folder))
    classifier = robustbench_classifier(name=name, file=str(path))
    assert_same(classifier, theirs(name, folder), network)
    assert "state_dict" not in classifier.module.model.pretrained_cfg


def test_standard_r50_is_torchvisions(folder, monkeypatch):
    from torchvision.models import resnet50

    network = build(resnet50)
    hub = folder / "checkpoints" / "resnet50-0676ba61.pth"
    hub.parent.mkdir()
    torch.save(network.state_dict(), hub)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(folder))
    before = random_states()
    classifier = robustbench_classifier(name="Standard_R50", dataset="imagenet", file=str(hub))
    assert random_states() == before
    assert_same(classifier, theirs("Standard_R50", folder, "imagenet"))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert torch.equal(classifier(images), network((images - mean) / std))
    assert classifier.source == "RobustBench imagenet/Linf/Standard_R50"
    assert classifier.file == hub
    assert (classifier.num_classes, classifier.image_shape) == (1000, (3, 224, 224))
    assert classifier.preprocessing == "Res256Crop224"
    assert classifier.class_names[388] == "giant panda"

    # These random weights are not torchvision's, and unlike torchvision we look.
    with pytest.raises(InputError, match="resnet50-0676ba61"):
        robustbench_classifier(name="Standard_R50", dataset="imagenet")

    # An entry of the same architecture that wants larger images.
    wong = robustbench_classifier(name="Wong2020Fast", dataset="imagenet", file=str(hub))
    assert (wong.preprocessing, wong.image_shape) == ("Crop288", (3, 288, 288))


def test_a_larger_network_does_not_pass_for_a_smaller(folder):
    """A ResNet-34 has all the tensors of a ResNet-18, which is enough for RobustBench."""
    from torchvision.models import resnet34

    name = "Salman2020Do_R18"
    path = save(build(resnet34).state_dict(), folder, f"{name}.pt", "imagenet")
    theirs(name, folder, "imagenet")
    with pytest.raises(InputError, match=r"holds 96 more, such as 'model\.layer1\.2"):
        robustbench_classifier(name=name, dataset="imagenet", file=str(path))


def test_files_that_are_refused(folder, monkeypatch):
    monkeypatch.delattr(requests, "get")  # nothing is downloaded in place of a named file
    made, path = folder / "made", folder / "Standard.pt"

    def refusal() -> str:
        with pytest.raises(InputError) as caught:
            robustbench_classifier(name="Rice2020Overfitting", threat_model="L2", file=str(path))
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        return message

    assert "no weights file" in refusal()
    torch.save({"state_dict": {"a": Code(made)}}, path)
    assert "could run code" in refusal()
    assert not made.exists()
    for other in (torch.zeros(3), {"best": {}}, {"state_dict": 3}, [1, 2], {"a": 3}):
        torch.save(other, path)
        assert "does not hold the weights" in refusal()

    # The network against the other threat model.
    network = zoo("Andriushchenko2020Understanding")
    torch.save({"state_dict": network.state_dict()}, path)
    assert "does not hold the weights of RobustBench's 'Rice2020Overfitting'" in refusal()


def test_a_missing_file_is_fetched_once(folder, monkeypatch):
    name = "Rice2020Overfitting"
    network = zoo(name, threat_model="L2")
    monkeypatch.setenv("LIT_PURIFY_MIRROR", str(folder / "mirror"))
    sent = folder / "mirror/robustbench/cifar10/L2/Rice2020Overfitting.pt"
    sent.parent.mkdir(parents=True)
    torch.save(network.state_dict(), sent)
    for _ in range(2):
        classifier = robustbench_classifier(
            name=name, threat_model="L2", model_dir=str(folder / "models")
        )
        sent.unlink(missing_ok=True)
    assert_same(classifier, network)
    assert classifier.file == folder / "models/cifar10/L2/Rice2020Overfitting.pt"
    assert visible(classifier.file.parent) == [classifier.file]


def visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name[0] != "."]


@pytest.mark.parametrize("name", ["Wong2020Fast", "Debenedetti2022Light_XCiT-S12"])
def test_without_a_network_the_message_says_what_to_put_where(tmp_path, monkeypatch, name):
    addresses = []

    def get(url: str, **_: Any) -> None:
        addresses.append(url)
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "get", get)
    monkeypatch.setenv("LIT_PURIFY_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="no route to host") as caught:
        robustbench_classifier(name=name)
    message = str(caught.value)
    path = tmp_path / f"robustbench/cifar10/Linf/{name}.pt"
    assert repr(str(path)) in message
    assert "\n" not in message
    assert visible(path.parent) == []
    linf = import_robustbench("robustbench.model_zoo.cifar10").linf
    number, page = linf[name]["gdrive_id"], addresses[0]
    if number is not None:
        assert f"id={number}&" in page
        page = f"https://drive.google.com/file/d/{number}/view"
    else:
        assert page.endswith("debenedetti2022light-xcit-s-cifar10-linf.pth.tar")
    assert f"{page} in a browser" in message


def test_the_papers_classifier_is_that_of_the_command_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_PURIFY_CACHE", str(tmp_path))
    monkeypatch.setenv("LIT_PURIFY_MIRROR", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="robustbench_cifar10_standard could not be fetched"):
        robustbench_classifier(name="Standard")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "standart"}, r"did you mean Standard.*robustbench_names"),
        ({"name": "Wong2020"}, "did you mean Wong2020Fast"),
        ({"name": "Standard_R50"}, "no network 'Standard_R50' for cifar10 and Linf"),
        ({"dataset": "imagenet", "threat_model": "L2"}, "imagenet and Linf, imagenet and corr"),
        ({"dataset": "mnist"}, "expected cifar10 and"),
        *(({"threat_model": name}, "cifar10 and corruptions_3d") for name in ("L1", "Linf_3d")),
    ],
)
def test_names_that_the_zoo_does_not_have(arguments, message):
    with pytest.raises(InputError, match=message):
        robustbench_classifier(**arguments)


def test_names_are_those_of_robustbench():
    assert {"Standard", "Carmon2019Unlabeled"} <= set(robustbench_names())
    assert robustbench_names("imagenet", "corruptions_3d") == robustbench_names(
        "imagenet", "corruptions"
    )


def test_an_entry_that_needs_a_gpu_says_so(folder, monkeypatch):
    zoo_of_cifar10 = import_robustbench("robustbench.model_zoo.cifar10")

    def needs_gpu() -> nn.Module:
        raise RuntimeError("Found no NVIDIA driver on your system.\nMore advice.")

    monkeypatch.setitem(zoo_of_cifar10.linf["Wong2020Fast"], "model", needs_gpu)
    with pytest.raises(InputError, match=r"cannot be built .*Found no NVIDIA driver.*GPU"):
        robustbench_classifier(name="Wong2020Fast", file=str(folder / "w.pt"))


def test_robustbench_is_as_it_was():
    utils = import_robustbench("robustbench.utils")
    assert utils.torch is torch
    assert utils.os is os
    assert utils.timm.__name__ == "timm"
    assert utils._safe_load_state_dict.__module__ == "robustbench.utils"
    zoo_of_imagenet = import_robustbench("robustbench.model_zoo.imagenet")
    assert zoo_of_imagenet.pt_models.__name__ == "torchvision.models"


PROGRAM = """
import sys
from lit_purify.cli import main
import lit_purify.classifiers
try:
    main(["--help"])
except SystemExit:
    pass
slow = {"robustbench", "timm", "gdown", "pooch", "pandas", "efficientnet_lite_pytorch"}
assert not slow & set(sys.modules), slow & set(sys.modules)

real = {name: name in sys.modules for name in ("pkg_resources", "autoattack", "autoattack.state")}
from lit_purify.classifiers.robustbench_import import import_robustbench
assert import_robustbench().load_model
assert {name: name in sys.modules for name in real} == real
loaders = import_robustbench("robustbench.loaders")
path = loaders.pkg_resources.resource_filename(
    "robustbench.loaders", "helper_files/imagenet_test_image_ids.txt")
assert len(open(path).readlines()) == 5000
"""


def test_imports():
    """RobustBench is imported when it is needed, and its stand-ins are seen by it alone."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_without_robustbench(monkeypatch):
    monkeypatch.setitem(sys.modules, "robustbench.utils", None)
    with pytest.raises(InputError, match=r"pip install robustbench==1\.1\.1"):
        import_robustbench("robustbench.utils")
