"""The rules that a plan must keep: each broken one alone, by its path; several at once, all of them (DOMAIN.md)."""

import copy
from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.domain.component import CATEGORY_OF_KIND, Kind
from orchestrator.domain.errors import PlanRefused
from orchestrator.domain.opening import OpeningHours
from orchestrator.domain.plan import HandOut, Plan
from orchestrator.domain.plan_rules import MAX_PLAN_BYTES, broken_rules, require_sound
from orchestrator.domain.quorum import most_filled
from orchestrator.domain.stage import Stage
from orchestrator.domain.values import format_duration, parse_duration
from orchestrator.plans.library import get_template
from orchestrator.plans.text import load_plan

KEY = "ssh-ed25519 " + "A" * 68
CLOSED, HOSTED, API, DOWNLOAD, OPEN = range(5)


def document(name: str = "five-stages") -> dict:
    return yaml.safe_load(get_template(name).text)


def broken(value: dict, barred=()) -> list[tuple[str, str]]:
    return [(r.code, r.path) for r in broken_rules(Plan.model_validate(value), barred)]


def gate(value: dict, step: int) -> dict:
    return value["steps"][step].setdefault("gate", {})


def drop_control(value: dict, step: int, kind: str) -> None:
    controls = value["steps"][step]["controls"]
    value["steps"][step]["controls"] = [c for c in controls if c["kind"] != kind]


# One entry per rule and part of a rule: a name that says it, the change, and the reasons that must come out: no others.
def _unknown_partner(v):
    v["partner_groups"]["researchers"]["partners"].append("nobody")


def _same_step_name(v):
    v["steps"][2]["name"] = "hosted"


def _unknown_component(v):
    v["steps"][1]["components"].append("ghost")


def _component_twice(v):
    v["steps"][1]["components"].append("weights")


def _unknown_group(v):
    v["steps"][1]["audience"] = {"partners": ["ghosts"]}


def _unknown_role(v):
    gate(v, CLOSED)["sign_offs"] = [{"role": "ghost"}]


def _role_twice(v):
    gate(v, HOSTED)["sign_offs"] = [
        {"role": r} for r in ("safety", "policy", "external-review", "external-review")
    ]


def _control_twice(v):
    v["steps"][1]["controls"].append({"kind": "content_filter"})


def _same_recipient(v):
    v["deployments"]["query-api"]["recipient"] = v["deployments"]["playground"]["recipient"]


def _partner_with_a_deployments_recipient(v):
    v["partners"]["open-audit"]["recipient"] = v["deployments"]["playground"]["recipient"]


def _withheld_in_a_step(v):
    v["components"]["config"]["withheld"] = {"reason": "misuse"}
    v["steps"].pop()
    for step in (HOSTED, API):
        v["steps"][step]["components"].remove("config")


def _goes_down(v):
    v["steps"][API]["stage"] = "hosted"
    v["steps"][HOSTED]["stage"] = "api"


def _closed_for_partners(v):
    v["steps"][CLOSED]["audience"] = {"partners": ["researchers"]}


def _closed_for_the_public(v):
    v["steps"][CLOSED]["audience"] = "public"


def _internal_beyond_closed(v):
    v["steps"][API]["audience"] = "internal"


def _gated_open(v):
    v["steps"][OPEN]["audience"] = {"partners": ["researchers"]}


def _open_without_a_component(v):
    v["steps"][OPEN]["components"].remove("evaluation")


def _open_with_a_withheld_component(v):
    v["components"]["evaluation"]["withheld"] = {"reason": "privacy"}
    v["steps"][OPEN]["components"].remove("evaluation")


def _open_without_documentation(v):
    del v["components"]["tokenizer"]["documentation"]


def _open_that_hands_out_nothing(v):
    v["steps"][OPEN]["components"][0] = {"name": "weights", "hand_out": "nothing"}


def _step_after_open(v):
    v["steps"].append({**copy.deepcopy(v["steps"][OPEN]), "name": "again"})


def _plaintext_before_open(v):
    v["steps"][DOWNLOAD]["publish_plaintext"] = True


def _weights_key_to_the_audience(stage):
    def change(v):
        v["steps"][stage]["components"][0] = {"name": "weights", "hand_out": "key", "to": "audience"}

    return change


def _plaintext_at_hosted(v):
    v["steps"][HOSTED]["components"][0] = {"name": "weights", "hand_out": "plaintext"}


def _plaintext_of_a_tokenizer_at_api(v):
    v["steps"][API]["components"][1] = {"name": "tokenizer", "hand_out": "plaintext", "to": "audience"}


def _key_at_closed(v):
    v["steps"][CLOSED]["components"][0] = {"name": "weights", "hand_out": "key"}


def _unknown_deployment(v):
    v["steps"][HOSTED]["deployments"] = ["playground", "elsewhere"]


def _no_deployment(v):
    v["steps"][API]["deployments"] = []


def _deployment_at_downloadable(v):
    v["steps"][DOWNLOAD]["deployments"] = ["playground"]


def _key_to_deployments_at_downloadable(v):
    v["steps"][DOWNLOAD]["components"][0] = {"name": "weights", "to": "deployments"}


def _no_card(v):
    gate(v, HOSTED)["evidence"] = [{"kind": "risk_assessment"}]


def _no_assessment(v):
    gate(v, API)["evidence"] = [{"kind": "system_card"}]


def _no_evidence_at_all(v):
    gate(v, OPEN)["evidence"] = []


def _without(step, kind):
    return lambda v: drop_control(v, step, kind)


def _one_person(v):
    gate(v, OPEN)["sign_offs"] = [{"role": "external-review", "external": True}]


def _one_role(v):
    gate(v, DOWNLOAD)["sign_offs"] = [{"role": "external-review", "count": 2, "external": True}]


def _no_cooling_off(v):
    del gate(v, DOWNLOAD)["cooling_off"]


def _no_cooling_off_at_open(v):
    del gate(v, OPEN)["cooling_off"]


def _waived_license(v):
    drop_control(v, OPEN, "license")
    v["steps"][OPEN]["controls"].append({"kind": "license", "waived": "we do not like licenses"})


def _too_many_of_a_role(v):
    gate(v, HOSTED)["sign_offs"] = [{"role": "safety", "count": 2}]


def _one_person_for_two_roles(v):
    v["people"]["ada"]["roles"] = ["safety", "both"]
    gate(v, HOSTED)["sign_offs"] = [{"role": "safety"}, {"role": "both"}]


def _outsiders_who_are_not(v):
    v["people"]["elif"]["external"] = False
    gate(v, HOSTED)["sign_offs"] = [{"role": "external-review", "count": 2, "external": True}]
    gate(v, OPEN)["sign_offs"][-1]["count"] = 1


def _quorum_of_too_many(v):
    v["quorums"]["amend"] = {"count": 7}


def _quorum_of_a_role_with_one(v):
    v["quorums"]["resume"] = {"count": 2, "roles": ["legal"]}


def _key_under_two_people(v):
    v["people"]["ada"]["keys"] = [f"{KEY} ada@work"]
    v["people"]["ben"]["keys"] = [f"{KEY} another comment"]


def _more_shares_than_signers(v):
    gate(v, OPEN)["shares"] = 6


def _nobody_from_outside(v):
    gate(v, DOWNLOAD)["sign_offs"] = [{"role": "safety"}, {"role": "legal"}]


def _outside_role_without_the_mark(v):
    del gate(v, DOWNLOAD)["sign_offs"][2]["external"]


def _straight_to_open_without_outside(v):
    del v["steps"][DOWNLOAD]
    gate(v, 3)["sign_offs"] = [{"role": "safety"}, {"role": "legal"}]


BROKEN = {
    "0: a group names a partner that is not there": (
        _unknown_partner,
        [("rule-0", "partner_groups.researchers.partners[2]")],
    ),
    "0: two steps of one name": (_same_step_name, [("rule-0", "steps[2].name")]),
    "0: a component that is not there": (_unknown_component, [("rule-0", "steps[1].components[3]")]),
    "0: a component twice in a step": (_component_twice, [("rule-0", "steps[1].components[3]")]),
    "0: a partner group that is not there": (_unknown_group, [("rule-0", "steps[1].audience.partners[0]")]),
    "0: a role that nobody has": (
        _unknown_role,
        [("rule-0", "steps[0].gate.sign_offs[0].role"), ("rule-7", "steps[0].gate.sign_offs")],
    ),
    "0: a role asked for twice": (_role_twice, [("rule-0", "steps[1].gate.sign_offs[3].role")]),
    "0: a control twice in a step": (_control_twice, [("rule-0", "steps[1].controls[4].kind")]),
    "0: two deployments with one recipient": (
        _same_recipient,
        [("rule-0", "deployments.query-api.recipient")],
    ),
    "0: a partner with a deployment's recipient": (
        _partner_with_a_deployments_recipient,
        [("rule-0", "deployments.playground.recipient")],
    ),
    "0: a withheld component in a step": (_withheld_in_a_step, [("rule-0", "steps[3].components[2]")]),
    "1: a component goes down": (
        _goes_down,
        [("rule-1", f"steps[2].components[{i}]") for i in range(3)],
    ),
    "1: closed for partners": (_closed_for_partners, [("rule-1", "steps[0].audience")]),
    "1: closed for the public": (_closed_for_the_public, [("rule-1", "steps[0].audience")]),
    "1: internal beyond closed": (_internal_beyond_closed, [("rule-1", "steps[2].audience")]),
    "2: a gated open": (_gated_open, [("rule-2", "steps[4].audience")]),
    "2: open without a component": (_open_without_a_component, [("rule-2", "steps[4].components")]),
    "2: open while one is withheld": (_open_with_a_withheld_component, [("rule-2", "steps[4].stage")]),
    "2: open without documentation": (
        _open_without_documentation,
        [("rule-2", "components.tokenizer.documentation")],
    ),
    "2: open that hands out nothing": (_open_that_hands_out_nothing, [("rule-2", "steps[4].components[0]")]),
    "2: a step after open": (_step_after_open, [("rule-2", "steps[5]")]),
    "2: plaintext before open": (_plaintext_before_open, [("rule-2", "steps[3].publish_plaintext")]),
    "3: the weights' key to the audience of hosted": (
        _weights_key_to_the_audience(HOSTED),
        [("rule-3", "steps[1].components[0]")],
    ),
    "3: the weights' key to the audience of api": (
        _weights_key_to_the_audience(API),
        [("rule-3", "steps[2].components[0]")],
    ),
    "3: plaintext at hosted": (_plaintext_at_hosted, [("rule-3", "steps[1].components[0]")]),
    "3: plaintext of another component at api": (
        _plaintext_of_a_tokenizer_at_api,
        [("rule-3", "steps[2].components[1]")],
    ),
    "3: a key at closed": (_key_at_closed, [("rule-3", "steps[0].components[0]")]),
    "3: a deployment that is not there": (_unknown_deployment, [("rule-3", "steps[1].deployments[1]")]),
    "3: weights served by nobody": (_no_deployment, [("rule-3", "steps[2].deployments")]),
    "3: a deployment at downloadable": (_deployment_at_downloadable, [("rule-3", "steps[3].deployments")]),
    "3: a key for deployments at downloadable": (
        _key_to_deployments_at_downloadable,
        [("rule-3", "steps[3].components[0]")],
    ),
    "4: no card": (_no_card, [("rule-4", "steps[1].gate.evidence")]),
    "4: no risk assessment": (_no_assessment, [("rule-4", "steps[2].gate.evidence")]),
    "4: no evidence at all": (_no_evidence_at_all, [("rule-4", "steps[4].gate.evidence")] * 2),
    **{
        f"5: {Stage.HOSTED if step == HOSTED else Stage.API} without {kind}": (
            _without(step, kind),
            [("rule-5", f"steps[{step}].controls")],
        )
        for step in (HOSTED, API)
        for kind in ("rate_limit", "user_accounts", "input_monitoring")
    },
    "6: one person": (_one_person, [("rule-6", "steps[4].gate.sign_offs")]),
    "6: one role": (_one_role, [("rule-6", "steps[3].gate.sign_offs")]),
    "6: no cooling-off at downloadable": (_no_cooling_off, [("rule-6", "steps[3].gate.cooling_off")]),
    "6: no cooling-off at open": (_no_cooling_off_at_open, [("rule-6", "steps[4].gate.cooling_off")]),
    "6: no license at downloadable": (_without(DOWNLOAD, "license"), [("rule-6", "steps[3].controls")]),
    "6: a waived license": (_waived_license, [("rule-6", "steps[4].controls")]),
    "7: more of a role than there are": (_too_many_of_a_role, [("rule-7", "steps[1].gate.sign_offs")]),
    "7: one person in two roles": (_one_person_for_two_roles, [("rule-7", "steps[1].gate.sign_offs")]),
    "7: outsiders who are not": (_outsiders_who_are_not, [("rule-7", "steps[1].gate.sign_offs")]),
    "7: a quorum of more people than there are": (_quorum_of_too_many, [("rule-7", "quorums.amend")]),
    "7: a quorum of a role that one holds": (_quorum_of_a_role_with_one, [("rule-7", "quorums.resume")]),
    "7: one key under two people": (_key_under_two_people, [("rule-7", "people.ben.keys[0]")]),
    "7: more shares than people who sign": (_more_shares_than_signers, [("rule-7", "steps[4].gate.shares")]),
    "8: nobody from outside": (_nobody_from_outside, [("rule-8", "steps[3].gate.sign_offs")]),
    "8: an outside role without the mark": (
        _outside_role_without_the_mark,
        [("rule-8", "steps[3].gate.sign_offs")],
    ),
    "8: straight to open with nobody from outside": (
        _straight_to_open_without_outside,
        [("rule-8", "steps[3].gate.sign_offs")],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_alone_is_reported_with_its_path(name):
    change, expected = BROKEN[name]
    value = document()
    change(value)
    assert broken(value) == expected


@pytest.mark.parametrize("name", BROKEN)
def test_the_line_of_a_broken_rule_is_found_in_the_text(name):
    change, _ = BROKEN[name]
    value = document()
    change(value)
    with pytest.raises(PlanRefused) as caught:
        load_plan(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), "plan.yaml")
    assert all(reason.line and reason.path and reason.message for reason in caught.value.reasons)


def test_the_plain_plan_breaks_nothing():
    assert broken(document()) == []


def test_many_broken_rules_are_all_reported_at_once():
    value = document()
    names = [
        "0: a group names a partner that is not there",
        "1: closed for the public",
        "2: a gated open",
        "3: the weights' key to the audience of api",
        "4: no card",
        "5: hosted without rate_limit",
        "6: no cooling-off at downloadable",
        "7: a quorum of more people than there are",
        "8: nobody from outside",
    ]
    for name in names:
        BROKEN[name][0](value)
    expected = {reason for name in names for reason in BROKEN[name][1]}
    assert set(broken(value)) == expected
    with pytest.raises(PlanRefused) as caught:
        require_sound(Plan.model_validate(value))
    assert {(r.code, r.path) for r in caught.value.reasons} == expected


def test_a_waiver_with_a_reason_keeps_rule_5():
    value = document()
    for kind in ("rate_limit", "user_accounts", "input_monitoring"):
        drop_control(value, HOSTED, kind)
        value["steps"][HOSTED]["controls"].append({"kind": kind, "waived": "a closed circle of ten people"})
    assert broken(value) == []


def test_a_waiver_needs_its_reason():
    value = document()
    value["steps"][HOSTED]["controls"] = [{"kind": "rate_limit", "waived": ""}]
    with pytest.raises(ValidationError):
        Plan.model_validate(value)


def test_a_waiver_with_a_reason_keeps_rule_8():
    value = document()
    _nobody_from_outside(value)
    gate(value, DOWNLOAD)["waive_external_sign_off"] = "no one outside may know of it yet"
    assert broken(value) == []


def test_an_open_step_after_downloadable_needs_nobody_from_outside_again():
    value = document()
    gate(value, OPEN)["sign_offs"] = [{"role": "safety"}, {"role": "legal"}]
    assert broken(value) == []


@pytest.mark.parametrize("barred", [["ada"], ["elif", "femi"]])
def test_whoever_created_or_uploaded_cannot_be_needed(barred):
    reasons = broken_rules(Plan.model_validate(document()), barred)
    assert reasons
    assert {r.code for r in reasons} == {"rule-7"}
    assert all(name in reason.message for reason in reasons for name in barred)


def test_whoever_created_may_be_somebody_whom_nothing_needs():
    assert broken(document(), barred=["pipeline"]) == []


def test_variants_may_stand_at_different_stages():
    value = document("gpt-2")
    assert broken(value) == []
    value["steps"][2]["components"].append("weights-124m")
    value["steps"][2]["stage"] = "hosted"
    assert ("rule-1", "steps[2].components[1]") in broken(value)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_its_category(kind):
    value = document()
    category = CATEGORY_OF_KIND[kind]
    value["components"]["extra"] = {"category": category.value, "kind": kind.value}
    Plan.model_validate(value)
    for other in {"model", "risk_analysis", "replication"} - {category.value}:
        value["components"]["extra"]["category"] = other
        with pytest.raises(ValidationError, match="belongs to the category"):
            Plan.model_validate(value)


@pytest.mark.parametrize(
    ("stage", "kind", "expected"),
    [
        ("closed", "weights", (HandOut.NOTHING, "audience")),
        ("hosted", "weights", (HandOut.KEY, "deployments")),
        ("api", "tokenizer", (HandOut.KEY, "deployments")),
        ("downloadable", "weights", (HandOut.KEY, "audience")),
        ("open", "weights", (HandOut.PLAINTEXT, "audience")),
    ],
)
def test_what_is_handed_out_follows_the_stage(stage, kind, expected):
    plan = Plan.model_validate(document())
    step = next(s for s in plan.steps if s.stage == stage)
    component = next(c for c in step.components if plan.components[c.name].kind == kind)
    assert plan.hand_out(step, component) == expected


# --- quorums -----------------------------------------------------------------------------------------------------------


def most_by_trying(places: list[list[str]]) -> int:
    """The largest number of places filled by different people, by trying every choice."""
    best = 0
    for choice in product(*[[None, *set(place)] for place in places]):
        chosen = [name for name in choice if name is not None]
        if len(chosen) == len(set(chosen)):
            best = max(best, len(chosen))
    return best


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=4), max_size=5))
def test_filling_places_is_as_good_as_trying_everything(places):
    assert most_filled(places) == most_by_trying(places)


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=3), max_size=4))
def test_the_order_of_places_does_not_matter(places):
    assert len({most_filled(list(order)) for order in permutations(places)}) == 1


def test_thousands_of_places_for_hundreds_of_people_are_answered():
    everybody = [f"p{i}" for i in range(500)]
    assert most_filled([everybody] * 2_500) == 500
    chain = [everybody[i : i + 2] for i in range(499)]
    assert most_filled([*reversed(chain), everybody[:1]]) == 500
    assert most_filled([[*everybody[:499]]] * 600 + [["p499"]]) == 500


@given(
    st.dictionaries(
        st.sampled_from(["ann", "bob", "cid", "dot"]),
        st.tuples(st.sets(st.sampled_from(["r1", "r2", "r3"]), min_size=1), st.booleans()),
        min_size=1,
    ),
    st.lists(
        st.tuples(st.sampled_from(["r1", "r2", "r3"]), st.integers(1, 2), st.booleans()),
        min_size=1,
        max_size=3,
        unique_by=lambda t: t[0],
    ),
)
def test_a_plan_is_refused_exactly_when_its_gate_could_never_be_filled(people, needs):
    value = document("gpt-j")
    value["people"] = {
        name: {"name": name, "roles": sorted(roles), "external": external}
        for name, (roles, external) in people.items()
    }
    value["quorums"] = {}
    value["steps"] = [
        {
            "name": "one",
            "stage": "closed",
            "audience": "internal",
            "components": ["weights-6b"],
            "gate": {"sign_offs": [{"role": r, "count": n, "external": x} for r, n, x in needs]},
        }
    ]
    places = [
        [name for name, (roles, external) in people.items() if role in roles and (external or not outside)]
        for role, number, outside in needs
        for _ in range(number)
    ]
    reported = ("rule-7", "steps[0].gate.sign_offs") in broken(value)
    assert reported == (most_by_trying(places) < len(places))


# --- durations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("45m", 2_700),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("1d12h", 129_600),
        ("1w1d1h1m1s", 694_861),
        ("7d", 604_800),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0s",
        "0d0h0m",
        "-1d",
        "1.5h",
        "1",
        "d",
        "1 d",
        "1y",
        "P1D",
        "1d ",
        "99999w",
        "9999999999s",
        None,
        5,
        "\u0661d",
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError):
        parse_duration(text)


@given(st.integers(1, 3_660 * 86_400))
def test_a_duration_reads_back_as_it_was_written(seconds):
    value = timedelta(seconds=seconds)
    assert parse_duration(format_duration(value)) == value


# --- the digest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["five-stages", "gpt-2", "dall-e-2"])
def test_comments_key_order_and_spelling_do_not_change_the_digest(name):
    text = get_template(name).text
    digest = load_plan(text, "a").digest

    def reordered(value):
        if isinstance(value, dict):
            return {key: reordered(value[key]) for key in sorted(value, reverse=True)}
        return [reordered(item) for item in value] if isinstance(value, list) else value

    plain = yaml.safe_dump(reordered(yaml.safe_load(text)), sort_keys=False, allow_unicode=True)
    assert "#" not in plain.split("steps:")[0].replace("'#", "")
    assert load_plan(plain, "b").digest == digest
    respelled = text.replace("30d", "4w2d").replace("60d", "8w4d").replace("3d", "72h").replace("1w", "7d")
    assert load_plan(respelled, "c").digest == digest


def test_a_default_written_out_does_not_change_the_digest():
    text = get_template("gpt-j").text
    longer = text.replace("cooling_off: 3d", "cooling_off: 3d\n      sign_off_validity: 90d")
    assert load_plan(longer, "a").digest == load_plan(text, "b").digest


def test_a_component_named_alone_or_as_a_field_is_the_same():
    text = get_template("gpt-j").text
    longer = text.replace("components: [weights-6b,", "components: [{name: weights-6b},")
    assert load_plan(longer, "a").digest == load_plan(text, "b").digest


@pytest.mark.parametrize(
    ("old", "new"),
    [("cooling_off: 3d", "cooling_off: 4d"), ("count: 1", "count: 2"), ("Apache-2.0", "MIT"), ("cy:", "cz:")],
)
def test_what_means_something_else_has_another_digest(old, new):
    text = get_template("gpt-j").text
    assert load_plan(text.replace(old, new), "a").digest != load_plan(text, "b").digest


def test_the_order_of_steps_is_part_of_the_digest():
    value = document()
    swapped = {**value, "steps": value["steps"][::-1]}
    assert Plan.model_validate(value).digest != Plan.model_validate(swapped).digest


def test_a_plan_reads_back_from_its_own_canonical_form():
    plan = Plan.model_validate(document())
    again = Plan.model_validate(plan.model_dump(mode="json"))
    assert again == plan
    assert again.digest == plan.digest


def test_the_digest_of_a_plan_is_frozen():
    """A change here means that every signed plan in the world has another digest: it needs a new format version."""
    value = {
        "format": "sluice.plan/v1",
        "title": "Frozen",
        "organisation": "Example",
        "components": {"w": {"category": "model", "kind": "weights"}},
        "people": {"a": {"name": "A", "roles": ["r"]}, "b": {"name": "B", "roles": ["r"]}},
        "steps": [{"name": "s", "stage": "closed", "audience": "internal", "components": ["w"]}],
    }
    assert Plan.model_validate(value).digest == FROZEN


FROZEN = "sha256:8b176d014a67d1767e85efd3d2ee183c65be94c0c0020f509dce1c3f391c870d"

# --- opening hours -----------------------------------------------------------------------------------------------------

ZURICH = ZoneInfo("Europe/Zurich")
OFFICE = OpeningHours(
    rrule="FREQ=WEEKLY;BYDAY=MO,TU,WE,TH;BYHOUR=9;BYMINUTE=0;BYSECOND=0",
    duration="8h",
    time_zone="Europe/Zurich",
)


def utc(*args: int) -> datetime:
    return datetime(*args, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "is_open"),
    [
        (utc(2026, 1, 14, 8, 0), True),  # Wednesday 09:00 in winter
        (utc(2026, 1, 14, 7, 59), False),
        (utc(2026, 7, 15, 7, 0), True),  # Wednesday 09:00 in summer: an hour earlier in UTC
        (utc(2026, 7, 15, 15, 0), False),
        (utc(2026, 7, 17, 10, 0), False),  # Friday
    ],
)
def test_opening_hours_follow_the_wall_clock(now, is_open):
    assert OFFICE.open_at(now) is is_open


def test_opening_hours_over_the_start_of_summer_time():
    # 29 March 2026 is a Sunday; the clock goes from 02:00 to 03:00.
    assert OFFICE.next_opening(utc(2026, 3, 26, 16, 0)) == utc(2026, 3, 30, 7, 0)
    assert OFFICE.next_opening(utc(2026, 3, 25, 16, 0)) == utc(2026, 3, 26, 8, 0)


def test_opening_hours_over_the_end_of_summer_time():
    assert OFFICE.next_opening(utc(2026, 10, 22, 15, 0)) == utc(2026, 10, 26, 8, 0)
    assert OFFICE.next_closing(utc(2026, 10, 26, 9, 0)) == utc(2026, 10, 26, 16, 0)


def test_an_opening_in_the_hour_that_does_not_exist_still_comes():
    nightly = OpeningHours(
        rrule="FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0", duration="1h", time_zone="Europe/Zurich"
    )
    opening = nightly.next_opening(utc(2026, 3, 29, 0, 30))
    assert opening is not None
    assert utc(2026, 3, 29, 0, 30) <= opening <= utc(2026, 3, 29, 1, 30)


def test_an_opening_in_the_hour_that_comes_twice_lasts_its_duration():
    nightly = OpeningHours(
        rrule="FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0", duration="1h", time_zone="Europe/Zurich"
    )
    opening = nightly.next_opening(utc(2026, 10, 24, 12, 0))
    closing = nightly.next_closing(opening)
    assert closing - opening == timedelta(hours=1)


@given(st.integers(0, 2 * 365 * 86_400))
def test_it_is_open_when_it_said_it_would_be_and_closed_after(seconds):
    now = utc(2026, 1, 1) + timedelta(seconds=seconds)
    opening = OFFICE.next_opening(now)
    assert opening >= now
    assert OFFICE.open_at(opening)
    closing = OFFICE.next_closing(opening)
    assert not OFFICE.open_at(closing)
    assert OFFICE.open_at(closing - timedelta(seconds=1))
    assert (OFFICE.next_opening(now) == now) == OFFICE.open_at(now)


@pytest.mark.parametrize(
    "change",
    [
        {"rrule": "every monday"},
        {"rrule": "FREQ=HOURLY"},
        {"rrule": "FREQ=DAILY;INTERVAL=0"},
        {"rrule": "FREQ=DAILY;INTERVAL=-1"},
        {"rrule": "FREQ=DAILY;INTERVAL=1000000000"},
        {"rrule": "FREQ=DAILY;INTERVAL="},
        {"rrule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"},
        {"rrule": "FREQ=DAILY;BYHOUR=25"},
        {"rrule": "FREQ=SECONDLY"},
        {"rrule": "FREQ=DAILY;COUNT=3"},
        {"rrule": "FREQ=DAILY;UNTIL=20260101T000000Z"},
        {"rrule": "DTSTART:20260101T000000\nRRULE:FREQ=DAILY"},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../../etc/passwd"},
        {"duration": "0h"},
    ],
)
def test_opening_hours_that_cannot_be(change):
    fields = {"rrule": "FREQ=DAILY;BYHOUR=9", "duration": "8h", "time_zone": "UTC", **change}
    with pytest.raises(ValidationError):
        OpeningHours.model_validate(fields)


def test_a_plan_that_no_release_could_carry_is_refused_with_its_size():
    value = document()
    value["partners"] |= {
        f"p-{number}": {"name": "N" * 190, "recipient": f"sha256:{number:064x}"} for number in range(1_900)
    }
    plan = Plan.model_validate(value)
    assert broken_rules(plan) == [], "custody judges what stands by the rules alone"
    with pytest.raises(PlanRefused) as refused:
        require_sound(plan)
    (reason,) = refused.value.reasons
    assert reason.code == "plan-too-large"
    assert str(MAX_PLAN_BYTES) in reason.message
