"""What is gained from one run to the next, on the same pictures and by the same labels.

    python benchmarks/accuracy/gained.py runs/quick runs/best -o benchmarks/results/gained.json

Pictures are those that all runs have in their validation part (their ``predictions.csv``); the labels
are the last run's, which had them corrected.
"""

from __future__ import annotations

import argparse
from pathlib import Path

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
    given = parser.parse_args()
    tables = in_common([read_predictions(run).of_subset("validation") for run in given.runs])
    rows = {}
    for number, (run, table) in enumerate(zip(given.runs, tables, strict=True)):
        rows[run.name] = {"accuracy": proportion(table.right)}
        if number:
            found = compare(tables[number - 1], table).overall
            rows[run.name]["over the one before"] = {
                "difference": found.difference,
                "interval": found.interval,
                "p": float(f"{found.p_value:.3g}"),
            }
    write_json(given.output, {"pictures": len(tables[-1].samples), "runs": rows})
    print(given.output.read_text())


def in_common(tables: list[PredictionsTable]) -> list[PredictionsTable]:
    """Give the rows of the pictures that all tables hold, with the last one's labels."""
    places = [
        {(sample.archive, sample.file): row for row, sample in enumerate(table.samples)}
        for table in tables
    ]
    keys = [key for key in places[-1] if all(key in known for known in places)]
    samples = tables[-1].pick([places[-1][key] for key in keys]).samples
    return [
        PredictionsTable(
            samples, ["validation"] * len(keys), table.p_male[np.array([known[k] for k in keys])]
        )
        for table, known in zip(tables, places, strict=True)
    ]


if __name__ == "__main__":
    main()
