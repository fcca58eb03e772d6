"""A program that evaluates twice on two processes; each writes what it was given."""

import json
import sys
from pathlib import Path

import tiny
import torch

import lit_purify
from lit_purify.callbacks import DistanceTrajectories

if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    found = []
    for seed in (0, 1):
        result = lit_purify.evaluate(
            lit_purify.Defence(tiny.classifier(), tiny.NoisyPurifier()),
            tiny.images_and_labels(5),
            attack=lit_purify.PGD(eps="1/255", steps=1),
            measurements=[DistanceTrajectories(levels=["8/255"])],
            batch_size=2,
            seed=seed,
            root=root,
            progress=False,
            trainer={"accelerator": "cpu", "devices": 2, "strategy": "ddp"},
        )
        values = {name: metric["value"] for name, metric in result.metrics.items()}
        found.append(
            {
                "n": len(result.rows),
                "metrics": values,
                "rows": result.rows,
                "figures": sorted(result.figures),
                "in": str(result.folder),
            }
        )
    rank = torch.distributed.get_rank()
    (root / f"rank_{rank}.json").write_text(json.dumps(found))
