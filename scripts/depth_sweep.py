"""Compression and robustness over kinds of purification and depths t* (Fig. 3b, Table 7).

    python scripts/depth_sweep.py [--limit 200] [--presets ddpm reverse ddim] [--t_star 50 100 200]
    python scripts/depth_sweep.py --protocols base fixed        # attacked; hours without a GPU
    python scripts/depth_sweep.py --num_steps 0                 # every step of the chain

Each point is one `python -m lit_purify test` run in a folder of its own. A point that is finished
is not measured again, one that was interrupted goes on. What follows `--` goes to every run, such
as `-- --trainer.accelerator cpu`. At the end `python -m lit_purify report` compares the runs.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from lit_purify.cli import main as lit_purify


class Tee(io.StringIO):
    """Prints, and remembers what was printed."""

    def __init__(self) -> None:
        super().__init__()
        self.target = sys.stdout

    def write(self, text: str) -> int:
        self.target.write(text)
        return super().write(text)


def measure(preset: str, t_star: int, args: argparse.Namespace) -> str:
    """Run one point, or what is missing of it; the run folder."""
    steps = min(args.num_steps or t_star, t_star)
    root = args.root / f"{preset}_t{t_star}_n{steps}"
    command = [
        "test",
        "--config=cifar_fixed",
        f"--config=purifier/{preset}",
        "--config=measure/compression",
        *(["--measure.magnitude={}"] if args.protocols else []),
        f"--model.purifier.t_star={t_star}",
        f"--model.purifier.num_steps={steps}",
        f"--model.protocols=[{','.join(args.protocols)}]",
        f"--data.limit={args.limit}",
        f"--trainer.default_root_dir={root}",
        "--resume=auto",
        *args.options,
    ]
    tee = Tee()
    with redirect_stdout(tee):
        status = lit_purify(command)
    if status:
        raise SystemExit(status)
    return tee.getvalue().strip().splitlines()[-1]  # a run ends with the name of its folder


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every point and report; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["ddpm", "reverse", "ddim"])
    parser.add_argument("--t_star", type=int, nargs="+", default=[10, 20, 50, 100, 150, 200])
    parser.add_argument("--num_steps", type=int, default=10, help="of the chain; 0 takes every one")
    parser.add_argument("--protocols", nargs="*", default=[], help="how to attack, such as fixed")
    parser.add_argument("--limit", type=int, default=200, help="images")
    parser.add_argument("--root", type=Path, default=Path("lightning_logs/depth_sweep"))
    parser.add_argument("options", nargs="*", help="options of every run, behind --")
    args = parser.parse_args(argv)
    runs = [measure(preset, t, args) for preset in args.presets for t in args.t_star]
    return lit_purify(["report", *runs, "--output", str(args.root / "report")])


if __name__ == "__main__":
    sys.exit(main())
