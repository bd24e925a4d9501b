"""`open_source`: a source from its setting."""

from __future__ import annotations

from artifacts.leaks.watching.base import Source, SourceError, Trouble
from artifacts.leaks.watching.hub import HubSource
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.reports import SubmissionSource
from artifacts.leaks.watching.settings import HubWatch, ReportsWatch, SourceSpec, read_spec


def open_source(spec: SourceSpec | dict[str, object], options: Options | None = None) -> Source:
    """A source as its setting says. Nothing is asked of anybody yet.

    Args:
        spec: the setting, or plain data of it.
        options: what the service gives to its sources.

    Raises:
        SourceError: (`Trouble.SETTING`) the setting cannot be used.
    """
    setting = read_spec(spec) if isinstance(spec, dict) else spec
    options = options or Options()
    match setting:
        case HubWatch():
            return HubSource(setting, options)
        case ReportsWatch():
            return SubmissionSource(setting, options)
        case _:
            raise SourceError(f"{setting.name}: {setting.kind} is not watched yet", Trouble.SETTING)
