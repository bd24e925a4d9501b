"""The templates and the published schema: what ships is sound and current."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from orchestrator.domain.errors import Malformed, NotFound
from orchestrator.domain.plan import json_schema
from orchestrator.domain.stage import Stage
from orchestrator.plans.library import get_template, published_schema, template_names, templates
from orchestrator.plans.schema_file import schema_text
from orchestrator.plans.text import PLACEHOLDER, examine

ROOT = Path(__file__).resolve().parents[2]


def test_the_papers_precedents_and_a_plain_one_are_there():
    assert template_names() == [
        "bloom",
        "dall-e-2",
        "five-stages",
        "galactica",
        "gpt-2",
        "gpt-3",
        "gpt-j",
        "opt-175b",
        "stable-diffusion",
    ]


@pytest.mark.parametrize("template", templates(), ids=lambda t: t.name)
def test_a_template_keeps_every_rule(template):
    found = examine(template.text, template.name)
    assert found.reasons == ()
    assert found.rules_checked


@pytest.mark.parametrize("template", templates(), ids=lambda t: t.name)
def test_a_template_tells_its_story_and_cites_the_paper(template):
    head = template.text.split("format:")[0]
    assert "§" in head
    assert len(template.summary) > 20


@pytest.mark.parametrize("template", templates(), ids=lambda t: t.name)
def test_a_placeholder_is_explained_where_it_stands(template):
    if PLACEHOLDER in template.text:
        assert "nobody has" in template.text


@pytest.mark.parametrize("template", templates(), ids=lambda t: t.name)
def test_a_template_fits_the_published_schema(template):
    Draft202012Validator(json.loads(published_schema())).validate(yaml.safe_load(template.text))


def test_the_published_schema_is_that_of_the_code():
    assert published_schema() == schema_text(), "stale: run python -m orchestrator.plans.schema_file"
    Draft202012Validator.check_schema(json_schema())


def test_the_published_schema_refuses_unknown_fields():
    document = yaml.safe_load(get_template("gpt-j").text) | {"colour": "blue"}
    assert not Draft202012Validator(json.loads(published_schema())).is_valid(document)


def test_schema_and_templates_are_in_the_wheel():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "orchestrator" in wheel["packages"]
    assert (ROOT / "orchestrator/plans/schema/plan.v1.json").is_file()


def test_five_stages_goes_through_all_five():
    plan = get_template("five-stages").plan()
    assert [step.stage for step in plan.steps] == list(Stage)


def test_gpt_2_came_in_four_sizes():
    plan = get_template("gpt-2").plan()
    assert [c.variant for c in plan.components.values() if c.variant] == ["124m", "355m", "774m", "1558m"]
    assert max(step.stage for step in plan.steps) is Stage.DOWNLOADABLE


def test_a_template_takes_another_title_and_keeps_its_comments():
    text = get_template("gpt-j").with_title('Our "model" \\ 2', "Example: Lab")
    plan = examine(text, "new").plan
    assert (plan.title, plan.organisation) == ('Our "model" \\ 2', "Example: Lab")
    assert "# GPT-J" in text


def test_a_title_with_control_characters_is_refused():
    with pytest.raises(Malformed):
        get_template("gpt-j").with_title("a\x1b[2Jb")
    with pytest.raises(Malformed):
        get_template("gpt-j").with_title("a\nannounced: false")


@pytest.mark.parametrize("name", ["nope", "../text", "", "gpt-j.yaml"])
def test_a_template_that_is_not_there_is_answered_with_those_that_are(name):
    with pytest.raises(NotFound, match="five-stages"):
        get_template(name)


def test_the_page_about_plans_names_every_template_and_rule():
    page = (ROOT / "docs" / "plans.md").read_text(encoding="utf-8")
    assert [name for name in template_names() if f"| `{name}` |" not in page] == []
    assert [rule for rule in range(9) if f"| `rule-{rule}` |" not in page] == []


def test_the_example_on_the_page_has_the_shape_of_a_plan():
    page = (ROOT / "docs" / "plans.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    key = "ssh-ed25519 " + "A" * 68
    text = example.replace("ssh-ed25519 AAAA…", key).replace(
        "recipient: age1pq1…}", "recipient: sha256:" + "1" * 64 + "}", 1
    )
    text = text.replace("recipient: age1pq1…", "recipient: sha256:" + "2" * 64)
    assert {r.code for r in examine(text, "docs/plans.md").reasons} <= {"rule-0", "rule-7"}
