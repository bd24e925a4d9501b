"""The processes of the service: `python -m infra.run api|worker-releases|worker-transfer|worker-custody|worker-leaks|worker-notices|migrate`.

Each is a composition root: it builds the settings, checks that this role may start with them, sets up logging, builds its parts (in
`infra.roots`, one function a role), and runs until SIGTERM or SIGINT; then it finishes what it began within `SLUICE_SHUTDOWN_SECONDS`.

Exit codes: 0 ended as asked · 2 the settings don't allow a start · 3 something it needs isn't there · 4 told to end, it did not in
time · 1 anything else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import structlog

from artifacts.errors import KeyProviderError
from infra.codec import CodecError
from infra.logs import configure_logging
from infra.roots import ROOTS
from infra.settings import Role, Settings, SettingsError, load_settings
from infra.telemetry.tracing import start_tracing
from infra.temporal import TemporalError
from orchestrator.domain.errors import SluiceError

log = structlog.get_logger("run")

#: How much longer than `SLUICE_SHUTDOWN_SECONDS` a process takes at most; less than whoever started it waits before it kills.
_LATE_S = 4.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one role until it is told to end; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.run", description="Run one process of the service."
    )
    parser.add_argument("role", choices=[role.value for role in ROOTS])
    parser.add_argument("--dev", action="store_true", default=None, help="allow what is insecure, and say so")
    asked = parser.parse_args(arguments)
    role = Role(asked.role)
    try:
        settings = load_settings(dev=asked.dev).for_role(role)
    except SettingsError as error:
        print(f"{role.value} can't start with these settings:\n{error}", file=sys.stderr)
        return 2
    configure_logging(
        level=settings.log_level, style=settings.log_format, dev=settings.dev, process=role.value
    )
    if settings.dev:
        log.warning("dev mode: insecure settings are allowed; never with weights that matter")
    try:
        asyncio.run(_until_told(settings, role))
    except (TemporalError, CodecError, SettingsError, KeyProviderError, ConnectionError) as error:
        log.error("can't run", reason=str(error))  # noqa: TRY400 - the reason says it all
        return 3
    except SluiceError as error:
        log.error("can't run", reason=error.detail)  # noqa: TRY400 - the same
        return 3
    return 0


async def _until_told(settings: Settings, role: Role) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        stop.set()
        late = threading.Timer(settings.shutdown_seconds + _LATE_S, _too_late)
        late.daemon = True
        late.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    tracing = start_tracing(settings, role.value)
    try:
        await ROOTS[role](settings, stop)
    finally:
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
    log.info("ended")


def _too_late() -> None:
    """End all the same: the SDK waits for what it retries, such as events for records that are away. Whoever takes over does it."""
    log.error("did not end in time; what was begun is taken up by another process")
    leave(4)


def leave(code: int) -> NoReturn:
    """End this process with that code, without tearing the interpreter down: the SDK's threads can abort one that is."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
