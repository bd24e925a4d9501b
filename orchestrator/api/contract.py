"""OpenAPI as the contract: made from the routes, then made exact.

- Problem responses stand once in `components`, and are `application/problem+json` alone.
- An optional parameter is left out, never null.
- A duration's default is written as durations are (`90d`), not as ISO 8601 (`P90D`).
- Whatever has a body can be too large (413); whatever is asked can be malformed (422).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from orchestrator.api.problems import MEDIA_TYPE, Problem, described
from orchestrator.domain.values import Duration, format_duration

_OURS = TypeAdapter(Duration).json_schema()["pattern"]
_ISO = TypeAdapter(timedelta)
_METHODS = ("get", "put", "post", "delete", "patch")


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        components = schema.setdefault("components", {})
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {}).update({**problem.pop("$defs"), "Problem": problem})
        shared = components.setdefault("responses", {})
        for path in schema["paths"].values():
            for method in _METHODS:
                if method in path:
                    _exact(path[method], shared)
        for model in components["schemas"].values():
            for field in model.get("properties", {}).values():
                _our_duration(field)
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _exact(operation: dict[str, Any], shared: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation["responses"]
    if "requestBody" in operation and "401" in responses:
        responses.setdefault("413", {"description": "", "content": {MEDIA_TYPE: {}}})
    for status, response in list(responses.items()):
        if MEDIA_TYPE in response.get("content", {}):
            shared.setdefault(f"Problem{status}", described(int(status)))
            responses[status] = {"$ref": f"#/components/responses/Problem{status}"}
        elif response.get("description") == "Successful Response":
            response["description"] = operation.get("description", "Done").partition("\n")[0]
    operation["responses"] = dict(sorted(responses.items()))
    for parameter in operation.get("parameters", []):
        parameter["schema"] = _never_null(parameter["schema"])
        if "title" in parameter["schema"]:
            del parameter["schema"]["title"]


def _never_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    return {**kinds[0], **rest}


def _our_duration(field: dict[str, Any]) -> None:
    default = field.get("default")
    kinds = [field, *field.get("anyOf", [])]
    ours = any(kind.get("pattern") == _OURS for kind in kinds)
    if isinstance(default, str) and default.startswith("P") and ours:
        field["default"] = format_duration(_ISO.validate_python(default))
