"""The paper's tables as they are printed, and what a run must have done to have a value of them.

Where the print is wrong, what stands here is put right, and the table's remark says so. Values are
text, so that their digits and their ± are the paper's.
"""

from __future__ import annotations

from lit_purify.paper.printed import Dataset, PrintedCell, PrintedRow, PrintedTable
from lit_purify.paper.values import PAPER_POINTS

ATTACKS = {"BPDA": "BPDA", "BPDA-EOT": "BPDAEOT", "PGD (full)": "PGD", "PGD-EOT": "PGDEOT"}
"""The paper's names of its attacks, and their classes."""
_PLACES = {"init": "before", "max": "at its largest", "end": "after"}
_NORMS = {"l2": "l2", "linf": "l_inf"}
_CHAIN = "The attacks are on the unfixed chain, which the print does not say."


def _split(line: str) -> list[str]:
    return [text.strip() for text in line.split("|")]


def _table_1() -> PrintedTable:
    metrics = {
        **{f"distance/{norm}_{place}": f"{word} {_PLACES[place]}"
           for norm, word in _NORMS.items() for place in ("init", "end")},
        **{f"quality/{name}_{when}": f"{name.upper()} {when}"
           for name in ("ssim", "fid") for when in ("before", "after")},
    }  # fmt: skip
    printed = {
        "DDPM": "1.077 | 3.641 | 0.031 | 0.316 | 0.965 | 0.796 | 0.226 | 0.120",
        "Reverse": "1.149 | 3.078 | 0.031 | 0.270 | 0.965 | 0.837 | 0.209 | 0.183",
        "DDIM": "1.080 | 2.810 | 0.031 | 0.242 | 0.964 | 0.869 | 0.234 | 0.104",
    }
    rows = tuple(
        PrintedRow(
            (method,),
            tuple(
                PrintedCell(text, metric, method, attack="PGD", surface="fresh")
                for text, metric in zip(_split(line), metrics, strict=True)
            ),
        )
        for method, line in printed.items()
    )
    title = "Distances before and after purification, CIFAR-10, PGD, l_inf 8/255"
    return PrintedTable("1", title, ("Sampling",), tuple(metrics.values()), rows, _CHAIN)


def _accuracy_table(
    number: str,
    title: str,
    name: str,
    attacks: tuple[str, str],
    printed: dict[str, str],
    dataset: Dataset,
    images: int,
) -> PrintedTable:
    """Table 2 or 3: clean and robust accuracy, noise fixed or not."""
    rows = []
    for fixed, line in printed.items():
        surface = {"yes": "fixed", "no": "fresh"}[fixed]
        attacked = [(f"{surface}/robust_accuracy", attack) for attack in attacks]
        cells = tuple(
            PrintedCell(text, metric, dataset=dataset, attack=attack, images=images, scale=100)
            for text, (metric, attack) in zip(
                _split(line), [("purified/clean_accuracy", None), *attacked], strict=True
            )
        )
        rows.append(PrintedRow((name, fixed), cells))
    words = {attack: word for word, attack in ATTACKS.items()}
    columns = (
        "clean accuracy (%)",
        *(f"{words[attack].removesuffix(' (full)')} (%)" for attack in attacks),
    )
    remark = (
        "Clean accuracy is that under one noise per image, which is one draw of the unfixed noise "
        "as well."
    )
    return PrintedTable(number, title, ("Model", "Fixed noise"), columns, tuple(rows), remark)


def _table_4() -> PrintedTable:
    metric = "transfer/robust_accuracy"
    rows = (
        PrintedRow(("CIFAR-10",), (PrintedCell("77.4 ± 0.36", metric, attack="PGD", scale=100),)),
        PrintedRow(
            ("ImageNet",),
            (
                PrintedCell(
                    *("66.3 ± 2.32", metric),
                    dataset="imagenet",
                    attack="BPDA",
                    images=200,
                    scale=100,
                ),
            ),
        ),
    )
    title = "Transfer attack across fixed noises"
    return PrintedTable("4", title, ("Data set",), ("PGD / BPDA (%)",), rows)


def _table_5() -> PrintedTable:
    printed = {
        "PGD (fixed) and PGD (fixed)": ("0.0818 ± 0.0709", "agreement/perturbation"),
        "PGD-EOT and PGD (fixed)": ("0.1682 ± 0.0976", "agreement/perturbation_eot"),
    }
    rows = tuple(
        PrintedRow((name,), (PrintedCell(text, metric, attack="PGD"),))
        for name, (text, metric) in printed.items()
    )
    title = "Correlations between attacks, CIFAR-10"
    return PrintedTable("5", title, ("Attacks",), ("correlation",), rows)


def _table_6() -> PrintedTable:
    printed = {
        "DDPM": "0.798 ± 0.124 | 0.989 ± 0.201 | 0.231 ± 0.046 | 23.7",
        "Reverse": "0.738 ± 0.106 | 0.864 ± 0.151 | 0.195 ± 0.046 | 34.9",
        "DDIM": "0.717 ± 0.119 | 0.815 ± 0.140 | 0.281 ± 0.048 | 10.9",
    }
    rows = []
    for method, line in printed.items():
        robust, nonrobust, uniform, accuracy = _split(line)
        stood, rate = round(10 * float(accuracy)), "attack/compression_rate"
        cells = (
            PrintedCell(robust, f"{rate}_robust", method, attack="PGD", images=stood),
            PrintedCell(nonrobust, f"{rate}_nonrobust", method, attack="PGD", images=1000 - stood),
            PrintedCell(uniform, "uniform/compression_rate", method),
            PrintedCell(accuracy, "fixed/robust_accuracy", method, attack="PGD", scale=100),
        )
        rows.append(PrintedRow((method,), cells))
    columns = (
        *("compression, PGD (robust)", "compression, PGD (non-robust)"),
        *("compression, uniform", "PGD, fixed noise (%)"),
    )
    title = "Compression rates and adversarial robustness, CIFAR-10"
    return PrintedTable("6", title, ("Sampling",), columns, tuple(rows))


def _table_7() -> PrintedTable:
    rows = tuple(
        PrintedRow(
            (point.method, str(point.t_star)),
            (
                PrintedCell(
                    f"{point.rate:.3f}", "uniform/compression_rate", point.method, point.t_star
                ),
                PrintedCell(
                    f"{100 * point.accuracy:.1f}",
                    "fixed/robust_accuracy",
                    *(point.method, point.t_star),
                    attack="PGD",
                    scale=100,
                ),
            ),
        )
        for point in PAPER_POINTS
        if "7" in point.table
    )
    title = "The effect of the diffusion depth, CIFAR-10"
    return PrintedTable(
        "7", title, ("Model", "t*"), ("compression, uniform", "PGD, fixed noise (%)"), rows
    )


_S2 = {
    ("l2", "BPDA"): "3.537 ± 0.079 | 61.116 ± 0.738 | 17.712 ± 4.851",
    ("l2", "BPDA-EOT"): "3.772 ± 0.139 | 61.078 ± 0.762 | 17.694 ± 4.838",
    ("linf", "BPDA"): "0.016 ± 0.000 | 0.832 ± 0.059 | 0.422 ± 0.077",
    ("linf", "BPDA-EOT"): "0.016 ± 0.000 | 0.839 ± 0.060 | 0.418 ± 0.084",
}
_S3 = {
    "BPDA": "1.027 ± 0.023 | 8.976 ± 0.118 | 3.606 ± 0.607",
    "BPDA-EOT": "1.072 ± 0.046 | 8.992 ± 0.116 | 3.607 ± 0.615",
    "PGD (full)": "1.077 ± 0.040 | 8.980 ± 0.118 | 3.646 ± 0.614",
    "PGD-EOT": "1.188 ± 0.072 | 8.999 ± 0.115 | 3.695 ± 0.617",
    "uniform 8/255": "1.004 ± 0.009 | 8.979 ± 0.113 | 3.598 ± 0.618",
    "uniform 32/255": "4.015 ± 0.034 | 9.699 ± 0.124 | 3.823 ± 0.640",
    "uniform 64/255": "8.030 ± 0.065 | 11.715 ± 0.145 | 5.258 ± 0.714",
    "uniform 128/255": "16.051 ± 0.129 | 17.622 ± 0.184 | 9.307 ± 0.581",
}
_S4 = {
    "BPDA": "0.031 ± 0.000 | 0.601 ± 0.051 | 0.313 ± 0.053",
    "BPDA-EOT": "0.031 ± 0.000 | 0.603 ± 0.051 | 0.316 ± 0.053",
    "PGD (full)": "0.031 ± 0.000 | 0.606 ± 0.050 | 0.317 ± 0.055",
    "PGD-EOT": "0.031 ± 0.000 | 0.606 ± 0.050 | 0.319 ± 0.053",
    "uniform 8/255": "0.031 ± 0.000 | 0.605 ± 0.050 | 0.314 ± 0.052",
    "uniform 32/255": "0.125 ± 0.000 | 0.647 ± 0.054 | 0.330 ± 0.055",
    "uniform 64/255": "0.251 ± 0.000 | 0.735 ± 0.052 | 0.425 ± 0.059",
    "uniform 128/255": "0.502 ± 0.000 | 0.941 ± 0.057 | 0.623 ± 0.054",
}


def _distance_row(
    labels: tuple[str, ...],
    norm: str,
    line: str,
    dataset: Dataset = "cifar10",
    images: int = 1000,
) -> PrintedRow:
    attack = ATTACKS.get(labels[-1])
    level = labels[-1].removeprefix("uniform ").removesuffix("/255")
    of = "distance" if attack else f"distance_uniform_{level}"
    cells = tuple(
        PrintedCell(
            *(text, f"{of}/{norm}_{place}"),
            dataset=dataset,
            attack=attack,
            surface="fresh" if attack else None,
            images=images,
        )
        for text, place in zip(_split(line), _PLACES, strict=True)
    )
    return PrintedRow(labels, cells)


def _distance_tables() -> tuple[PrintedTable, ...]:
    columns = tuple(_PLACES.values())
    remark = f"{_CHAIN} The rows printed as uniform 16, 32 and 128 / 255 are of 32, 64 and 128."
    rows = tuple(
        _distance_row((_NORMS[norm], attack), norm, line, "imagenet", 200)
        for (norm, attack), line in _S2.items()
    )
    title = "distances to the clean image"
    return (
        PrintedTable(
            *("S2", f"l2 and l_inf {title}, ImageNet, l_inf 4/255", ("Norm", "Attack"), columns),
            *(rows, _CHAIN),
        ),
        *(
            PrintedTable(
                number,
                f"{_NORMS[norm]} {title}, CIFAR-10, l_inf 8/255",
                ("Perturbation",),
                columns,
                tuple(_distance_row((name,), norm, line) for name, line in printed.items()),
                remark,
            )
            for number, norm, printed in (("S3", "l2", _S3), ("S4", "linf", _S4))
        ),
    )


def _one_row(
    number: str, title: str, printed: dict[str, tuple[str, str]], remark: str = "", **of: float
) -> PrintedTable:
    """A table of one row, from heading -> (text, metric)."""
    cells = tuple(PrintedCell(text, metric, **of) for text, metric in printed.values())  # type: ignore[arg-type]
    return PrintedTable(number, title, (), tuple(printed), (PrintedRow((), cells),), remark)


PRINTED_TABLES: tuple[PrintedTable, ...] = (
    _table_1(),
    _accuracy_table(
        "2",
        "Robustness without stochasticity, CIFAR-10, l_inf 8/255, t* = 100",
        "DDPM",
        ("PGD", "PGDEOT"),
        {"no": "86.0 ± 0.8 | 71.9 ± 0.2 | 59.3", "yes": "85.8 ± 0.4 | 23.7 ± 0.7 |"},
        "cifar10",
        1000,
    ),
    _accuracy_table(
        "3",
        "Robustness without stochasticity, ImageNet, l_inf 4/255, t* = 150",
        "Guided",
        ("BPDA", "BPDAEOT"),
        {"no": "67.2 ± 2.4 | 63.7 ± 1.2 | 59.0", "yes": "68.5 ± 0.8 | 29.5 ± 0.4 |"},
        "imagenet",
        200,
    ),
    _table_4(),
    _table_5(),
    _table_6(),
    _table_7(),
    *_distance_tables(),
    _one_row(
        "S5",
        "Variances and SNR in purification, in 1/1000, CIFAR-10",
        {
            "total": ("3.597 ± 0.877", "variance/total"),
            "input": ("0.020 ± 0.005", "variance/input"),
            "internal": ("3.578 ± 0.873", "variance/internal"),
            "SNR": ("5.926 ± 1.065", "variance/snr"),
        },
        images=50,
        scale=1000,
    ),
    _one_row(
        "S6",
        "l2 distances to the centroid, CIFAR-10",
        {
            "inputs": ("1.004 ± 0.001", "centroid/l2_inputs"),
            "fixed noise": ("0.241 ± 0.032", "centroid/l2_fixed_noise"),
            "fixed input": ("3.282 ± 0.453", "centroid/l2_fixed_input"),
            "both vary": ("3.288 ± 0.453", "centroid/l2_both"),
        },
        "The headings of the two columns in the middle are swapped in print.",
        images=50,
    ),
    _one_row(
        "Fig. 2",
        "Mean cosine of purification directions, CIFAR-10",
        {
            "fixed input": ("0.22 ± 0.003", "direction/fixed_input"),
            "fixed noise": ("0.93 ± 0.0002", "direction/fixed_noise"),
        },
        images=1,  # the ± is that of the mean
    ),
    _one_row(
        "Fig. 3a",
        "Singular values of the Jacobian, CIFAR-10",
        {
            "below 0.25 (%)": ("over 90", "jacobian/share_below_0.25"),
            "above 1 (%)": ("1.3", "jacobian/share_above_1"),
        },
        images=50,
        scale=100,
    ),
)
"""Tables 1 to 7 and S2 to S6, and the values of Figs. 2 and 3a that no table has."""
