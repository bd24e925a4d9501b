"""Logs: structlog for our own lines, the standard library's routed into the same ones; JSON lines on stderr.

Every line carries what `bound(...)` put on the context: release, step, request. The last processor before the renderer is a net for
secrets: it blanks values by the name of their key and by their shape. It is the second net; the first is not to log them.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger

REDACTED = "[redacted]"

_SECRET_KEYS = re.compile(
    r"(?i)(^|_|-)(token|secret|password|passphrase|authorization|cookie|private_?key|api_?key|secret_?key|identity_key|root_?key|"
    r"file_?key|kek|share)s?$"
)
_SECRET_SHAPES = re.compile(
    r"AGE-SECRET-KEY-[A-Z0-9-]+"  # age identities, classical and post-quantum
    r"|slt_[A-Za-z0-9_\-.]{4,}"  # our API tokens
    r"|hf_[A-Za-z0-9]{16,}"  # Hugging Face tokens
    r"|\b(?:hvs|hvb|s|b)\.[A-Za-z0-9_-]{20,}"  # OpenBao and Vault tokens
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS key ids
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]+"
    r"|(?<=[?&]X-Amz-Signature=)[0-9a-fA-F]+|(?<=[?&]X-Amz-Security-Token=)[^&\s\"']+|(?<=[?&]X-Amz-Credential=)[^&\s\"']+"
    r"|(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)",  # user:password in a URL
    re.DOTALL,
)


def redact(value: Any, *, depth: int = 8) -> Any:
    """The value with everything blanked that looks like a secret; containers are copied, other objects are shown as text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _SECRET_SHAPES.sub(REDACTED, value)
    if depth == 0:
        return REDACTED
    if isinstance(value, Mapping):
        return {
            str(key): REDACTED
            if _SECRET_KEYS.search(str(key)) and item is not None
            else redact(item, depth=depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth=depth - 1) for item in value]
    return _SECRET_SHAPES.sub(
        REDACTED, value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    )


def bound(**context: str | None) -> AbstractContextManager[Any]:
    """Put release, step or request on every line that is logged inside the `with`; None values are left out."""
    return structlog.contextvars.bound_contextvars(**{k: v for k, v in context.items() if v is not None})


def named_workflow(workflow_id: str) -> dict[str, str]:
    """A workflow's id as logs say it: `release:x` is release x."""
    kind, separator, name = workflow_id.partition(":")
    if separator and kind in {"release", "ingest"}:
        return {kind: name}
    return {"workflow": workflow_id} if workflow_id else {}


def configure_logging(
    *,
    level: str = "info",
    style: Literal["auto", "json", "console"] = "auto",
    dev: bool = False,
    process: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Set up structlog and the standard library's logging for this process; calling it again replaces the earlier set-up.

    Args:
        level: Least level that is logged.
        style: `console` for people, `json` for machines, `auto` for console in dev mode on a terminal.
        dev: Whether this is dev mode.
        process: Name of the process, on every line.
        stream: Where to; stderr by default.
    """
    stream = stream or sys.stderr
    console = style == "console" or (style == "auto" and dev and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _trace,
    ]
    renderer: structlog.typing.Processor = (
        # the default traceback of the console shows local variables, and with them what must not be shown
        structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback, colors=stream.isatty()
        )
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _temporal_context],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _ProcessName(process),
                _redact_event,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    for name in (
        "botocore",
        "boto3",
        "urllib3",
        "httpx",
        "httpcore",
        "hpack",
        "huggingface_hub",
        "alembic.runtime",
    ):
        # at debug these print whole requests, presigned addresses and headers among them
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The trace and span that a line belongs to, when there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace", f"{context.trace_id:032x}")
        event.setdefault("span", f"{context.span_id:016x}")
    return event


class _ProcessName:
    """Puts the process's name on each line."""

    def __init__(self, process: str | None) -> None:
        self._process = process

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if self._process:
            event.setdefault("process", self._process)
        return event


def _temporal_context(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Lines of `workflow.logger` and `activity.logger` say their release: the workflow's id."""
    record = event.get("_record")
    for attribute in ("temporal_workflow", "temporal_activity"):
        details = getattr(record, attribute, None)
        if isinstance(details, Mapping):
            for name, value in named_workflow(str(details.get("workflow_id", ""))).items():
                event.setdefault(name, value)
            for key, name in (("activity_type", "activity"), ("update_name", "command")):
                if details.get(key):
                    event.setdefault(name, details[key])
            if details.get("update_id"):
                event.setdefault("request", details["update_id"])
    return event


def _redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    clean: EventDict = redact(event)
    return clean
