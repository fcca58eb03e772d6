"""Clean accuracy of the shipped models behind every kind of purification, as a Markdown table.

    python scripts/shipped_figures.py [--limit 1000] [--root FOLDER]

Each row is one `python -m lit_purify test` run without attacks; its folder stays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lit_purify.cli import main as lit_purify

CONFIGS = Path(__file__).parent.parent / "configs"
SETTINGS = [
    ("ddpm", 100, 10),
    ("ddpm", 100, 20),
    ("ddpm", 50, 10),
    ("reverse", 100, 10),
    ("reverse", 50, 10),
    ("ddim", 100, 10),
    ("ddim", 50, 10),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=1000, help="images")
    parser.add_argument("--root", type=Path, default=Path("lightning_logs/shipped_figures"))
    args = parser.parse_args()
    rows = []
    for preset, t_star, num_steps in SETTINGS:
        root = args.root / f"{preset}_t{t_star}_n{num_steps}"
        status = lit_purify(
            [
                "test",
                f"--config={CONFIGS / 'cifar_fixed.yaml'}",
                f"--config={CONFIGS / 'purifier' / f'{preset}.yaml'}",
                f"--model.purifier.t_star={t_star}",
                f"--model.purifier.num_steps={num_steps}",
                "--model.protocols=[]",
                f"--data.limit={args.limit}",
                f"--trainer.default_root_dir={root}",
            ]
        )
        if status:
            raise SystemExit(status)
        newest = max(root.glob("lightning_logs/*/summary.json"), key=lambda p: p.stat().st_mtime)
        metrics = json.loads(newest.read_text(encoding="utf-8"))["metrics"]
        clean, rate = metrics["purified/clean_accuracy"], metrics["uniform/compression_rate"]
        rows.append(
            f"| {preset} | {t_star} | {num_steps} | {100 * clean['value']:.1f} % "
            f"({100 * clean['low']:.1f} to {100 * clean['high']:.1f}) | {rate['value']:.3f} |"
        )
    print("\n| preset | t* | steps | purified clean accuracy | uniform compression rate |")
    print("|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
