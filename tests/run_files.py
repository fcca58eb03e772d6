"""What a run left in its folder, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from lit_purify.records import read_summary


@dataclass(frozen=True)
class RunFiles:
    """The files of a run, as they are when they are asked for.

    Attributes:
        folder: the run folder.
    """

    folder: Path

    @property
    def records(self) -> Path:
        """The folder of the records."""
        return self.folder / "records"

    @property
    def merged(self) -> dict[str, bytes]:
        """The files of a finished run that do not depend on its processes and sessions."""
        names = ("rows.jsonl", "tensors.safetensors")
        return {name: (self.records / name).read_bytes() for name in names}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One per image."""
        return [json.loads(line) for line in (self.records / "rows.jsonl").open()]

    @property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.records / "tensors.safetensors")

    @property
    def header(self) -> dict[str, Any]:
        return json.loads((self.records / "header.json").read_text())

    @property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.folder / "summary.json")

    @property
    def batches(self) -> list[int]:
        """The first index of every batch that is recorded and not merged."""
        return sorted(int(path.stem[-8:]) for path in self.records.glob("batch_*.safetensors"))

    @property
    def everything(self) -> dict[str, bytes]:
        """Every file but locks and those of TensorBoard, which adds one for every session."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and "tfevents" not in path.name and path.suffix != ".lock"
        }


def files_of(printed: str) -> RunFiles:
    """What a finished run left in the folder that its last line names."""
    return RunFiles(Path(printed.splitlines()[-1]))
