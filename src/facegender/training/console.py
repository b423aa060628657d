"""Progress and results of training and evaluation: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from facegender.training.evaluation.compare import Comparison
from facegender.training.evaluation.metrics import Metrics
from facegender.training.evaluation.robustness import Robustness
from facegender.training.loop.history import EpochMetrics, StepProgress

_LOG_SECONDS = 60.0
_SKIPS_SHOWN = 5


class _TimeLeft(TimeRemainingColumn):
    """The time left; empty until it is known."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        return Text() if task.time_remaining is None else super().render(task)


class Console:
    """Shows progress on standard error: bars on a terminal, otherwise one line per minute.

    Results are printed to standard output.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Create a console; a quiet one shows no progress."""
        self._rich = RichConsole(stderr=True, quiet=quiet, highlight=False)
        self._bar: Progress | None = None
        self._started = self._logged = time.monotonic()
        self._first = 0
        self._epoch = -1
        self._skips: Counter[str] = Counter()

    def note(self, text: str) -> None:
        """Print one line."""
        self._rich.print(text, markup=False, soft_wrap=True)

    def skipped(self, name: str, reason: str) -> None:
        """Print the first few files that were skipped, and count the others."""
        self._skips[reason] += 1
        if sum(self._skips.values()) <= _SKIPS_SHOWN:
            self.note(f"  skipped: {name}: {reason}")

    @contextmanager
    def counting(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show the number of images done, their rate, and the time left if the total is known."""
        started = logged = time.monotonic()
        with self._progress() as bar:
            task = bar.add_task(what, total=total, detail="")

            def count(done: int) -> None:
                nonlocal logged
                now = time.monotonic()
                detail = f"{done / max(now - started, 1e-9):,.0f} images/s"
                bar.update(task, completed=done, detail=detail)
                if not self._rich.is_terminal and now - logged > _LOG_SECONDS:
                    logged = now
                    self.note(f"{what}: {done:,} at {detail}")

            yield count
        more = sum(self._skips.values()) - _SKIPS_SHOWN
        if more > 0:
            self.note(f"  ... and {more:,} more skipped")
        self._skips.clear()

    def step(self, at: StepProgress) -> None:
        """Show the progress of an epoch after a step."""
        now = time.monotonic()
        if at.epoch != self._epoch:
            self._epoch, self._started, self._logged, self._first = at.epoch, now, now, at.done
            if self._bar is None and self._rich.is_terminal:
                self._bar = self._progress()
                self._bar.start()
                self._bar.add_task("epoch", detail="")
        rate = (at.done - self._first) / max(now - self._started, 1e-9)
        detail = f"loss {at.loss:.3f}  accuracy {at.accuracy:.1%}"
        if rate:  # not known at the first step of an epoch
            left = (at.total * (at.epochs - at.epoch) - at.done) / rate
            detail += f"  {rate:,.{0 if rate >= 10 else 1}f} images/s  {left / 60:.0f} min left"
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
        """Print the metrics of an epoch."""
        self.close()
        self._epoch = -1
        self.note(
            f"epoch {metrics.epoch + 1}: loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.2%}"
            f"  validation loss {metrics.validation_loss:.4f}  validation accuracy "
            f"{metrics.validation_accuracy:.2%} of {metrics.validation_count:,}  "
            f"({metrics.images_per_second:,.0f} images/s)"
        )

    def metrics(self, subsets: Mapping[str, Metrics]) -> None:
        """Print the metrics of every subset to standard output."""
        out = RichConsole(highlight=False, markup=False)
        for subset, metrics in subsets.items():
            names = ("images", "correct", "accuracy", "95% interval")
            columns = [Column(name, justify="right") for name in names]
            table = Table("group", *columns, title=f"{subset} subset", title_justify="left")
            rows = {"all": metrics.accuracy}
            rows |= {f"label {name}": one for name, one in metrics.recall.items()}
            for kind, groups in metrics.groups.items():
                for name, group in groups.items():
                    rows[f"{kind.removesuffix('s')} {name}"] = group.accuracy
            for name, one in rows.items():
                low, high = one.interval
                table.add_row(
                    name,
                    f"{one.count:,}",
                    f"{one.correct:,}",
                    f"{one.value:.2%}",
                    f"{low:.2%} to {high:.2%}",
                )
            out.print(table)
            line = f"balanced accuracy {metrics.balanced_accuracy:.2%}, "
            if metrics.ranking:
                line += f"ROC AUC {metrics.ranking.roc_auc:.4f}, "
            out.print(
                f"{line}calibration error {metrics.calibration_error:.2%}, Brier score "
                f"{metrics.brier:.4f}"
            )
            for kind, gap in metrics.disparities.items():
                low, high = gap.interval
                out.print(
                    f"widest gap between {kind}: {100 * gap.value:.2f} points ({gap.best} over "
                    f"{gap.worst}; {100 * low:.2f} to {100 * high:.2f})"
                )
            for row in metrics.coverage:
                if row.answered == 0.95:
                    out.print(
                        "accuracy of the most confident 95% (--min-confidence "
                        f"{row.threshold:.3f}): {row.accuracy.value:.2%}"
                    )

    def robustness(self, result: Robustness) -> None:
        """Print the accuracy under every corruption to standard output."""
        out = RichConsole(highlight=False, markup=False)
        out.print(f"{result.clean.count:,} images without corruption: {result.clean.value:.2%}")
        for curve in result.curves:
            points = [f"{point.strength:g}: {point.accuracy.value:.2%}" for point in curve.points]
            out.print(f"{curve.name} ({curve.unit}): " + ", ".join(points))

    def comparison(self, found: Comparison, first: str, second: str) -> None:
        """Print a comparison and its verdict to standard output."""
        out = RichConsole(highlight=False, markup=False)
        names = (
            "images",
            "first",
            "second",
            "points",
            "95% interval",
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
            (found.trained_on, "that one of the two was trained on"),
            (found.other_label, "labeled differently in the two tables"),
        ):
            if count:
                out.print(f"left out: {count:,} images {why}")
        out.print("* significant at 5%; for sources with Holm's correction")
        out.print(found.overall.verdict(), soft_wrap=True)

    def close(self) -> None:
        """Remove the progress bar."""
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
            _TimeLeft(),
            console=self._rich,
            transient=True,
            disable=not self._rich.is_terminal,
        )
