import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_purify.report import read_summary, versions, write_summary


def summary(**metrics: Any) -> dict[str, Any]:
    return {"status": "finished", "versions": {}, "settings": {}, "metrics": metrics}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "summary.json"
    write_summary(path, summary(a={"value": 0.1, "n": 3}))
    assert read_summary(path) == summary(a={"value": 0.1, "n": 3})
    write_summary(path, summary())
    assert read_summary(path)["metrics"] == {}
    assert [file.name for file in path.parent.iterdir()] == ["summary.json"]


def test_values_become_strict_json(tmp_path: Path) -> None:
    values = {
        "nan": math.nan,
        "inf": [math.inf, 1.0],
        "tensor": torch.tensor(0.5),
        "nan_tensor": torch.tensor([math.nan, 1.0]),
        "numpy": np.int64(3),
        "path": Path("a/b"),
        "flag": True,
    }
    write_summary(tmp_path / "s.json", summary(**values))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "s.json").read_text()
    assert json.loads(text, parse_constant=refuse)["metrics"] == {
        "nan": None,
        "inf": [None, 1.0],
        "tensor": 0.5,
        "nan_tensor": [None, 1.0],
        "numpy": 3,
        "path": "a/b",
        "flag": True,
    }


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.json"
    write_summary(path, summary(a=1))
    with pytest.raises(TypeError):
        write_summary(path, summary(a=object()))

    def crash(*_: object) -> None:
        raise OSError("disk")

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="disk"):
        write_summary(path, summary(a=2))
    assert read_summary(path)["metrics"] == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_missing_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks versions, settings"):
        write_summary(tmp_path / "s.json", {"status": "finished", "metrics": {}})


def test_versions() -> None:
    assert {"python", "torch", "lightning", "numpy"} <= set(versions())
