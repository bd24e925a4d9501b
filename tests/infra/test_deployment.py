"""Compose file, chart and image: valid by their published schemas, and held to the rules that a platform team asks for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import compose_spec
import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml

from infra.cli import WorkerKind
from infra.preparing.secrets import new_secrets
from infra.settings import CUSTODY_ONLY, MONITOR_ONLY, Settings
from infra.settings_parts.place import PREFIX

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "infra/chart"
COMPOSE = ROOT / "docker-compose.yml"
OURS = ("api", "worker-releases", "worker-transfer", "worker-custody", "worker-leaks", "worker-notices")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]


def is_job(service: dict[str, Any]) -> bool:
    return service.get("restart") == "no"


# --- compose


def test_the_compose_file_is_valid_by_the_published_schema(compose):
    schema = json.loads(
        (files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text(encoding="utf-8")
    )
    jsonschema.validate(compose, schema)
    # as Docker reads it: with its variables filled in
    for more in ({}, OPTIONAL):
        text = json.dumps(filled(compose, GIVEN | more))
        assert "${" not in text
        assert compose_spec.PyCompose.from_json(text).name == "sluice"


GIVEN = {"SLUICE_VERSION": "0.1.0", "SLUICE_PUBLIC_URL": "https://sluice.example", "SLUICE_PROXIES": "[]"}
OPTIONAL = {
    "SLUICE_MAIL_FROM": "sluice@example.org",
    "SLUICE_MAIL_URL_FILE": "./secrets/mail.url",
    "SLUICE_MAIL_CA_FILE": "./secrets/mail-ca.pem",
    "SLUICE_SIGN_IN_FILE": "./sign-in.yaml",
    "SLUICE_OIDC_SECRET_FILE": "./secrets/oidc",
    "SLUICE_HUB_TOKEN_FILE": "./secrets/hub.token",
    "SLUICE_LEAK_SOURCES_FILE": "./sources.yaml",
    "SLUICE_LEAK_S3_PROFILES_FILE": "./secrets/profiles.yaml",
    "SLUICE_OUTSIDE_MONITORS_FILE": "./secrets/monitors",
}


def filled(compose: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """As an engine fills variables in: `${A}`, `${A:?why}`, `${A:-else}`, `${A:+then}`."""

    def value(found: re.Match[str]) -> str:
        own = given.get(found[1], "")
        if found[2] == "+":
            return found[3] if own else ""
        return own or (found[3] if found[2] == "-" else "")

    made: dict[str, Any] = json.loads(re.sub(r"\$\{(\w+)(?::([?+-])([^}]*))?\}", value, json.dumps(compose)))
    return made


#: Settings of secret files without a slot: Temporal is on a network of its own there; the key service is OpenBao.
WITHOUT_SLOT = {"keyring_file", "keyring_passphrase_file"}
NOT_ON_ONE_HOST = {name for name in Settings.model_fields if name.startswith("temporal_tls_")} | {
    "temporal_api_key_file"
}


def test_every_setting_that_names_a_file_has_a_slot(services, manifests):
    files = {PREFIX + name.upper() for name in Settings.model_fields if name.endswith("_file")}
    files -= {PREFIX + name.upper() for name in WITHOUT_SLOT}
    in_compose = {key for service in services.values() for key in (service.get("environment") or {})}
    assert files - in_compose == {PREFIX + n.upper() for n in NOT_ON_ONE_HOST if n.endswith("_file")}
    in_chart = set()
    for more in ({}, {"temporal": {"credentials": "api-key"}}, {"temporal": {"credentials": "certificate"}}):
        for _, pod in pods(rendered(CHART_OPTIONAL | {"temporal": {"ca": True} | more.get("temporal", {})})):
            in_chart |= {variable["name"] for variable in pod["containers"][0]["env"]}
    assert files - in_chart == {"SLUICE_OPERATOR_TOKEN_FILE"}, "docs/install.md says how it is got there"


def test_what_was_not_given_is_not_switched_on_and_what_was_lies_where_the_process_looks(
    compose, monkeypatch
):
    for more in ({}, OPTIONAL):
        made = filled(compose, GIVEN | more)
        for name in OURS:
            service = made["services"][name]
            own = {k: str(v) for k, v in service["environment"].items() if k.startswith(PREFIX)}
            settings = Settings(**{k.removeprefix(PREFIX).lower(): v for k, v in own.items() if v[:1] != "["})
            assert (settings.mail_url_file is not None) == (bool(more) and name == "worker-notices")
            assert (settings.sign_in_file is not None) == (bool(more) and name == "api")
            for key, value in own.items():
                if value.startswith("/run/secrets/"):
                    assert value.removeprefix("/run/secrets/") in service["secrets"], (name, key)
        for secret in OPTIONAL_SECRETS:
            assert (made["secrets"][secret]["file"] == "./secrets/none") == (not more), secret


OPTIONAL_SECRETS = (
    "mail", "mail-ca", "sign-in", "oidc", "hub-token", "leak-sources", "leak-s3-profiles", "outside-monitors",
)  # fmt: skip


def test_every_service_is_pinned_and_hardened(services):
    for name, service in services.items():
        image = service["image"]
        assert ":" in image, name
        assert not image.endswith(":latest"), name
        uid = service["user"].split(":")[0]
        assert uid.isdigit(), name
        assert int(uid) > 0, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert is_job(service) or "healthcheck" in service, name
        assert not service.get("privileged"), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), (name, port)


def test_no_secret_stands_in_an_environment(compose):
    for name, service in filled(compose, GIVEN | OPTIONAL)["services"].items():
        for key, value in (service.get("environment") or {}).items():
            secret = any(word in key for word in ("PASSWORD", "PWD", "TOKEN", "SECRET_KEY", "CREDENTIAL"))
            assert not secret or str(value).startswith(("/run/secrets/", "/var/lib/")), (name, key)


def test_custody_is_alone_with_its_key_service(services, compose):
    assert {n for n, s in services.items() if "keys" in s["networks"]} == {
        "openbao", "prepare-openbao", "worker-custody",
    }  # fmt: skip
    assert compose["networks"]["keys"]["internal"] is True
    for name, service in services.items():
        mounted = {str(v).split(":")[0] for v in service.get("volumes", [])}
        assert "custody-state" not in mounted or name in {"worker-custody", "prepare-openbao"}
        assert "openbao-owner" not in mounted or name == "prepare-openbao"
        held = {s if isinstance(s, str) else s["source"] for s in service.get("secrets", [])}
        if name in {"api", "worker-releases", "worker-transfer", "worker-leaks", "migrate"}:
            assert not held & {"postgres-custody", "openbao-ca", "openbao-seal", "postgres-admin"}, name
    assert "documents" not in services["worker-custody"]["secrets"]


def test_custody_and_the_leak_monitor_have_each_others_public_half(services):
    """Custody verifies what the monitor asks it to trace, and tells it what it sealed anew; samples are sealed to custody."""
    for role, other in (("worker-custody", "monitor"), ("worker-leaks", "custody")):
        mounted = services[role]["volumes"]
        assert f"{other}-public:/var/lib/sluice-{other}-public:ro" in mounted, role


def test_what_speaks_outward_holds_no_key_of_custodys(services, compose):
    outward = {name for name, network in compose["networks"].items() if not (network or {}).get("internal")}
    assert outward == {"operators", "hub"}
    assert {n for n, s in services.items() if "hub" in s["networks"]} == {
        "worker-transfer",
        "worker-leaks",
        "worker-notices",
    }


def test_every_setting_of_the_compose_file_is_one_that_the_process_may_have(services):
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name, service in services.items():
        asked = {key for key in (service.get("environment") or {}) if key.startswith(PREFIX)}
        assert asked <= known, name
        if name in OURS:
            custody = {PREFIX + field.upper() for field in CUSTODY_ONLY}
            monitor = {PREFIX + field.upper() for field in MONITOR_ONLY}
            assert not asked & custody or name == "worker-custody", name
            assert not asked & monitor or name == "worker-leaks", name


def test_every_role_runs_and_every_secret_is_made(services, compose, tmp_path):
    commands = [service["command"] for name, service in services.items() if name in OURS]
    assert ["api"] in commands
    assert {c[1] for c in commands if c[0] == "worker"} == {kind.value for kind in WorkerKind}
    new_secrets(tmp_path / "secrets")
    for name, secret in filled(compose, GIVEN)["secrets"].items():
        made = tmp_path / secret["file"].removeprefix("./")
        assert made.is_file(), name
        assert made.stat().st_mode & 0o077 == 0, name
    assert new_secrets(tmp_path / "secrets") == []


# --- the chart


#: Everything that is optional, given.
CHART_OPTIONAL: dict[str, Any] = {
    "secrets": {
        "temporal": "t", "signIn": "s", "mail": "m", "hub": "h", "leaks": "l", "monitors": "o",
    },
    "mail": {"from": "sluice@example.org", "ca": True},
    "database": {"ca": True},
}  # fmt: skip


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(values, name="sluice", namespace="sluice")
    found = [doc for text in texts.values() for doc in yaml.safe_load_all(text) if doc]
    assert found
    return found


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    return rendered({})


def pods(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for manifest in manifests:
        if manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def test_the_chart_has_no_findings():
    report = helm_python.lint(CHART, strict=True)
    worse = [m for m in report["messages"] if m["severity"] >= 2]
    assert (report["errors"], worse) == ([], [])


def test_every_manifest_is_valid_by_kubernetes_schema(manifests):
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_optional_secrets_are_mounted_where_they_are_looked_for_and_in_those_pods_alone():
    made = rendered(CHART_OPTIONAL | {"temporal": {"ca": True, "credentials": "api-key"}})
    held: dict[str, set[str]] = {}
    for manifest in made:
        kubernetes_validate.validate(manifest, "1.33", strict=True)
    for name, pod in pods(made):
        held[name] = {v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
        [container] = pod["containers"]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        given = {
            item["key"] for v in pod["volumes"] if v["name"] == "service" for item in v["secret"]["items"]
        }
        for variable in container["env"]:
            value = variable["value"]
            if value.startswith("/run/secrets/"):
                assert str(Path(value).parent) in mounts, (name, variable)
            if variable["name"].endswith("DATABASE_URL"):
                assert value.endswith("sslmode=verify-full&sslrootcert=/run/secrets/service/postgres-ca.pem")
            if value.startswith("/run/secrets/service/"):
                assert Path(value).name in given or not value.endswith((".keys", ".password")), (
                    name,
                    variable,
                )
    workers = {name for name in held if "migrate" not in name}
    assert all("t" in held[name] for name in workers)
    for secret, roles in {
        "s": {"api"},
        "o": {"api"},
        "m": {"notices"},
        "h": {"transfer", "leaks"},
        "l": {"leaks"},
    }.items():
        assert {name for name in held if secret in held[name]} == {f"sluice-{role}" for role in roles}


def test_a_pod_holds_those_keys_of_the_service_alone_that_its_process_reads(manifests):
    held = {
        name.removeprefix("sluice-"): {
            item["key"] for v in pod["volumes"] if v["name"] == "service" for item in v["secret"]["items"]
        }
        for name, pod in pods(manifests)
        if "migrate" not in name
    }
    assert {role for role, keys in held.items() if "document.keys" in keys} == {"api"}
    assert {role for role, keys in held.items() if "webhook.keys" in keys} == {"api", "notices"}
    assert {role for role, keys in held.items() if "verdict.keys" in keys} == {"api", "leaks"}
    assert {role for role, keys in held.items() if "codec.keys" in keys} == set(held) - {"notices"}
    assert {role for role, keys in held.items() if "postgres-records.password" in keys} == set(held) - {
        "custody"
    }


def test_what_says_things_outward_knows_where_its_links_lead_and_cannot_read_histories(services, manifests):
    notices = services["worker-notices"]
    assert "codec" not in notices["secrets"]
    assert "engine" not in notices["networks"]
    assert (
        notices["environment"]["SLUICE_API_PUBLIC_URL"]
        == services["api"]["environment"]["SLUICE_API_PUBLIC_URL"]
    )
    [pod] = [pod for name, pod in pods(manifests) if name == "sluice-notices"]
    env = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
    assert env["SLUICE_API_PUBLIC_URL"] == "https://sluice.example"
    assert "SLUICE_CODEC_KEYS_FILE" not in env


def test_custody_connects_to_nothing_but_what_it_needs():
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openbao"}}}]
    for more in ({}, {"custodyEgress": {"to": peers}}):
        made = rendered(more)
        [policy] = [
            m for m in made if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == "sluice-custody"
        ]
        kubernetes_validate.validate(policy, "1.33", strict=True)
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        names, servers = policy["spec"]["egress"]
        assert {one["port"] for one in names["ports"]} == {53}
        assert {one["port"] for one in servers["ports"]} == {5432, 7233, 8200, 443}
        assert servers.get("to") == (peers if more else None)


def test_every_pod_is_hardened_probed_and_limited(manifests):
    for name, pod in pods(manifests):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= set(container["resources"])
        image = container["image"]
        assert ":" in image
        assert not image.endswith(":latest")
        assert "migrate" in name or {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
        for variable in container["env"]:
            assert "valueFrom" not in variable, "secrets come as files"


def test_only_custodys_pod_holds_custodys_secrets(manifests):
    for name, pod in pods(manifests):
        secrets = {v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
        assert ("sluice-custody" in secrets) == (name == "sluice-custody")
        asked = {variable["name"] for variable in pod["containers"][0]["env"]}
        custody = {PREFIX + field.upper() for field in CUSTODY_ONLY}
        assert not asked & custody or name == "sluice-custody"
        known = {PREFIX + field.upper() for field in Settings.model_fields}
        assert {one for one in asked if one.startswith(PREFIX)} <= known


def test_the_chart_has_the_shape_of_the_compose_file(manifests):
    roles = {name.removeprefix("sluice-") for name, _ in pods(manifests)}
    assert {f"worker-{r}" if r != "api" else r for r in roles if not r.startswith("migrate")} == set(OURS)
    policies = [m for m in manifests if m["kind"] == "NetworkPolicy"]
    assert len(policies) == len(OURS)


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"repository": "sluice", "tag": "latest"}},
        {"publicUrl": "http://sluice.example"},
        {"trustedProxies": []},
        {"database": {"sslmode": "disable"}},
        {"temporal": {"credentials": "password"}},
    ],
    ids=str,
)
def test_values_that_are_not_safe_are_refused(values):
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmError):
        chart.validate_schema(chart.merge_values(values))


# --- the image


def test_what_the_image_is_built_of_is_pinned_with_hashes():
    for name in ("bootstrap.lock", "service.lock"):
        lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if line and not line.startswith((" ", "#", "-"))]
        assert pins
        assert all("==" in pin for pin in pins)
        assert sum("--hash=sha256:" in line for line in lines) >= len(pins)
    service = (ROOT / "requirements/service.lock").read_text(encoding="utf-8")
    for tool in ("pytest==", "moto==", "playwright=="):
        assert tool not in service


def test_the_probe_of_the_image_needs_nothing_but_python():
    probe = ROOT / "infra/image/ready.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(probe), "9"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.stack
@pytest.mark.timeout(400)
def test_the_images_steps_make_a_command_that_runs(tmp_path):
    """The steps of the Dockerfile on this machine, without an engine: a new environment, pinned, with our command in it."""
    target = tmp_path / "image"
    done = subprocess.run(
        ["sh", str(ROOT / "infra/image/build.sh"), str(ROOT), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("sluice ")
    asked = subprocess.run(
        [target / "bin/sluice", "worker", "--help"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert "custody" in asked.stdout
    refused = subprocess.run(
        [target / "bin/sluice", "api"], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert refused.returncode == 2
    assert "SLUICE_CODEC_KEYS_FILE is not set" in refused.stderr
