"""`sluice rotate-kek`: a new version of the key-encryption key. On custody's machine, by its operator, beside a running custody."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from activities.custody.keys import rewrap_file
from activities.custody.opening import Custody
from infra.provision import opened_custody
from infra.settings import Role, Settings


def rotate_kek(settings: Settings, by: str, *, resume: bool) -> tuple[int, int]:
    """Rotate, wrap every root and custody's own keys anew, and log it; the version, and how many roots were wrapped anew.

    Args:
        settings: custody's.
        by: the operator, for the log.
        resume: go on with a rotation that was cut short, instead of making another version.

    Raises:
        KeyProviderError: the key service fails; nothing is lost, go on with `resume`.
        SettingsError: these settings are not custody's.
    """
    settings.for_role(Role.CUSTODY)
    with opened_custody(settings) as (engine, memory, provider, keys):
        custody = Custody(engine, memory, provider, keys, partial(datetime.now, UTC))
        done = custody.rotate(resume=resume, by=by)
        rewrap_file(settings.effective_custody_keys_file, provider)
        return done
