"""Two metrics on one of two processes, for a test that starts both.

Spawned processes import what they run by its name. A test module's own name begins with ``tests``,
a package that others install too (RobustBench does); this one's is found in this folder.
"""

import torch
from torch import distributed

from lit_purify.metrics import IntervalAccuracy, MeanWithDeviation

CORRECT = torch.tensor([True, False, True, True, False, True, True])
VALUES = torch.tensor([0.5, 1.0, float("nan"), 2.0, 4.0, 0.25, float("nan")])


def measure(rank: int, store: str, out: str) -> None:
    """Measure the first six samples or the last, and save what the metrics say on this rank."""
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    accuracy, mean = IntervalAccuracy(), MeanWithDeviation()
    accuracy.update(CORRECT[:6] if rank == 0 else CORRECT[6:])
    mean.update(VALUES[:6] if rank == 0 else VALUES[6:])
    result = [accuracy.compute().item(), mean.compute().item()]
    torch.save([*result, accuracy.summary(), mean.summary()], f"{out}/{rank}.pt")
    distributed.destroy_process_group()
