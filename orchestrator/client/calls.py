"""One request as a value: `operations` makes it, a client sends it, and what comes back has the type that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)


class Model(BaseModel):
    """What goes over the wire. Members that a newer service adds are kept (`model_extra`); what was not set is not sent."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    constants: ClassVar[frozenset[str]] = frozenset()
    """Members that have one value and are always sent."""

    def model_post_init(self, context: Any, /) -> None:
        """Constants count as set."""
        self.__pydantic_fields_set__.update(self.constants)


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer_co]):
    """A call of one operation.

    Attributes:
        operation: its id in OpenAPI.
        method: the HTTP method.
        path: with its parts filled in and quoted, so that no name can leave its place.
        answer: what a success is read as: a model, `str`, `bytes`, or `type(None)`.
        query: parameters; None is left out.
        headers: headers; None is left out.
        body: JSON, a form, or nothing.
        files: of a form: name → (file name, bytes, media type).
        sends: how the body is written.
        keyed: takes an idempotency key, so it may be sent again when no answer came.
    """

    operation: str
    method: str
    path: str
    answer: type[Answer_co]
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: Any = None
    files: Mapping[str, tuple[str, bytes, str]] = field(default_factory=dict)
    sends: Literal["nothing", "json", "form", "multipart"] = "nothing"
    keyed: bool = False


def filled(template: str, **parts: str | int) -> str:
    """A path with its parts filled in, each quoted."""
    return template.format(**{name: quote(str(value), safe="") for name, value in parts.items()})


def plain(body: Model | Mapping[str, Any] | None) -> Any:
    """A body as JSON: what was set of a model, a mapping as it is."""
    if isinstance(body, Model):
        return body.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return None if body is None else json.loads(json.dumps(dict(body), default=_plain))


def _plain(value: object) -> Any:
    if isinstance(value, Model):
        return plain(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def shown(value: object) -> str | int | float | None:
    """A query parameter as it is written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str | int | float) or value is None else str(value)
