"""The plan templates that come with Sluice: the paper's precedents (§5, §7) and a plain way through all five stages."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from orchestrator.domain.errors import NotFound
from orchestrator.domain.plan import Plan
from orchestrator.plans.text import load_plan


@dataclass(frozen=True, slots=True)
class Template:
    """One template: its name for `sluice plan new --template`, and its text with comments that tell its story."""

    name: str
    text: str

    @property
    def summary(self) -> str:
        """The first line of its comment: what it is."""
        return self.text.splitlines()[0].lstrip("# ").rstrip(".")

    def plan(self) -> Plan:
        """The template as a plan. Its deployments' recipients are placeholders (`text.placeholders`)."""
        return load_plan(self.text, f"template {self.name}")

    def with_title(self, title: str, organisation: str | None = None) -> str:
        """The text with another title and organisation; comments and everything else stay.

        Raises:
            Malformed: a plan with this title is not a plan, for instance because of a control character.
        """
        text = _replace(self.text, "title", title)
        if organisation is not None:
            text = _replace(text, "organisation", organisation)
        load_plan(text, f"template {self.name}")
        return text


def template_names() -> list[str]:
    """Names of all templates, sorted."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml")
    )


def templates() -> list[Template]:
    """All templates, sorted by name."""
    return [get_template(name) for name in template_names()]


def get_template(name: str) -> Template:
    """The template of this name.

    Raises:
        NotFound: there is none; the detail lists those that there are.
    """
    names = template_names()
    if name not in names:
        raise NotFound(f"no template is called {name!r}; there are: {', '.join(names)}")
    return Template(name, _folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


def published_schema() -> str:
    """The text of the published JSON Schema, `schema/plan.v1.json`."""
    return files("orchestrator.plans").joinpath("schema", "plan.v1.json").read_text(encoding="utf-8")


def _folder() -> Traversable:
    return files("orchestrator.plans").joinpath("templates")


def _replace(text: str, field: str, value: str) -> str:
    quoted = json.dumps(value, ensure_ascii=False)  # a JSON string is a YAML string, escapes included
    return re.sub(rf"(?m)^{field}: .*$", lambda _: f"{field}: {quoted}", text, count=1)
