"""What the API is given of leak monitoring: the keys of stored verdicts, the monitor's public half, outside monitors' secrets."""

from __future__ import annotations

from typing import Any

from standardwebhooks import Webhook

from artifacts.leaks import AddressPolicy
from infra.parts import verdict_cipher
from infra.provision import read_monitor_public
from infra.settings import InvalidSettingError, Settings, read_secret


def leak_parts_of_the_api(settings: Settings) -> dict[str, Any]:
    """Fields of `orchestrator.api.deps.Deps`.

    Raises:
        InvalidSettingError: a file cannot be used.
    """

    def monitor_key() -> tuple[str, str] | None:
        known = read_monitor_public(settings.effective_monitor_public_file)
        return None if known is None else (known.recipient, known.verdict_key)

    policy = AddressPolicy(allow=settings.leak_allow_addresses)

    def allowed(host: str, port: int) -> bool:
        try:
            return policy.permits(host.strip("[]"), port)
        except ValueError:  # a name: what it resolves to is judged when it is asked
            return False

    return {
        "allowed_address": allowed,
        "verdicts": verdict_cipher(settings),
        "monitor_key": monitor_key,
        "outside_monitors": outside_monitors(settings),
    }


def outside_monitors(settings: Settings) -> dict[str, str]:
    """Name → secret of each outside monitor.

    Raises:
        InvalidSettingError: a line is not `name=whsec_…`; the line's number is told, not its text.
    """
    file = settings.outside_monitors_file
    if file is None:
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(read_secret(file, "outside_monitors_file").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, secret = (part.strip() for part in line.partition("="))
        try:
            Webhook(secret)
        except (ValueError, RuntimeError):
            secret = ""
        if not name or not secret.startswith("whsec_") or name in found:
            raise InvalidSettingError(
                f"SLUICE_OUTSIDE_MONITORS_FILE: {file}: line {number} is not `name=whsec_…`, or names one twice"
            )
        found[name] = secret
    return found
