"""What the documents name exists: commands with their options, settings, make targets, files, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import CLIENT_VARIABLES, known_variables

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
#: Read by docker-compose.yml alone.
OF_COMPOSE = set(re.findall(r"\$\{(SLUICE_\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def commands() -> dict[str, str]:
    """Command → its part of the reference, which is made from the commands."""
    parts = re.split(r"^### ", (ROOT / "docs/cli.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {part.split("`")[1]: part for part in parts}


def named(text: str) -> Iterator[str]:
    """Command lines in a page: in backticks, or a line of a block; without comments."""
    text = re.sub(r"\\\n\s*", " ", text)
    inline = re.findall(r"`(?:[A-Z_]+=\S+ )?(sluice [a-z][^`\n]*)`", text)
    blocks = re.findall(r"^\s+(?:[A-Z_]+=\S+ )?(sluice [a-z].*)$", text, re.MULTILINE)
    for line in [*inline, *blocks]:
        yield re.split(r"\s#|\s{3,}|\|| …", line)[0].strip()


def test_every_command_and_option_that_a_page_names_is_there(commands):
    seen = 0
    for page in PAGES:
        for line in named(page.read_text(encoding="utf-8")):
            seen += 1
            name = max((n for n in commands if f"{line} ".startswith(f"{n} ")), key=len, default=None)
            if name is None:  # a whole group
                assert any(n.startswith(f"{line} ") for n in commands), (page.name, line)
                continue
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
                assert option in commands[name] or option in {"--json", "--help"}, (page.name, line)
    assert seen > 300


def test_every_setting_target_and_file_that_a_page_names_is_there():
    settings = {*known_variables(), *CLIENT_VARIABLES} | OF_COMPOSE
    targets = set(
        re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"\bSLUICE_[A-Z0-9_]*[A-Z0-9]\b", text)) <= settings, page.name
        assert set(re.findall(r"(?:`|^    )make ([a-z][a-z-]+)", text, re.MULTILINE)) <= targets, page.name
        for path in re.findall(
            r"`((?:tests|infra|orchestrator|activities|workflows|examples|docs)/[\w/.-]+)`", text
        ):
            assert (ROOT / path).exists(), (page.name, path)
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), (page.name, link)
