"""What a person sees while a network learns: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from facegender.training.evaluation.compare import Comparison, Difference
from facegender.training.loop.history import EpochMetrics
from facegender.training.loop.history import StepProgress as FitProgress

_LOG_SECONDS = 60.0
_SKIPS_SHOWN = 5


def verdict(one: Difference) -> str:
    """Say in a sentence whether a difference is real."""
    if not one.is_significant:
        return (
            f"No difference that {one.count:,} pictures can show: one as large as this comes by "
            f"chance with a probability of {one.p_value:.2g}."
        )
    better = "second" if one.difference > 0 else "first"
    return (
        f"The {better} is better: by {100 * abs(one.difference):.2f} points, which chance alone "
        f"gives with a probability of {one.p_value:.2g}."
    )


class Console:
    """Shows progress on standard error; on something that is no terminal, a line a minute."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._rich = RichConsole(stderr=True, quiet=quiet, highlight=False)
        self._bar: Progress | None = None
        self._began = self._logged = time.monotonic()
        self._first = 0
        self._epoch = -1
        self._skips: Counter[str] = Counter()

    def note(self, text: str) -> None:
        """Say one line."""
        self._rich.print(text, markup=False, soft_wrap=True)

    def skipped(self, name: str, reason: str) -> None:
        """Tell of the first few files that were passed over, and count the others."""
        self._skips[reason] += 1
        if sum(self._skips.values()) <= _SKIPS_SHOWN:
            self.note(f"  skipped: {name}: {reason}")

    @contextmanager
    def counting(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show how many pictures are done, how fast, and the time left where it is known."""
        began = logged = time.monotonic()
        with self._progress() as bar:
            task = bar.add_task(what, total=total, detail="")

            def count(done: int) -> None:
                nonlocal logged
                now = time.monotonic()
                detail = f"{done / max(now - began, 1e-9):,.0f} pictures/s"
                bar.update(task, completed=done, detail=detail)
                if not self._rich.is_terminal and now - logged > _LOG_SECONDS:
                    logged = now
                    self.note(f"{what}: {done:,} at {detail}")

            yield count
        more = sum(self._skips.values()) - _SKIPS_SHOWN
        if more > 0:
            self.note(f"  ... and {more:,} more skipped")
        self._skips.clear()

    def step(self, at: FitProgress) -> None:
        """Show one step of an epoch."""
        now = time.monotonic()
        if at.epoch != self._epoch:
            self._epoch, self._began, self._logged, self._first = at.epoch, now, now, at.done
            if self._bar is None and self._rich.is_terminal:
                self._bar = self._progress()
                self._bar.start()
                self._bar.add_task("epoch", detail="")
        rate = (at.done - self._first) / max(now - self._began, 1e-9)
        left = (at.total * (at.epochs - at.epoch) - at.done) / rate if rate else 0.0
        detail = (
            f"loss {at.loss:.3f}  accuracy {at.accuracy:.1%}  {rate:,.0f}/s  "
            f"{left / 60:.0f} min left in all"
        )
        name = f"epoch {at.epoch + 1}/{at.epochs}"
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.update(
                    task, description=name, total=at.total, completed=at.done, detail=detail
                )
        elif now - self._logged > _LOG_SECONDS:
            self._logged = now
            self.note(f"{name}: {at.done:,} of {at.total:,}  {detail}")

    def epoch(self, metrics: EpochMetrics) -> None:
        """Tell what an epoch gave."""
        self.close()
        self._epoch = -1
        self.note(
            f"epoch {metrics.epoch + 1}: loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.2%}"
            f"  validation loss {metrics.validation_loss:.4f}  validation accuracy "
            f"{metrics.validation_accuracy:.2%} of {metrics.validation_count:,}  "
            f"({metrics.images_per_second:,.0f} pictures/s)"
        )

    def metrics(self, subsets: Mapping[str, Mapping[str, Any]]) -> None:
        """Show what was measured on every part, on standard output: it is the answer."""
        out = RichConsole(highlight=False, markup=False)
        for subset, measured in subsets.items():
            names = ("pictures", "right", "accuracy", "95 % interval")
            columns = [Column(name, justify="right") for name in names]
            table = Table("group", *columns, title=f"{subset} part", title_justify="left")
            rows = {"all": measured["accuracy"]}
            rows |= {f"labelled {name}": share for name, share in measured["recall"].items()}
            for kind in ("sources", "ages", "races"):
                for name, group in measured.get(kind, {}).items():
                    rows[f"{kind[:-1]} {name}"] = group["accuracy"]
            for name, share in rows.items():
                low, high = share["interval"]
                table.add_row(
                    name,
                    f"{share['count']:,}",
                    f"{share['correct']:,}",
                    f"{share['share']:.2%}",
                    f"{low:.2%} to {high:.2%}",
                )
            out.print(table)
            line = f"balanced accuracy {measured['balanced_accuracy']:.2%}, "
            if "roc_auc" in measured:
                line += f"ROC AUC {measured['roc_auc']:.4f}, "
            out.print(
                f"{line}calibration error {measured['calibration_error']:.2%}, Brier score "
                f"{measured['brier']:.4f}"
            )
            for kind, gap in measured["disparities"].items():
                low, high = gap["interval"]
                out.print(
                    f"widest gap between {kind}: {100 * gap['gap']:.2f} points ({gap['best']} over "
                    f"{gap['worst']}; {100 * low:.2f} to {100 * high:.2f})"
                )
            for row in measured["coverage"]:
                if row["answered"] == 0.95:
                    out.print(
                        f"answering only the surest 95 % (--min-confidence {row['threshold']:.3f}): "
                        f"{row['accuracy']['share']:.2%} right"
                    )

    def robustness(self, result: Mapping[str, Any]) -> None:
        """Show how accuracy falls on worse pictures, on standard output."""
        out = RichConsole(highlight=False, markup=False)
        clean = result["clean"]
        out.print(f"{clean['count']:,} pictures as they are: {clean['share']:.2%}")
        for name, damage in result.items():
            if name != "clean":
                points = [
                    f"{point['at']:g}: {point['accuracy']['share']:.2%}"
                    for point in damage["points"]
                ]
                out.print(f"{name} ({damage['unit']}): " + ", ".join(points))

    def comparison(self, found: Comparison, first: str, second: str) -> None:
        """Show what a comparison gave and what it says, on standard output."""
        out = RichConsole(highlight=False, markup=False)
        names = (
            "pictures",
            "first",
            "second",
            "points",
            "95 % interval",
            "only\nfirst",
            "only\nsecond",
        )
        columns = [Column(name, justify="right", no_wrap=True) for name in (*names, "p")]
        group = Column("group", no_wrap=True)
        table = Table(group, *columns, box=None, padding=(0, 1, 0, 0))
        for one in (found.overall, *found.sources):
            low, high = one.interval
            table.add_row(
                one.name,
                f"{one.count:,}",
                f"{one.first:.2%}",
                f"{one.second:.2%}",
                f"{100 * one.difference:+.2f}",
                f"{100 * low:+.2f} {100 * high:+.2f}",
                f"{one.only_first:,}",
                f"{one.only_second:,}",
                f"{one.p_value:.2g}{'*' if one.is_significant else ' '}",
            )
        out.print(f"first: {first}\nsecond: {second}", soft_wrap=True)
        out.print(table)
        for count, why in (
            (found.only_in_first, "in the first table only"),
            (found.only_in_second, "in the second table only"),
            (found.learned, "learned from by one of the two"),
            (found.other_label, "labelled differently in the two tables"),
        ):
            if count:
                out.print(f"left out: {count:,} pictures {why}")
        out.print("* real: of all sources together, chance alone gives any in 5 % at most")
        out.print(verdict(found.overall), soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._rich,
            transient=True,
            disable=not self._rich.is_terminal,
        )
