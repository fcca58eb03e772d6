import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_purify.records import read_summary, versions, write_summary
from lit_purify.records.summary import write_json


def summary(**metrics: Any) -> dict[str, Any]:
    return {"status": "finished", "versions": {}, "settings": {}, "metrics": metrics}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "summary.json"
    for metrics in ({"a": {"value": 0.1, "n": 3}}, {}):
        write_summary(path, summary(**metrics))
        assert read_summary(path) == summary(**metrics)
    assert [file.name for file in path.parent.iterdir()] == ["summary.json"]


def test_values_become_strict_json(tmp_path: Path) -> None:
    values = {
        "nan": (math.nan, None),
        "inf": ([math.inf, 1.0], [None, 1.0]),
        "tensor": (torch.tensor(0.5), 0.5),
        "nan_tensor": (torch.tensor([math.nan, 1.0]), [None, 1.0]),
        "numpy": (np.int64(3), 3),
        "path": (Path("a/b"), "a/b"),
        "flag": (True, True),
    }
    write_summary(
        tmp_path / "s.json", summary(**{name: given for name, (given, _) in values.items()})
    )
    found = json.loads((tmp_path / "s.json").read_text(), parse_constant=pytest.fail)["metrics"]
    assert found == {name: expected for name, (_, expected) in values.items()}


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    write_summary(path, summary(a=1))
    with pytest.raises(TypeError):
        write_summary(path, summary(a=object()))
    assert read_summary(path)["metrics"] == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_missing_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks versions, settings"):
        write_summary(tmp_path / "s.json", {"status": "finished", "metrics": {}})


def test_versions() -> None:
    assert {"python", "torch", "lightning", "numpy"} <= set(versions())


def test_any_content_becomes_strict_json(tmp_path: Path) -> None:
    write_json(tmp_path / "found.json", {"rounds": [(math.nan, 1.0)], "best": math.inf})
    found = json.loads((tmp_path / "found.json").read_text(), parse_constant=pytest.fail)
    assert found == {"rounds": [[None, 1.0]], "best": None}
