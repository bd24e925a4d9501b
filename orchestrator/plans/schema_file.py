"""Write the published JSON Schema anew: `python -m orchestrator.plans.schema_file`. A test fails when it is stale."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.domain.plan import json_schema

PATH = Path(__file__).parent / "schema" / "plan.v1.json"


def schema_text() -> str:
    """The schema as it is published: indented, keys in the order of the plan's fields."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema_text(), encoding="utf-8")
