import os

import pytest
from pydantic import ValidationError

from infra import settings_docs
from infra.settings import (
    CLIENT_VARIABLES,
    CUSTODY_ONLY,
    InsecureSettingError,
    InvalidSettingError,
    Role,
    Settings,
    UnknownSettingError,
    load_settings,
    read_secret,
)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith("SLUICE_"):
            monkeypatch.delenv(name)


def production(tmp_path, **more):
    keys = tmp_path / "codec.keys"
    keys.write_text("x")
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse")
    values = {
        "data_dir": tmp_path,
        "codec_keys_file": keys,
        "document_keys_file": keys,
        "verdict_keys_file": keys,
        "webhook_keys_file": keys,
        "keyring_passphrase_file": passphrase,
    }
    return Settings(**(values | more))


def test_a_misspelt_variable_is_an_error_that_names_it_and_the_nearest_setting(monkeypatch):
    monkeypatch.setenv("SLUICE_API_PROT", "80")
    with pytest.raises(UnknownSettingError, match=r"SLUICE_API_PROT is not a setting.*SLUICE_API_PORT"):
        load_settings()


def test_every_unknown_variable_is_named_at_once(monkeypatch):
    monkeypatch.setenv("SLUICE_API_PROT", "80")
    monkeypatch.setenv("SLUICE_TEMPORAL_ADRESS", "x:1")
    with pytest.raises(UnknownSettingError) as caught:
        load_settings()
    assert "SLUICE_API_PROT" in str(caught.value)
    assert "SLUICE_TEMPORAL_ADDRESS" in str(caught.value)


def test_a_secret_given_as_a_variable_is_an_error_that_points_to_the_file_setting(monkeypatch):
    monkeypatch.setenv("SLUICE_OPENBAO_TOKEN", "hvs.canary")
    with pytest.raises(UnknownSettingError, match="SLUICE_OPENBAO_TOKEN_FILE") as caught:
        load_settings()
    assert "canary" not in str(caught.value)


def test_variables_of_the_client_are_no_error(monkeypatch):
    for name in CLIENT_VARIABLES:
        monkeypatch.setenv(name, "x")
    load_settings()


def test_arguments_win_over_variables(monkeypatch):
    monkeypatch.setenv("SLUICE_API_PORT", "1234")
    assert load_settings().api_port == 1234
    assert load_settings(api_port=4321).api_port == 4321


def test_settings_cannot_be_changed_once_built():
    with pytest.raises(ValidationError):
        Settings().api_port = 1


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("API_PORT", "eighty", "SLUICE_API_PORT: Input should be a valid integer"),
        ("API_PORT", "70000", "SLUICE_API_PORT: Input should be less than or equal to 65535"),
        ("TEMPORAL_ADDRESS", "localhost", "SLUICE_TEMPORAL_ADDRESS: 'localhost' is not host:port"),
        ("DATABASE_URL", "mysql://h/db", "SLUICE_DATABASE_URL: the scheme is 'mysql'"),
        ("STORE_URI", "ftp://h", "SLUICE_STORE_URI: 'ftp://h' is none of"),
        ("API_TRUSTED_PROXIES", "10.0.0.0/8", "could not be read"),
        ("API_TRUSTED_PROXIES", '["0.0.0.0/0"]', "trusts the whole internet"),
        ("WEBHOOK_ALLOW", '["inside.example"]', "no network, address, or address:port"),
        ("KEY_PROVIDER", "openbao", "needs SLUICE_OPENBAO_ADDRESS"),
        ("KEY_PROVIDER", "aws-kms", "needs SLUICE_AWS_KMS_KEY_ID"),
        ("TEMPORAL_TLS_CERT_FILE", "/c.pem", "go together"),
    ],
)
def test_a_malformed_value_is_an_error_that_says_what_and_where(monkeypatch, name, value, reason):
    monkeypatch.setenv(f"SLUICE_{name}", value)
    with pytest.raises(InvalidSettingError) as caught:
        load_settings()
    assert reason in str(caught.value)


def test_a_password_in_the_database_url_is_refused_and_not_repeated(monkeypatch):
    monkeypatch.setenv("SLUICE_DATABASE_URL", "postgresql+psycopg://sluice:canary@db/sluice")
    with pytest.raises(InvalidSettingError, match="SLUICE_DATABASE_PASSWORD_FILE") as caught:
        load_settings()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("role", list(Role))
def test_safe_settings_start_every_role(tmp_path, role):
    settings = production(tmp_path)
    if role not in {Role.CUSTODY, Role.STACK}:
        settings = production(tmp_path, keyring_passphrase_file=None)
    assert settings.for_role(role) is settings


@pytest.mark.parametrize(
    ("role", "change", "reason"),
    [
        (Role.API, {"codec_keys_file": None}, "payloads in Temporal would be in clear"),
        (Role.API, {"document_keys_file": None}, "evidence texts in the database would be in clear"),
        (Role.LEAKS, {"verdict_keys_file": None}, "verdicts in the database would name our tensors"),
        (Role.NOTICES, {"webhook_keys_file": None}, "webhooks' secrets could not be opened"),
        (Role.CUSTODY, {"keyring_passphrase_file": None}, "the local keyring is unprotected"),
        (Role.API, {"api_host": "0.0.0.0"}, "SLUICE_API_TRUSTED_PROXIES"),
        (Role.API, {"api_host": "0.0.0.0", "api_trusted_proxies": ("10.0.0.0/8",)}, "SLUICE_API_PUBLIC_URL"),
        (Role.RELEASES, {"temporal_address": "temporal.lab:7233"}, "without TLS"),
        (Role.RELEASES, {"database_url": "postgresql+psycopg://s@db.lab/s"}, "sslmode=verify-full"),
        (
            Role.RELEASES,
            {"database_url": "postgresql+psycopg://s@db.lab/s?sslmode=require"},
            "sslmode=verify-full",
        ),
        (
            Role.CUSTODY,
            {"key_provider": "openbao", "openbao_address": "https://bao"},
            "SLUICE_OPENBAO_TOKEN_FILE",
        ),
        (
            Role.CUSTODY,
            {"key_provider": "openbao", "openbao_address": "http://bao", "openbao_token_file": "/t"},
            "use https://",
        ),
        (Role.TRANSFER, {"s3_endpoint_url": "http://s3.lab"}, "use https://"),
    ],
)
def test_nothing_insecure_starts_outside_dev_mode(tmp_path, role, change, reason):
    base = {} if role is Role.CUSTODY else {"keyring_passphrase_file": None}
    with pytest.raises(InsecureSettingError) as caught:
        production(tmp_path, **(base | change)).for_role(role)
    assert reason in str(caught.value)
    production(tmp_path, dev=True, **(base | change)).for_role(role)


def test_an_isolated_network_is_the_written_down_exception(tmp_path):
    production(
        tmp_path,
        keyring_passphrase_file=None,
        temporal_address="temporal:7233",
        database_url="postgresql+psycopg://s@db/s",
        isolated_network=True,
    ).for_role(Role.RELEASES)


@pytest.mark.parametrize("name", sorted(CUSTODY_ONLY))
@pytest.mark.parametrize("dev", [False, True])
def test_a_process_that_is_handed_custodys_settings_does_not_start(tmp_path, name, dev):
    value = "sqlite:////x" if name.endswith("_url") else "/x"
    settings = production(tmp_path, **({"keyring_passphrase_file": None} | {name: value}), dev=dev)
    with pytest.raises(InsecureSettingError, match="only worker-custody may hold it"):
        settings.for_role(Role.API)


@pytest.mark.parametrize("role", [Role.API, Role.CUSTODY, Role.TRANSFER, Role.RELEASES])
def test_a_process_that_is_handed_the_monitors_key_does_not_start(tmp_path, role):
    settings = production(tmp_path, monitor_keys_file="/x")
    with pytest.raises(InsecureSettingError, match="only worker-leaks may hold it"):
        settings.for_role(role)


def test_a_child_process_reads_back_the_settings_it_was_handed(tmp_path, monkeypatch):
    settings = production(
        tmp_path,
        dev=True,
        api_trusted_proxies=("10.0.0.0/8", "fd00::/8"),
        shutdown_seconds=2.5,
        webhook_keys_file=None,
    )
    for name, value in settings.to_environment(Role.CUSTODY).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_custodys_settings_are_handed_to_custody_alone(tmp_path):
    settings = production(tmp_path)
    assert "SLUICE_KEYRING_PASSPHRASE_FILE" in settings.to_environment(Role.CUSTODY)
    for role in (Role.API, Role.RELEASES, Role.TRANSFER, Role.MIGRATE):
        assert "SLUICE_KEYRING_PASSPHRASE_FILE" not in settings.to_environment(role)


def test_a_secret_file_is_read_without_its_line_end(tmp_path):
    path = tmp_path / "s"
    path.write_text("secret\n")
    assert read_secret(path, "openbao_token_file") == "secret"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_secret_file_that_cannot_serve_is_an_error_that_names_setting_and_file(tmp_path, content):
    path = tmp_path / "s"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidSettingError, match=f"SLUICE_OPENBAO_TOKEN_FILE: {path}"):
        read_secret(path, "openbao_token_file")


def test_every_setting_is_documented():
    undocumented = [
        name for name, field in Settings.model_fields.items() if len(field.description or "") < 15
    ]
    assert undocumented == []


def test_the_settings_page_is_not_stale():
    assert settings_docs.PAGE.read_text() == settings_docs.render(), "run `python -m infra.settings_docs`"


def test_no_setting_holds_a_secret_itself():
    secretive = ("token", "password", "passphrase", "secret", "api_key")
    holders = [
        n for n in Settings.model_fields if any(word in n for word in secretive) and not n.endswith("_file")
    ]
    assert holders == []


def test_the_keys_of_webhooks_are_handed_to_whoever_seals_and_whoever_signs(tmp_path):
    settings = production(tmp_path)
    handed = {role for role in Role if "SLUICE_WEBHOOK_KEYS_FILE" in settings.to_environment(role)}
    assert handed == {Role.API, Role.NOTICES, Role.STACK}
