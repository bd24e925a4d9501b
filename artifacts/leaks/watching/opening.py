"""`open_source`: a source from its setting."""

from __future__ import annotations

from artifacts.leaks.watching.access_logs import AccessLogSource
from artifacts.leaks.watching.base import Source
from artifacts.leaks.watching.buckets import BucketsSource
from artifacts.leaks.watching.folder import FolderSource
from artifacts.leaks.watching.honey import HoneyedSource
from artifacts.leaks.watching.hub import HubSource
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.reports import SubmissionSource
from artifacts.leaks.watching.repositories import RepositoriesSource
from artifacts.leaks.watching.settings import (
    AccessLogWatch,
    BucketsWatch,
    FolderWatch,
    HubWatch,
    ReportsWatch,
    RepositoriesWatch,
    SourceSpec,
    UrlsWatch,
    read_spec,
)
from artifacts.leaks.watching.urls import UrlsSource


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
    opened = _open(setting, options)
    return HoneyedSource(opened, options.decoys) if options.decoys else opened


def _open(setting: SourceSpec, options: Options) -> Source:
    match setting:
        case HubWatch():
            return HubSource(setting, options)
        case RepositoriesWatch():
            return RepositoriesSource(setting, options)
        case UrlsWatch():
            return UrlsSource(setting, options)
        case BucketsWatch():
            return BucketsSource(setting, options)
        case AccessLogWatch():
            return AccessLogSource(setting, options)
        case FolderWatch():
            return FolderSource(setting, options)
        case ReportsWatch():
            return SubmissionSource(setting, options)
