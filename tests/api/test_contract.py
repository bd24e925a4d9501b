"""OpenAPI is complete, and the application keeps to it under generated requests."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.conftest import Api, Sealed

CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = int(os.environ.get("SLUICE_TEST_CONTRACT_EXAMPLES", "6"))


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_document_is_valid_openapi(api: Api) -> None:
    validate(api.app.openapi())


#: Operations that ask nobody who they are.
OPEN_TO_ALL = {
    "getSignIn",
    "backChannelLogout",
    "reportLeak",
    "showInvitation",
    "signInvited",
    "withdrawInvited",
}


def test_every_operation_names_itself_its_permission_and_every_error(api: Api) -> None:
    document = api.app.openapi()
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for path, method, operation in operations(document):
        if not path.startswith("/v1"):
            continue
        told = set(operation["responses"])
        assert {"422", "500", "503"} <= told, path
        assert "401" in told or operation["operationId"] in OPEN_TO_ALL, path
        if "requestBody" in operation:
            assert "413" in told, path
        if "{release}" in path:
            assert {"403", "404"} <= told, path
            assert "x-permission" in operation, path
        if any(parameter["name"] == "If-Match" for parameter in operation.get("parameters", [])):
            assert {"412", "428"} <= told, path
        assert operation["description"], (method, path)


def test_every_error_has_an_example_that_is_a_problem(api: Api) -> None:
    document = api.app.openapi()
    for name, response in document["components"]["responses"].items():
        example = response["content"]["application/problem+json"]["example"]
        assert str(example["status"]) == name.removeprefix("Problem")
        assert example["reasons"]
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400 and "$ref" in response:
                assert response["$ref"] == f"#/components/responses/Problem{status}"


def test_the_page_for_reading_loads_nothing_from_elsewhere(api: Api) -> None:
    page = api.get(None, "/docs")
    assert page.status_code == 200
    assert "http" not in page.text
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
    for path in (
        "/docs/static/swagger-ui-bundle.js",
        "/docs/static/swagger-ui.css",
        "/docs/start.js",
        "/openapi.json",
    ):
        assert api.get(None, path).status_code == 200


def test_generated_requests_get_documented_answers_and_no_server_error(api: Api, sealed: Sealed) -> None:
    """Requests made from the document, for every operation but the endless streams, by somebody who may."""
    api.to_demo(sealed)
    schema = schemathesis.openapi.from_asgi("/openapi.json", api.app).exclude(path_regex="/stream$")
    known = {
        "release": "mini-1",
        "step": "query",
        "partner": "ngo",
        "principal": "sam",
        "artifact": sealed.id,
    }
    seen: Counter[int] = Counter()
    failures: dict[str, str] = {}

    def probe(operation: Any) -> None:
        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def asked(case: Any) -> None:
            for name, value in known.items():
                if name in case.path_parameters and zlib.crc32(str(case.path_parameters).encode()) % 4:
                    case.path_parameters[name] = value
            operator = "/principals" in case.path or "/audit" in case.path
            headers = {"Authorization": f"Bearer {api.tokens['olaf' if operator else 'mia']}"}
            response = case.call(headers=headers)
            seen[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        asked()

    for found in schema.get_all_operations():
        operation = found.ok()
        try:
            probe(operation)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - shown together
            failures[operation.label] = str(error)
    assert not failures, "\n\n".join(f"{label}: {text}" for label, text in failures.items())
    assert {200, 201, 404, 409, 422, 428} <= set(seen), seen
