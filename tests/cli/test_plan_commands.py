"""`sluice plan`: every broken rule with path and line, exit code 1, JSON for pipelines."""

import json
from pathlib import Path

import pytest
import yaml

from orchestrator.plans.library import get_template, published_schema, template_names


def write(folder: Path, text: str | bytes, name: str = "plan.yaml") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize("name", template_names())
def test_every_template_passes(sluice, home, name):
    ran = sluice("plan", "check", write(home, get_template(name).text))
    assert ran.code == 0
    assert "keeps every rule" in ran.out


def test_every_broken_rule_is_printed_with_path_and_line(sluice, home):
    text = get_template("five-stages").text
    text = text.replace("      cooling_off: 3d\n", "").replace("      - kind: user_accounts\n", "", 1)
    file = write(home, text)
    ran = sluice("plan", "check", file)
    assert ran.code == 1
    lines = [line for line in ran.out.splitlines() if "rule-" in line]
    assert len(lines) == 2
    numbered = dict(enumerate(text.splitlines(), 1))
    for line in lines:
        place, _, rest = line.removeprefix(f"{file}:").partition(":")
        assert int(place) in numbered
        assert rest.strip().startswith("rule-")
    assert "steps[1].controls" in lines[0]
    assert "steps[3].gate.cooling_off" in lines[1]


def test_as_json_it_is_one_document(sluice, home):
    file = write(home, get_template("gpt-j").text.replace("cooling_off: 3d", "cooling_of: 3d"))
    ran = sluice("plan", "check", file, "--json")
    assert ran.code == 1
    assert ran.json["sound"] is False
    assert ran.json["digest"] is None
    (reason,) = ran.json["reasons"]
    assert reason["path"] == "steps[1].gate.cooling_of"
    assert reason["line"] > 1


def test_the_digest_of_a_sound_plan_is_told(sluice, home):
    ran = sluice("plan", "check", write(home, get_template("gpt-j").text), "--json")
    assert ran.code == 0
    assert ran.json["digest"] == get_template("gpt-j").plan().digest


def test_whoever_creates_the_release_cannot_sign(sluice, home):
    file = write(home, get_template("gpt-j").text)
    assert sluice("plan", "check", file, "--creator", "cy").code == 1
    assert sluice("plan", "check", file, "--creator", "pipeline").code == 0


def test_a_plan_comes_from_standard_input(sluice):
    assert sluice("plan", "check", "-", stdin=get_template("gpt-j").text).code == 0
    assert sluice("plan", "check", "-", stdin="nothing").code == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfea\x00", b"a: &a [*a]", b"[" * 5000, b"{", b"\x00" * 100, b"a: !!python/object:x {}"],
)
def test_what_is_no_plan_is_told_without_a_trace(sluice, home, data):
    ran = sluice("plan", "check", write(home, data), "--json")
    assert ran.code == 1
    assert ran.json["reasons"]


def test_a_file_that_is_not_there(sluice, home):
    ran = sluice("plan", "check", home / "nowhere.yaml")
    assert ran.code == 8
    assert "nowhere.yaml" in ran.err
    assert ran.out == ""


def test_a_folder_instead_of_a_file(sluice, home):
    assert sluice("plan", "check", home).code == 8


def test_markup_in_a_plan_is_not_read_as_markup(sluice, home):
    file = write(home, get_template("gpt-j").text.replace("title: GPT-J", "title: '[red]GPT-J[/red]' #"))
    assert "[red]GPT-J[/red]" in sluice("plan", "show", file).out


def test_a_file_name_with_escape_sequences_does_not_reach_the_terminal(sluice, home):
    file = write(home, "x", name="a\x1b[2Jb.yaml")
    assert "\x1b[2J" not in sluice("plan", "check", file).out


def test_a_plan_is_shown_step_by_step(sluice, home):
    ran = sluice("plan", "show", write(home, get_template("gpt-2").text))
    assert ran.code == 0
    for step in get_template("gpt-2").plan().steps:
        assert step.name in ran.out
    assert "can't be undone" in ran.out
    assert "withheld: webtext (intellectual_property)" in ran.out


def test_a_broken_plan_is_not_shown(sluice, home):
    ran = sluice("plan", "show", write(home, "format: x"), "--json")
    assert ran.code == 6
    assert ran.error["exit_code"] == 6
    assert ran.error["reasons"]


def test_a_new_plan_is_written_from_a_template(sluice, home):
    file = home / "mine.yaml"
    ran = sluice("plan", "new", file, "--template", "gpt-j", "--title", "Our model", "--organisation", "Us")
    assert ran.code == 0
    value = yaml.safe_load(file.read_text())
    assert (value["title"], value["organisation"]) == ("Our model", "Us")
    assert sluice("plan", "check", file).code == 0


def test_a_new_plan_overwrites_nothing(sluice, home):
    file = write(home, "mine")
    assert sluice("plan", "new", file).code == 8
    assert file.read_text() == "mine"


def test_a_new_plan_is_printed_when_no_file_is_named(sluice):
    assert sluice("plan", "new", "-t", "bloom").out == get_template("bloom").text


def test_templates_are_listed(sluice):
    assert [t["name"] for t in sluice("plan", "new", "--list", "--json").json] == template_names()


def test_a_template_that_is_not_there(sluice):
    ran = sluice("plan", "new", "-t", "nope")
    assert ran.code == 4
    assert "five-stages" in ran.err


def test_the_schema_is_printed(sluice):
    assert json.loads(sluice("plan", "schema").out) == json.loads(published_schema())
