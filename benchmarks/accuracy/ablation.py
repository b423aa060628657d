"""Accuracy gained from one run to the next, on the same images and labels.

    python -m benchmarks.accuracy.ablation runs/quick runs/best \
        -o benchmarks/results/ablation.json

Measured are the images that all runs have in their validation subset (their ``predictions.csv``);
the labels are those of the last run, which had corrections.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from facegender.files import write_json
from facegender.training.evaluation.compare import compare
from facegender.training.evaluation.metrics import proportion
from facegender.training.evaluation.predictions_table import PredictionsTable, read_predictions


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    tables = common_rows([read_predictions(run).of_subset("validation") for run in options.runs])
    rows: dict[str, dict[str, Any]] = {}
    for number, (run, table) in enumerate(zip(options.runs, tables, strict=True)):
        rows[run.name] = {"accuracy": proportion(table.correct).to_dict()}
        if number:
            found = compare(tables[number - 1], table).overall
            rows[run.name]["over the previous"] = {
                "difference": found.difference,
                "interval": found.interval,
                "p_value": float(f"{found.p_value:.3g}"),
            }
    write_json(options.output, {"images": len(tables[-1].samples), "runs": rows})
    print(options.output.read_text())


def common_rows(tables: list[PredictionsTable]) -> list[PredictionsTable]:
    """Return the rows of the images that all tables have, with the last table's labels."""
    row_of = [
        {(sample.archive, sample.file): row for row, sample in enumerate(table.samples)}
        for table in tables
    ]
    keys = [key for key in row_of[-1] if all(key in known for known in row_of)]
    samples = tables[-1].pick([row_of[-1][key] for key in keys]).samples
    return [
        PredictionsTable(
            samples, ["validation"] * len(keys), table.p_male[np.array([known[k] for k in keys])]
        )
        for table, known in zip(tables, row_of, strict=True)
    ]


if __name__ == "__main__":
    main()
