"""What a run left in its folder, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from lit_purify.records import SampleTable, read_summary
from lit_purify.records.store import read_merged


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
    def table(self) -> SampleTable:
        return read_merged(self.records, self.header["run"])

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
    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """What TensorBoard shows of it: the points of every curve, by its name."""
        events = EventAccumulator(str(self.folder), size_guidance={"scalars": 0})
        events.Reload()
        return {
            name: [(event.step, event.value) for event in events.Scalars(name)]
            for name in events.Tags()["scalars"]
            if events.Scalars(name)  # no point is left of one that a resumed run does not have
        }

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
