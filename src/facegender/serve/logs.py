"""The server log: one JSON object per line on stderr, without images, file names, predictions."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("facegender.serve")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        values |= getattr(record, "values", {})
        if record.exc_info and record.exc_info[1] is not None:
            values |= _describe(record.exc_info[1])
        return json.dumps(values)


def configure(*, quiet: bool = False) -> None:
    """Send the server log and the warnings of libraries to stderr.

    Args:
        quiet: log warnings and errors only.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.captureWarnings(True)
    logging.getLogger().handlers[:] = [handler]
    # Its warnings quote bytes of the request body; the client gets a problem instead
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    for name in (LOGGER.name, "uvicorn.error", "asyncio", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        # uvicorn's own lines about start and end repeat ours
        is_verbose = logger is LOGGER and not quiet
        logger.setLevel(logging.INFO if is_verbose else logging.WARNING)


def log_event(event: str, **values: Any) -> None:
    """Log an event with its values."""
    LOGGER.info(event, extra={"values": values})


def log_error(event: str, error: BaseException, **values: Any) -> None:
    """Log the type of an error and the line that raised it; its text may quote a file name."""
    LOGGER.error(event, extra={"values": values | _describe(error)})


def _describe(error: BaseException) -> dict[str, str]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    line = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return {"error": type(error).__name__, "at": line}
