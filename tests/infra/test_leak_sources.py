"""The file of leak sources: the one in the documentation works as it stands, and a wrong one says where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from artifacts.leaks import ObjectProfiles
from infra.leaks import object_profiles, read_sources
from infra.settings import InvalidSettingError, Settings
from orchestrator.records import database

DOCUMENTED = re.search(
    r"```yaml\n(sources:\n.*?)```",
    (Path(__file__).parents[2] / "docs" / "leaks.md").read_text("utf-8"),
    re.DOTALL,
)


def _read(tmp_path: Path, text: str) -> dict[str, object]:
    file = tmp_path / "sources.yaml"
    file.write_text(text)
    settings = Settings(data_dir=tmp_path, leak_sources_file=file)
    engine = database.connect(f"sqlite:///{tmp_path}/records.db")
    try:
        return dict(read_sources(settings, engine))
    finally:
        engine.dispose()


def test_the_documented_file_is_read(tmp_path: Path) -> None:
    assert DOCUMENTED is not None
    found = _read(tmp_path, DOCUMENTED[1])
    assert set(found) == {
        "hub", "ours", "mirrors", "staging", "staging-log", "drop", "reports", "outside-monitors", "torrents",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources: 5", "expected `sources:`"),
        ("sources: [{kind: hub}]", "name"),
        ("sources: [{kind: urls, name: a, urls: ['ftp://x']}]", "https://host/path"),
        ("decoys: [1]", "decoys"),
        ("sources: [{kind: hub, name: a}, {kind: hub, name: a}]", "two sources"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidSettingError, match=words):
        _read(tmp_path, text)


PROFILES = re.search(
    r"```yaml\n(profiles:\n.*?)```",
    (Path(__file__).parents[2] / "docs" / "leaks.md").read_text("utf-8"),
    re.DOTALL,
)


def _profiles(tmp_path: Path, text: str) -> ObjectProfiles:
    file = tmp_path / "profiles.yaml"
    file.write_text(text)
    return object_profiles(Settings(data_dir=tmp_path, leak_s3_profiles_file=file))


def test_the_documented_profiles_are_read_and_a_wrong_file_says_where_without_its_secrets(
    tmp_path: Path,
) -> None:
    assert PROFILES is not None
    found = _profiles(tmp_path, PROFILES[1])
    assert found.of("acme-logs").region == "eu-central-1"
    assert found.of("lab-models").endpoint == "https://minio.example.org"
    assert found.of("acme-logs", "https://minio.example.org").anonymous
    one = "{name: a, buckets: [acme-logs], access_key: canary, secret_key: canary}"
    for text, words in (
        ("profiles: [{name: a, buckets: ['*'], access_key: canary, secret_key: canary}]", "buckets"),
        ("profiles: [{name: a, buckets: [acme-logs], secret_key: canary}]", "access_key"),
        (f"profiles: [{one}, {one}]", "two profiles are for acme-logs"),
        ("canary: [", "YAML"),
        ("canary", "profiles.yaml"),
    ):
        with pytest.raises(InvalidSettingError, match=words) as told:
            _profiles(tmp_path, text)
        assert "canary" not in str(told.value)
