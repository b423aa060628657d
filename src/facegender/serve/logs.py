"""A server's log: one JSON object a line, on stderr. Never a picture, its name, or its answer."""

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
            values |= _where(record.exc_info[1])
        return json.dumps(values)


def set_up(*, quiet: bool = False) -> None:
    """Send the server's log, and what libraries remark, to stderr.

    Args:
        quiet: only what went wrong.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.captureWarnings(True)
    logging.getLogger().handlers[:] = [handler]  # what no library's own logger takes
    # it remarks on bytes of a client's body, which belong in no log; the client is told
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    for name in (LOGGER.name, "uvicorn.error", "asyncio", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        # uvicorn's own remarks on how it starts and ends say nothing that ours do not
        is_ours = logger is LOGGER and not quiet
        logger.setLevel(logging.INFO if is_ours else logging.WARNING)


def say(event: str, **values: Any) -> None:
    """Log an event."""
    LOGGER.info(event, extra={"values": values})


def say_error(event: str, error: BaseException, **values: Any) -> None:
    """Log what went wrong by its kind and the line that raised it; its text may name a picture."""
    LOGGER.error(event, extra={"values": values | _where(error)})


def _where(error: BaseException) -> dict[str, str]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    at = "" if place is None else f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
    return {"error": type(error).__name__, "at": at}
