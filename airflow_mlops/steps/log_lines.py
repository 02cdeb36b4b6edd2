"""Log records through a pipe, one JSON object a line: written by the step's process, read by the one that follows it.

A pipe of its own keeps records apart from what libraries and the team's code print, half lines included.
"""

from __future__ import annotations

import json
import logging
import os
import re

#: A message longer than this keeps its beginning and its end. JSON needs at most 6 bytes for a character, so that a
#: line stays below :data:`MAX_LINE_BYTES`.
MAX_MESSAGE = 10_000
MAX_LINE_BYTES = 65_536

_LEVELS = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
#: What libraries with handlers of their own print, such as ``2026/01/31 09:30:00 WARNING mlflow.models: ...``.
_PRINTED = re.compile(r"^\d{4}[-/]\d\d[-/]\d\d[ T][\d:.,]+ (?:\[\w+\] )?(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_NAME = re.compile(r"^[\w.\-]{1,200}$")

output = logging.getLogger("airflow_mlops.steps.output")


class JsonLines(logging.Formatter):
    """Writes a log record, its traceback included, as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        text = logging.Formatter.format(self, record)
        line = {"level": record.levelname, "name": record.name[:200], "message": shortened(text)}
        return json.dumps(line, ensure_ascii=False)


def shortened(text: str) -> str:
    """Return ``text``, without its middle where it is very long."""
    if len(text) <= MAX_MESSAGE:
        return text
    half = MAX_MESSAGE // 2 - 50
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def log_to(descriptor: int) -> None:
    """Send this process's log records from INFO up, and its warnings, to ``descriptor``, which children do not get."""
    os.set_inheritable(descriptor, False)
    # What is no character at all (half of one, say) becomes the escape that JSON has for it.
    stream = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)


def relay_record(line: str) -> None:
    """Log here what :class:`JsonLines` wrote there, under the same name and at the same level."""
    try:
        written = json.loads(line)
        level, name, message = _LEVELS[written["level"]], written["name"], written["message"]
    except (ValueError, TypeError, KeyError):
        relay_print(line)  # two processes wrote at once, or the level is somebody's own: the words still count
        return
    logger = logging.getLogger(name) if isinstance(name, str) and _NAME.match(name) else output
    logger.log(level, "%s", message)


def relay_print(line: str) -> None:
    """Log a printed line, at INFO unless it is a library's own log line that says otherwise."""
    found = _PRINTED.match(line)
    output.log(_LEVELS[found[1]] if found else logging.INFO, "%s", line)
