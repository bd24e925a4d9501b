"""Makes `orchestrator/client/models.py` and `operations.py` from the API's own OpenAPI: `python -m infra.client_code`.

`make check` fails when they are stale. What is made is plain: one model a schema, one function an operation.
"""

from __future__ import annotations

import keyword
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

FOLDER = Path(__file__).resolve().parent.parent / "orchestrator" / "client"
_REF = "#/components/schemas/"
_SCALARS = {"integer": "int", "number": "float", "boolean": "bool", "null": "None", "string": "str"}
_METHODS = ("get", "put", "post", "delete", "patch")
_MADE = "# Made by `python -m infra.client_code` from OpenAPI; do not edit.\n"

_MODELS = (
    '"""What goes over the wire: one model for each schema of the API."""\n\n'
    + _MADE
    + """
from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal, Optional, Union

from pydantic import Field

from orchestrator.client.calls import Model
"""
)

_OPERATIONS = (
    '"""One function for each operation of the API; each makes a `Call`, which a client sends."""\n\n'
    + _MADE
    + """
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Optional, Union

from orchestrator.client import models as m
from orchestrator.client.calls import Call, filled, plain
"""
)


def document() -> dict[str, Any]:
    """The API's OpenAPI document; nothing of the service is started for it."""
    from orchestrator.api import create_app
    from orchestrator.api.deps import Deps

    nothing = cast("Any", None)
    app = create_app(Deps(engine=nothing, gateway=nothing, documents=nothing, formats=nothing))
    return app.openapi()


def models(openapi: Mapping[str, Any]) -> str:
    """The module of models."""
    schemas: Mapping[str, Any] = openapi["components"]["schemas"]
    parts = [_MODELS]
    names = []
    for name, schema in sorted(schemas.items(), key=lambda pair: (pair[1].get("type") == "object", pair[0])):
        if schema.get("type") == "object" and "properties" in schema:
            parts.append(_model(_class(name), schema))
            names.append(_class(name))
        else:
            parts.append(f"\n{_class(name)} = {_type(schema, '')}\n")
    parts.append("\n" + "".join(f"{name}.model_rebuild()\n" for name in names))
    return "".join(parts)


def _model(name: str, schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", []))
    properties: Mapping[str, Any] = schema["properties"]
    constants = sorted(field for field, about in properties.items() if "const" in about)
    lines = [f"\n\nclass {name}(Model):\n", _docstring(schema.get("description") or f"{name}.", 4)]
    if constants:
        lines.append(f"\n    constants: ClassVar[frozenset[str]] = frozenset({constants!r})\n")
    lines.append("\n")
    for field, about in sorted(properties.items(), key=lambda pair: pair[0] not in required):
        kind = _type(about, "")
        if "const" in about:
            value = f" = {about['const']!r}"
        elif field in required:
            value = ""
        else:
            kind, value = _optional(kind), " = None"
        lines.append(f"    {field}: {kind}{value}\n")
        if about.get("description"):
            lines.append(_docstring(about["description"], 4))
    return "".join(lines)


def _optional(kind: str) -> str:
    return kind if kind == "Any" or kind.startswith("Optional[") else f"Optional[{kind}]"


def _class(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]", name))


def _type(schema: Mapping[str, Any], prefix: str) -> str:
    """The annotation of a schema."""
    if "$ref" in schema:
        return prefix + _class(schema["$ref"].removeprefix(_REF))
    if "const" in schema:
        return f"Literal[{schema['const']!r}]"
    if "enum" in schema:
        return f"Literal[{', '.join(repr(value) for value in schema['enum'])}]"
    for how in ("anyOf", "oneOf"):
        if how in schema:
            return _union(schema, schema[how], prefix)
    kind = schema.get("type")
    if kind == "array":
        return f"list[{_type(schema.get('items', {}), prefix)}]"
    if kind == "object":
        inner = schema.get("additionalProperties") or next(
            iter(schema.get("patternProperties", {}).values()), True
        )
        return f"dict[str, {_type(inner, prefix) if isinstance(inner, dict) else 'Any'}]"
    if kind == "string":
        return {"date-time": "datetime", "date": "date", "binary": "bytes"}.get(
            schema.get("format", ""), "str"
        )
    return _SCALARS.get(str(kind), "Any")


def _union(schema: Mapping[str, Any], kinds: list[Mapping[str, Any]], prefix: str) -> str:
    found = [_type(one, prefix) for one in kinds if one != {"type": "null"}]
    text = found[0] if len(found) == 1 else f"Union[{', '.join(dict.fromkeys(found))}]"
    by = schema.get("discriminator", {}).get("propertyName")
    if by:
        text = f"Annotated[{text}, Field(discriminator={by!r})]"
    return _optional(text) if len(found) != len(kinds) else text


def operations(openapi: Mapping[str, Any]) -> str:
    """The module of operations."""
    parts = [_OPERATIONS]
    for path, methods in openapi["paths"].items():
        parts += [_operation(path, method, methods[method]) for method in _METHODS if method in methods]
    return "".join(parts)


def function_of(operation: str) -> str:
    """The name of the function for an operation id."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation).lower()


def _operation(path: str, method: str, about: Mapping[str, Any]) -> str:
    parameters = about.get("parameters", [])
    inside = re.findall(r"{(\w+)}", path)
    positional = [f"{name}: {_path_type(parameters, name)}" for name in inside]
    named: list[str] = []
    arguments: list[str] = []
    answer = _answer(about)
    body, kind = _body(about)
    if kind == "json":
        positional.append(f"body: Union[{body}, Mapping[str, Any]]")
        arguments += ["body=plain(body)", 'sends="json"']
    elif kind in {"form", "multipart"}:
        fields, files = _form(about)
        positional += [
            f"{name}: {'tuple[str, bytes, str]' if name in files else 'str'}"
            for name, needed in fields
            if needed
        ]
        named += [f"{name}: Optional[str] = None" for name, needed in fields if not needed]
        members = ", ".join(f'"{name}": {name}' for name, _ in fields if name not in files)
        arguments.append(
            f"body={{name: value for name, value in {{{members}}}.items() if value is not None}}"
        )
        arguments.append(f'sends="{kind}"')
        if files:
            arguments.append(f"files={{{', '.join(f'{name!r}: {name}' for name in files)}}}")
    for where, argument in (("query", "query"), ("header", "headers")):
        told: list[str] = []
        for parameter in (p for p in parameters if p["in"] == where):
            name = _argument(parameter["name"])
            typed = _type(parameter["schema"], "m.")
            keyed = parameter["name"] == "Idempotency-Key"  # made up by the client when it is left out
            needed = parameter.get("required") and not keyed
            named.append(f"{name}: {typed}" if needed else f"{name}: {_optional(typed)} = None")
            told.append(f'"{parameter["name"]}": {name}')
        if told:
            arguments.append(f"{argument}={{{', '.join(told)}}}")
    if any(p["name"] == "Idempotency-Key" for p in parameters):
        arguments.append("keyed=True")
    named.sort(key=lambda text: " = None" in text)
    signature = ", ".join([*positional, *(["*", *named] if named else [])])
    place = f'filled("{path}", {", ".join(f"{n}={n}" for n in inside)})' if inside else f'"{path}"'
    words = about.get("description") or about.get("summary") or about["operationId"]
    permission = about.get("x-permission")
    if permission:
        words += f"\n\nNeeds the permission `{permission}`."
    return (
        f"\n\ndef {function_of(about['operationId'])}({signature}) -> Call[{answer}]:\n"
        + _docstring(words, 4)
        + f'    return Call("{about["operationId"]}", "{method.upper()}", {place}, {_value(answer)}'
        + "".join(f", {argument}" for argument in arguments)
        + ")\n"
    )


def _value(answer: str) -> str:
    return "type(None)" if answer == "None" else answer


def _path_type(parameters: list[Mapping[str, Any]], name: str) -> str:
    schema = next(p["schema"] for p in parameters if p["name"] == name)
    kind = _type(schema, "m.")
    return kind if kind in {"int", "str"} else "str"


def _argument(name: str) -> str:
    found = name.lower().replace("-", "_")
    return f"{found}_" if keyword.iskeyword(found) else found


def _answer(about: Mapping[str, Any]) -> str:
    (status,) = (code for code in about["responses"] if code.startswith("2"))
    content = about["responses"][status].get("content", {})
    if not content:
        return "None"
    schema = content.get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        return _type(schema, "m.")
    return "str" if set(content) <= {"text/plain", "text/event-stream", "application/jsonl"} else "bytes"


def _body(about: Mapping[str, Any]) -> tuple[str, str]:
    for kind, content in about.get("requestBody", {}).get("content", {}).items():
        if kind == "application/json":
            schema = content["schema"]
            return (_type(schema, "m.") if "$ref" in schema else "Mapping[str, Any]"), "json"
        return "", "multipart" if kind.startswith("multipart") else "form"
    return "", ""


def _form(about: Mapping[str, Any]) -> tuple[list[tuple[str, bool]], list[str]]:
    """The fields of a form, needed ones first, and which of them are files."""
    (content,) = about["requestBody"]["content"].values()
    schema = _FORMS[content["schema"]["$ref"].removeprefix(_REF)]
    required = set(schema.get("required", []))
    fields = sorted(((name, name in required) for name in schema["properties"]), key=lambda pair: not pair[1])
    files = [
        n for n, s in schema["properties"].items() if s.get("format") == "binary" or "contentMediaType" in s
    ]
    return fields, files


_FORMS: dict[str, Any] = {}


def _docstring(text: str, indent: int) -> str:
    lines = text.strip().replace("\\", "\\\\").replace('"""', "'''").split("\n")
    body = "\n".join(lines)
    if body.endswith('"'):
        body += " "
    quoted = f'"""{body}"""' if len(lines) == 1 else f'"""{body}\n"""'
    return textwrap.indent(quoted, " " * indent) + "\n"


def made(openapi: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Each file with what it should say."""
    _FORMS.update(openapi["components"]["schemas"])
    yield FOLDER / "models.py", models(openapi)
    yield FOLDER / "operations.py", operations(openapi)


def main() -> None:
    """Write the files; with `--check`, only say whether they are stale."""
    check = sys.argv[1:] == ["--check"]
    for path, text in made(document()):
        if not check:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is not what the API says any more: python -m infra.client_code")


if __name__ == "__main__":
    main()
