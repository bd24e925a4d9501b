"""What the leak worker is made of: its sources from their file, its keys, its limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine
from temporalio.client import Client

from activities.leaks.activity import HANDED_IN, LeakActivities, LeakParts, evidence_in
from activities.leaks.judging import Judging
from activities.leaks.parents import Parents
from activities.leaks.polling import Polling, ReportQueue
from activities.leaks.references import References
from activities.leaks.sampling import Sampling, trace_limits
from activities.leaks.schedules import Schedules
from activities.leaks.sealed_files import SealedFiles
from activities.leaks.sending import ReleaseCommands
from activities.leaks.telling import Telling
from artifacts.leaks import (
    AddressPolicy,
    HubOptions,
    ObjectProfile,
    ObjectProfiles,
    ObjectStoreOptions,
    ScanLimits,
)
from artifacts.leaks.watching import Options, Source, SourceError, open_source
from infra.parts import StoreOpener, records_engine, verdict_cipher
from infra.provision import monitor_keys, read_custody_public
from infra.settings import InvalidSettingError, Settings, read_secret

_KIND_OF = {"reports": "reports", "outside-monitors": "monitors", "torrents": "torrents"}


@dataclass(frozen=True)
class LeakWorker:
    """The parts that its root runs."""

    engine: Engine
    polling: Polling
    schedules: Schedules
    activities: Sequence[Callable[..., Any]]


def read_sources(settings: Settings, engine: Engine) -> dict[str, Source]:
    """The sources of the settings' file, and those that read what is handed in.

    Raises:
        InvalidSettingError: the file, or one of its sources, cannot be used.
    """
    specs: list[dict[str, Any]] = []
    decoys: dict[str, str] = {}
    path = settings.leak_sources_file
    if path is not None:
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InvalidSettingError(f"SLUICE_LEAK_SOURCES_FILE: {path}: {error}") from None
        document = document if isinstance(document, dict) else {}
        specs = document.get("sources", [])
        if not isinstance(specs, list) or not all(isinstance(spec, dict) for spec in specs):
            raise InvalidSettingError(f"SLUICE_LEAK_SOURCES_FILE: {path}: expected `sources:` with a list")
        decoys = document.get("decoys") or {}
        if not isinstance(decoys, dict) or not all(
            isinstance(v, str) for pair in decoys.items() for v in pair
        ):
            raise InvalidSettingError(
                f"SLUICE_LEAK_SOURCES_FILE: {path}: expected `decoys:` with digests or addresses and their names"
            )
    named = {str(spec.get("name")) for spec in specs}
    specs += [{"kind": _KIND_OF[name], "name": name} for name in HANDED_IN if name not in named]
    options = Options(
        addresses=AddressPolicy(allow=settings.leak_allow_addresses),
        hub=hub_options(settings),
        profiles=object_profiles(settings),
        decoys=decoys,
        submissions={
            str(spec.get("queue") or spec.get("name")): ReportQueue(
                engine, str(spec.get("queue") or spec.get("name")), settings.data_dir / "monitor" / "torrents"
            )
            for spec in specs
        },
    )
    found: dict[str, Source] = {}
    for spec in specs:
        try:
            source = open_source(spec, options)
        except SourceError as error:
            raise InvalidSettingError(f"SLUICE_LEAK_SOURCES_FILE: {error.message}") from None
        if source.name in found:
            raise InvalidSettingError(f"SLUICE_LEAK_SOURCES_FILE: two sources are named {source.name}")
        found[source.name] = source
    return found


class _Profile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")
    buckets: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]], Field(min_length=1)
    ]
    access_key: str = Field(min_length=1)
    secret_key: str = Field(min_length=1)
    session_token: str | None = None
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/@?#]+/?$")
    region: str | None = None


class _Profiles(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    profiles: list[_Profile]


def object_profiles(settings: Settings) -> ObjectProfiles:
    """Credentials for reading named buckets, from their secret file; without one every bucket is asked as anybody could.

    Raises:
        InvalidSettingError: the file cannot be used; the text never says what is in it.
    """
    path = settings.leak_s3_profiles_file
    if path is None:
        return ObjectProfiles()
    where = f"SLUICE_LEAK_S3_PROFILES_FILE: {path}"
    try:
        read = _Profiles.model_validate(yaml.safe_load(read_secret(path, "leak_s3_profiles_file")))
    except yaml.YAMLError:
        raise InvalidSettingError(f"{where}: is not YAML") from None
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise InvalidSettingError(f"{where}: {told}") from None
    names = [name for profile in read.profiles for name in profile.buckets]
    places = [(name, profile.endpoint) for profile in read.profiles for name in profile.buckets]
    if len(set(places)) != len(places):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidSettingError(f"{where}: two profiles are for {', '.join(twice)}")
    return ObjectProfiles(
        tuple(
            ObjectProfile(
                profile.name,
                frozenset(profile.buckets),
                ObjectStoreOptions(
                    endpoint=profile.endpoint,
                    region=profile.region,
                    access_key=profile.access_key,
                    secret_key=profile.secret_key,
                    session_token=profile.session_token,
                ),
            )
            for profile in read.profiles
        )
    )


def hub_options(settings: Settings) -> HubOptions:
    """How the Hub is reached."""
    token = (
        None if settings.hub_token_file is None else read_secret(settings.hub_token_file, "hub_token_file")
    )
    if settings.hub_endpoint_url:
        return HubOptions(endpoint=settings.hub_endpoint_url, token=token)
    return HubOptions(token=token)


def leak_worker(settings: Settings, client: Client) -> LeakWorker:
    """Build the leak worker."""
    engine = records_engine(settings)
    keys, cipher = monitor_keys(settings), verdict_cipher(settings)
    sources = read_sources(settings, engine)
    polling = Polling(engine, sources, every=timedelta(seconds=settings.leak_poll_seconds))
    judging = Judging(
        engine,
        keys,
        References(engine, keys),
        cipher,
        limits=ScanLimits(max_bytes=settings.leak_scan_bytes, max_seconds=settings.leak_scan_seconds),
        addresses=AddressPolicy(allow=settings.leak_allow_addresses),
        hub=hub_options(settings),
        objects=object_profiles(settings),
        local=frozenset(name for name, source in sources.items() if source.kind == "folder"),
    )
    parts = LeakParts(
        polling=polling,
        judging=judging,
        parents=Parents(engine, keys, StoreOpener(settings)),
        sealed=SealedFiles(engine, keys, StoreOpener(settings)),
        telling=Telling(engine, ReleaseCommands(client), evidence_in(engine, cipher)),
        sampling=Sampling(
            judging,
            StoreOpener(settings),
            settings.effective_store_uri,
            lambda: read_custody_public(settings.effective_custody_public_file).recipient,
            trace_limits(settings.leak_trace_bytes, settings.leak_trace_seconds),
        ),
        lookback=timedelta(hours=settings.leak_lookback_hours),
        references=settings.leak_reference_dir,
    )
    schedules = Schedules(
        engine,
        client,
        every=timedelta(seconds=settings.leak_sweep_seconds),
        at_once=max(1, settings.leaks_activities // 2),
    )
    return LeakWorker(engine, polling, schedules, LeakActivities(parts).all)
