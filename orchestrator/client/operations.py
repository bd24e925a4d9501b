"""One function for each operation of the API; each makes a `Call`, which a client sends."""

# Made by `python -m infra.client_code` from OpenAPI; do not edit.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Optional, Union

from orchestrator.client import models as m
from orchestrator.client.calls import Call, filled, plain


def list_releases(*, stage: Optional[m.Stage] = None, status: Optional[Literal['active', 'entering', 'completed', 'aborted']] = None, name: Optional[str] = None, waiting_for: Optional[str] = None, order: Optional[Literal['created', 'updated', 'name']] = None, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.ReleasePage]:
    """Releases, a page at a time.

    Needs the permission `release:read`.
    """
    return Call("listReleases", "GET", "/v1/releases", m.ReleasePage, query={"stage": stage, "status": status, "name": name, "waiting_for": waiting_for, "order": order, "cursor": cursor, "limit": limit})


def create_release(body: Union[m.CreateReleaseBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Start a release along a plan. A plan that breaks rules is refused with every broken one.

    Needs the permission `release:create`.
    """
    return Call("createRelease", "POST", "/v1/releases", m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def get_release(release: str) -> Call[m.ReleaseDetail]:
    """A release as it stands now.

    Needs the permission `release:read`.
    """
    return Call("getRelease", "GET", filled("/v1/releases/{release}", release=release), m.ReleaseDetail)


def get_plan(release: str) -> Call[m.PlanView]:
    """The plan that holds, with its digest.

    Needs the permission `release:read`.
    """
    return Call("getPlan", "GET", filled("/v1/releases/{release}/plan", release=release), m.PlanView)


def list_steps(release: str) -> Call[m.StepList]:
    """The steps of a release in the order of its plan, each with where it stands.

    Needs the permission `release:read`.
    """
    return Call("listSteps", "GET", filled("/v1/releases/{release}/steps", release=release), m.StepList)


def get_step(release: str, step: str) -> Call[m.StepDetail]:
    """One step with its definition.

    Needs the permission `release:read`.
    """
    return Call("getStep", "GET", filled("/v1/releases/{release}/steps/{step}", release=release, step=step), m.StepDetail)


def get_gate(release: str, step: str) -> Call[m.GateView]:
    """The verdict on the gate now: every unmet condition, who can meet it, and when a clock will.

    Needs the permission `release:read`.
    """
    return Call("getGate", "GET", filled("/v1/releases/{release}/steps/{step}/gate", release=release, step=step), m.GateView)


def preview_command(release: str, step: str, body: Union[m.PreviewBody, Mapping[str, Any]]) -> Call[m.Preview]:
    """What a command would do if the caller sent it now; nothing is changed and nothing is logged as refused.

    Needs the permission `release:read`.
    """
    return Call("previewCommand", "POST", filled("/v1/releases/{release}/steps/{step}/gate/preview", release=release, step=step), m.Preview, body=plain(body), sends="json")


def sign_off(release: str, step: str, body: Union[m.SignOffBody, Mapping[str, Any]], *, if_match: Optional[str] = None, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Approve or reject the gate in one role, exactly as it was read.

    Needs the permission `gate:sign`.
    """
    return Call("signOff", "POST", filled("/v1/releases/{release}/steps/{step}/sign-offs", release=release, step=step), m.CommandResult, body=plain(body), sends="json", headers={"If-Match": if_match, "Idempotency-Key": idempotency_key}, keyed=True)


def withdraw_sign_off(release: str, step: str, body: Union[m.WithdrawBody, Mapping[str, Any]], *, if_match: Optional[str] = None, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Take one's own sign-off back, until the step is entered.

    Needs the permission `gate:sign`.
    """
    return Call("withdrawSignOff", "POST", filled("/v1/releases/{release}/steps/{step}/sign-offs/withdraw", release=release, step=step), m.CommandResult, body=plain(body), sends="json", headers={"If-Match": if_match, "Idempotency-Key": idempotency_key}, keyed=True)


def retry_entry(release: str, step: str, *, if_match: Optional[str] = None, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Try again to enter a step whose entry was taken back.

    Needs the permission `gate:retry`.
    """
    return Call("retryEntry", "POST", filled("/v1/releases/{release}/steps/{step}/retry", release=release, step=step), m.CommandResult, headers={"If-Match": if_match, "Idempotency-Key": idempotency_key}, keyed=True)


def break_glass(release: str, step: str, body: Union[m.BreakGlassBody, Mapping[str, Any]], *, if_match: Optional[str] = None, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Lift conditions of the next gate in an emergency; the second person carries it out. Leaves a review.

    Needs the permission `release:break-glass`.
    """
    return Call("breakGlass", "POST", filled("/v1/releases/{release}/steps/{step}/break-glass", release=release, step=step), m.CommandResult, body=plain(body), sends="json", headers={"If-Match": if_match, "Idempotency-Key": idempotency_key}, keyed=True)


def extend_window(release: str, step: str, body: Union[m.ExtendWindowBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Ask for more research time before the step. One person may, at once.

    Needs the permission `window:extend`.
    """
    return Call("extendWindow", "POST", filled("/v1/releases/{release}/steps/{step}/window/extend", release=release, step=step), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def shorten_window(release: str, step: str, body: Union[m.ShortenWindowBody, Mapping[str, Any]], *, if_match: Optional[str] = None, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Ask for less research time. Proposed at first; carried out when a quorum stands behind it.

    Needs the permission `window:shorten`.
    """
    return Call("shortenWindow", "POST", filled("/v1/releases/{release}/steps/{step}/window/shorten", release=release, step=step), m.CommandResult, body=plain(body), sends="json", headers={"If-Match": if_match, "Idempotency-Key": idempotency_key}, keyed=True)


def report_control(release: str, step: str, control: str, body: Union[m.ControlBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Attest that a control of the step is in force, or say that it is not.

    Needs the permission `control:attest`.
    """
    return Call("reportControl", "PUT", filled("/v1/releases/{release}/steps/{step}/controls/{control}", release=release, step=step, control=control), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def invite(release: str, step: str, body: Union[m.InviteBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Invite one outside reviewer without an account to sign the gate as it stands, once.

    Needs the permission `gate:sign`.
    """
    return Call("invite", "POST", filled("/v1/releases/{release}/steps/{step}/invitations", release=release, step=step), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def list_invitations(release: str) -> Call[m.InvitationList]:
    """Invitations to the next gate, with what became of each.

    Needs the permission `release:read`.
    """
    return Call("listInvitations", "GET", filled("/v1/releases/{release}/invitations", release=release), m.InvitationList)


def revoke_invitation(release: str, invitation: str, body: Union[m.ReasonBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Take an invitation back. An approval that was given on it counts no more; a rejection stands.

    Needs the permission `gate:sign`.
    """
    return Call("revokeInvitation", "POST", filled("/v1/releases/{release}/invitations/{invitation}/revoke", release=release, invitation=invitation), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def show_invitation(invitation: str, body: Union[m.AcceptanceBody, Mapping[str, Any]]) -> Call[m.InvitedView]:
    """What the holder of an invitation is asked to sign. Takes no account; the one-time key of the invitation opens it."""
    return Call("showInvitation", "POST", filled("/v1/invitations/{invitation}", invitation=invitation), m.InvitedView, body=plain(body), sends="json")


def sign_invited(invitation: str, body: Union[m.InvitedSignOffBody, Mapping[str, Any]]) -> Call[m.CommandResult]:
    """Approve or reject as an invited reviewer. Takes no account, and uses the invitation up."""
    return Call("signInvited", "POST", filled("/v1/invitations/{invitation}/sign-off", invitation=invitation), m.CommandResult, body=plain(body), sends="json")


def withdraw_invited(invitation: str, body: Union[m.InvitedWithdrawBody, Mapping[str, Any]]) -> Call[m.CommandResult]:
    """Take one's own sign-off on an invitation back, with the key that accepted it. The invitation stays used up."""
    return Call("withdrawInvited", "POST", filled("/v1/invitations/{invitation}/withdraw", invitation=invitation), m.CommandResult, body=plain(body), sends="json")


def list_evidence(release: str) -> Call[m.EvidenceList]:
    """The latest document of each kind and step, newest first.

    Needs the permission `release:read`.
    """
    return Call("listEvidence", "GET", filled("/v1/releases/{release}/evidence", release=release), m.EvidenceList)


def submit_evidence(release: str, body: Union[m.EvidenceBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Bind a document that lies elsewhere, by its digest.

    Needs the permission `evidence:add`.
    """
    return Call("submitEvidence", "POST", filled("/v1/releases/{release}/evidence", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def submit_assessment(release: str, body: Union[m.AssessmentBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.DocumentResult]:
    """Fill in a risk assessment: all six considerations, for one step. Stored sealed, bound by its digest.

    Needs the permission `evidence:add`.
    """
    return Call("submitAssessment", "POST", filled("/v1/releases/{release}/evidence/assessments", release=release), m.DocumentResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def upload_evidence(release: str, file: tuple[str, bytes, str], kind: str, title: str, *, step: Optional[str] = None, idempotency_key: Optional[str] = None) -> Call[m.DocumentResult]:
    """Upload a document: its digest is computed here, its text is stored sealed. Ratings of an assessment are taken out.

    Needs the permission `evidence:add`.
    """
    return Call("uploadEvidence", "POST", filled("/v1/releases/{release}/evidence/documents", release=release), m.DocumentResult, body={name: value for name, value in {"kind": kind, "title": title, "step": step}.items() if value is not None}, sends="multipart", files={'file': file}, headers={"Idempotency-Key": idempotency_key}, keyed=True)


def get_evidence_document(release: str, digest: str) -> Call[bytes]:
    """A document that this release has bound, checked against its digest. Always sent as a file, never shown as a page.

    Needs the permission `release:read`.
    """
    return Call("getEvidenceDocument", "GET", filled("/v1/releases/{release}/evidence/documents/{digest}", release=release, digest=digest), bytes)


def hold(release: str, body: Union[m.ReasonBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Stop all clocks and gates, at once. One person may.

    Needs the permission `release:hold`.
    """
    return Call("hold", "POST", filled("/v1/releases/{release}/hold", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def resume(release: str, body: Union[m.ResumeBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Lift the holds that stand now: proposed at first, carried out when a quorum stands behind it.

    Needs the permission `release:resume`.
    """
    return Call("resume", "POST", filled("/v1/releases/{release}/resume", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def list_incidents(release: str) -> Call[m.IncidentList]:
    """Incidents of the release, the latest first.

    Needs the permission `release:read`.
    """
    return Call("listIncidents", "GET", filled("/v1/releases/{release}/incidents", release=release), m.IncidentList)


def report_incident(release: str, body: Union[m.IncidentBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Report a leak, misuse or harm. The plan's response table acts at once.

    Needs the permission `incident:report`.
    """
    return Call("reportIncident", "POST", filled("/v1/releases/{release}/incidents", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def triage_incident(release: str, incident: str, body: Union[m.TriageBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Judge an incident: how bad, how sure, whose copy.

    Needs the permission `incident:triage`.
    """
    return Call("triageIncident", "POST", filled("/v1/releases/{release}/incidents/{incident}/triage", release=release, incident=incident), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def close_incident(release: str, incident: str, body: Union[m.CloseIncidentBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Close an incident with a written outcome; a severe one, and every leak, by a quorum.

    Needs the permission `incident:close`.
    """
    return Call("closeIncident", "POST", filled("/v1/releases/{release}/incidents/{incident}/close", release=release, incident=incident), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def amend_plan(release: str, body: Union[m.AmendBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Replace the plan from here on, by the quorum of the plan that is replaced.

    Needs the permission `release:amend`.
    """
    return Call("amendPlan", "POST", filled("/v1/releases/{release}/amendments", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def endorse(release: str, proposal: str, body: Union[m.EndorseBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Stand behind somebody else's proposal. What is proposed decides which permission is needed.

    Needs the permission `release:read`.
    """
    return Call("endorse", "POST", filled("/v1/releases/{release}/proposals/{proposal}/endorse", release=release, proposal=proposal), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def close_review(release: str, review: str, body: Union[m.ReviewBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Close the review of a broken glass; by somebody who did not break it.

    Needs the permission `release:break-glass`.
    """
    return Call("closeReview", "POST", filled("/v1/releases/{release}/reviews/{review}/close", release=release, review=review), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def roll_back(release: str, body: Union[m.RollBackBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Go back to an earlier step. What is out already is said in the preview and stays out.

    Needs the permission `release:rollback`.
    """
    return Call("rollBack", "POST", filled("/v1/releases/{release}/rollback", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def abort(release: str, body: Union[m.ReasonBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """End the release for good.

    Needs the permission `release:abort`.
    """
    return Call("abort", "POST", filled("/v1/releases/{release}/abort", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def delegate(release: str, body: Union[m.DelegateBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Let somebody else sign in one of one's roles until a date.

    Needs the permission `gate:sign`.
    """
    return Call("delegate", "POST", filled("/v1/releases/{release}/delegations", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def report_access(release: str, body: Union[m.AccessBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Say whether people with access can really use it; an outage stops the research window.

    Needs the permission `access:report`.
    """
    return Call("reportAccess", "POST", filled("/v1/releases/{release}/access", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def list_all_incidents(*, open: Optional[bool] = None, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.IncidentPage]:
    """Incidents of all releases, newest first.

    Needs the permission `release:read`.
    """
    return Call("listAllIncidents", "GET", "/v1/incidents", m.IncidentPage, query={"open": open, "cursor": cursor, "limit": limit})


def get_hub(release: str, *, limit: Optional[int] = None) -> Call[m.HubView]:
    """Whether the release's repository on the Hub is as the release left it, and what was changed there by hand.

    Needs the permission `release:read`.
    """
    return Call("getHub", "GET", filled("/v1/releases/{release}/hub", release=release), m.HubView, query={"limit": limit})


def make_links(release: str, grant: str, body: Union[m.LinksBody, Mapping[str, Any]]) -> Call[m.GrantLinks]:
    """Hand out short-lived links to sealed files of a live grant, to its holder alone.

    Needs the permission `grant:read`.
    """
    return Call("makeLinks", "POST", filled("/v1/releases/{release}/grants/{grant}/links", release=release, grant=grant), m.GrantLinks, body=plain(body), sends="json")


def list_monitors() -> Call[m.MonitorList]:
    """Leak sources: last success, lag, error, rate limits. A blind source keeps every gate closed that names it.

    Needs the permission `release:read`.
    """
    return Call("listMonitors", "GET", "/v1/monitors", m.MonitorList)


def get_monitor_key() -> Call[m.MonitorKeyView]:
    """The leak monitor's public keys, as they stand now. Whoever seals pins them from a place of their own.

    Needs the permission `artifact:read`.
    """
    return Call("getMonitorKey", "GET", "/v1/monitor-key", m.MonitorKeyView)


def list_suspects(*, outcome: Optional[Literal['match', 'partial', 'no_match', 'inconclusive', 'ruled_out', 'sighted']] = None, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.JudgementPage]:
    """Suspects and what they were judged to be, newest first. Titles and places are strangers' words.

    Needs the permission `incident:triage`.
    """
    return Call("listSuspects", "GET", "/v1/leaks/suspects", m.JudgementPage, query={"outcome": outcome, "cursor": cursor, "limit": limit})


def get_verdict(digest: str) -> Call[m.VerdictView]:
    """A signed verdict: per tensor r and z, what was read and from where, digest and time of each answer. It names our tensors.

    Needs the permission `incident:triage`.
    """
    return Call("getVerdict", "GET", filled("/v1/leaks/verdicts/{digest}", digest=digest), m.VerdictView)


def check_whole(body: Union[m.WholeCheckBody, Mapping[str, Any]]) -> Call[m.WholeCheckView]:
    """Ask for a whole-file check (tier 3), which is needed before anybody is accused.

    Needs the permission `incident:triage`.
    """
    return Call("checkWhole", "POST", "/v1/leaks/checks", m.WholeCheckView, body=plain(body), sends="json")


def list_parents() -> Call[m.ParentList]:
    """Public parents, and for which artifacts each is signed.

    Needs the permission `release:read`.
    """
    return Call("listParents", "GET", "/v1/leaks/parents", m.ParentList)


def add_parent(body: Union[m.ParentBody, Mapping[str, Any]]) -> Call[m.ParentDetail]:
    """Register a public parent. Until it is signed, what looks like ours is only suspected; it can hide no artifact of ours.

    Needs the permission `incident:close`.
    """
    return Call("addParent", "POST", "/v1/leaks/parents", m.ParentDetail, body=plain(body), sends="json")


def drop_parent(parent: str) -> Call[None]:
    """Forget a public parent; what was judged stays judged.

    Needs the permission `incident:close`.
    """
    return Call("dropParent", "DELETE", filled("/v1/leaks/parents/{parent}", parent=parent), type(None))


def report_leak(body: Union[m.LeakReportBody, Mapping[str, Any]]) -> Call[m.LeakReportView]:
    """Report a leak without an account. Strictly limited for each address; nothing is asked at the place right away."""
    return Call("reportLeak", "POST", "/v1/reports", m.LeakReportView, body=plain(body), sends="json")


def list_reports(*, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.ReportPage]:
    """What was handed in, newest first. Everything in it is a stranger's.

    Needs the permission `incident:triage`.
    """
    return Call("listReports", "GET", "/v1/leaks/reports", m.ReportPage, query={"cursor": cursor, "limit": limit})


def report_sighting(body: Union[m.LeakReportBody, Mapping[str, Any]]) -> Call[m.LeakReportView]:
    """Hand in a place for the leak monitor to look at. To open an incident at once, report one on the release.

    Needs the permission `incident:report`.
    """
    return Call("reportSighting", "POST", "/v1/leaks/reports", m.LeakReportView, body=plain(body), sends="json")


def receive_findings(monitor: str, body: Union[Mapping[str, Any], Mapping[str, Any]]) -> Call[m.FindingsView]:
    """What an outside monitor found, signed as Standard Webhooks says: `webhook-id`, `webhook-timestamp`, `webhook-signature`."""
    return Call("receiveFindings", "POST", filled("/v1/leaks/monitors/{monitor}/findings", monitor=monitor), m.FindingsView, body=plain(body), sends="json")


def list_grants(*, holder: Optional[str] = None, live: Optional[bool] = None, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.GrantPage]:
    """Grants of a holder across releases, newest first. A partner's account sees its own.

    Needs the permission `grant:read`.
    """
    return Call("listGrants", "GET", "/v1/grants", m.GrantPage, query={"holder": holder, "live": live, "cursor": cursor, "limit": limit})


def list_release_grants(release: str) -> Call[m.GrantPage]:
    """Grants of a release in the order in which they were made; a partner's account sees its own.

    Needs the permission `grant:read`.
    """
    return Call("listReleaseGrants", "GET", filled("/v1/releases/{release}/grants", release=release), m.GrantPage)


def make_grant(release: str, body: Union[m.MakeGrantBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Ask for the grant of a partner in the audience of a step that stands: it became ready late, renews it, or has a new key.

    Custody checks everything again and makes the envelope; then `grant_made` follows, or `grant_not_made` with its reasons.
    A partner that is known to be not ready is refused at once.

    Needs the permission `grant:make`.
    """
    return Call("makeGrant", "POST", filled("/v1/releases/{release}/grants", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def revoke(release: str, body: Union[m.RevokeBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """End one grant, or all of a partner; never blocked. The preview says whether it is complete or cuts the future alone.

    Needs the permission `grant:revoke`.
    """
    return Call("revoke", "POST", filled("/v1/releases/{release}/revoke", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def get_grant(release: str, grant: str) -> Call[m.GrantDetail]:
    """A grant, with what its holder needs to find and check its files.

    Needs the permission `grant:read`.
    """
    return Call("getGrant", "GET", filled("/v1/releases/{release}/grants/{grant}", release=release, grant=grant), m.GrantDetail)


def get_grant_manifest(release: str, grant: str, artifact: str) -> Call[bytes]:
    """The signed manifest of an artifact that the grant covers.

    Needs the permission `grant:read`.
    """
    return Call("getGrantManifest", "GET", filled("/v1/releases/{release}/grants/{grant}/manifests/{artifact}", release=release, grant=grant, artifact=artifact), bytes)


def get_envelope(release: str, grant: str, artifact: str) -> Call[bytes]:
    """Hand over the key of one artifact, encrypted to its holder. That it left is written down first.

    Needs the permission `grant:read`.
    """
    return Call("getEnvelope", "GET", filled("/v1/releases/{release}/grants/{grant}/envelopes/{artifact}", release=release, grant=grant, artifact=artifact), bytes)


def rotate_keys(release: str, body: Union[m.RotateKeysBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Seal components anew under fresh keys. One person may; what was disclosed stays disclosed, and the preview says so.

    Needs the permission `keys:rotate`.
    """
    return Call("rotateKeys", "POST", filled("/v1/releases/{release}/rotate-keys", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def list_rotations(release: str) -> Call[m.RotationList]:
    """Rotations of keys, the latest first, and what became of the old sealed files.

    Needs the permission `release:read`.
    """
    return Call("listRotations", "GET", filled("/v1/releases/{release}/rotations", release=release), m.RotationList)


def list_copies(release: str) -> Call[m.IssuedCopyList]:
    """Issued copies with the exact digests that only they have; a partner's account sees its own.

    Needs the permission `grant:read`.
    """
    return Call("listCopies", "GET", filled("/v1/releases/{release}/copies", release=release), m.IssuedCopyList)


def list_receipts(release: str, grant: str) -> Call[m.ReceiptList]:
    """Receipts of a grant, each with its signed statement.

    Needs the permission `grant:read`.
    """
    return Call("listReceipts", "GET", filled("/v1/releases/{release}/grants/{grant}/receipts", release=release, grant=grant), m.ReceiptList)


def add_receipt(release: str, grant: str, body: Union[m.ReceiptBody, Mapping[str, Any]]) -> Call[m.ReceiptDetail]:
    """Keep a receipt that the partner's client signed with a key that the plan pins for it; it is an entry of the audit log.

    Needs the permission `grant:read`.
    """
    return Call("addReceipt", "POST", filled("/v1/releases/{release}/grants/{grant}/receipts", release=release, grant=grant), m.ReceiptDetail, body=plain(body), sends="json")


def list_partners(*, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.PartnerPage]:
    """Partners by id.

    Needs the permission `partner:read`.
    """
    return Call("listPartners", "GET", "/v1/partners", m.PartnerPage, query={"cursor": cursor, "limit": limit})


def create_partner(body: Union[m.PartnerBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.PartnerView]:
    """Add a partner.

    Needs the permission `partner:add`.
    """
    return Call("createPartner", "POST", "/v1/partners", m.PartnerView, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def get_partner(partner: str) -> Call[m.PartnerView]:
    """A partner with its keys and the terms that it accepted.

    Needs the permission `partner:read`.
    """
    return Call("getPartner", "GET", filled("/v1/partners/{partner}", partner=partner), m.PartnerView)


def change_partner(partner: str, body: Union[m.PartnerChange, Mapping[str, Any]]) -> Call[m.PartnerView]:
    """Switch a partner off or on. Grants that it has stay: revoking ends them.

    Needs the permission `partner:add`.
    """
    return Call("changePartner", "PATCH", filled("/v1/partners/{partner}", partner=partner), m.PartnerView, body=plain(body), sends="json")


def add_partner_key(partner: str, body: Union[m.PartnerKeyBody, Mapping[str, Any]]) -> Call[m.PartnerKeyView]:
    """Register a recipient: by the partner's own account, or for it. The same one again is the same key.

    Needs the permission `partner:add`.
    """
    return Call("addPartnerKey", "POST", filled("/v1/partners/{partner}/keys", partner=partner), m.PartnerKeyView, body=plain(body), sends="json")


def revoke_partner_key(partner: str, digest: str) -> Call[m.PartnerKeyView]:
    """Revoke a recipient: no envelope is made for it from here on. What it can open already stays readable.

    Needs the permission `partner:add`.
    """
    return Call("revokePartnerKey", "DELETE", filled("/v1/partners/{partner}/keys/{digest}", partner=partner, digest=digest), m.PartnerKeyView)


def accept_terms(partner: str, body: Union[m.TermsBody, Mapping[str, Any]]) -> Call[m.PartnerView]:
    """Accept terms; only an account of the partner's own can."""
    return Call("acceptTerms", "POST", filled("/v1/partners/{partner}/terms", partner=partner), m.PartnerView, body=plain(body), sends="json")


def list_artifacts(*, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.ArtifactPage]:
    """Artifacts, newest first.

    Needs the permission `artifact:read`.
    """
    return Call("listArtifacts", "GET", "/v1/artifacts", m.ArtifactPage, query={"cursor": cursor, "limit": limit})


def register_artifact(body: Union[m.ArtifactBody, Mapping[str, Any]]) -> Call[m.ArtifactDetail]:
    """Register a sealed artifact. The manifest is held to every rule of its format; the same one again is the same.

    Needs the permission `artifact:add`.
    """
    return Call("registerArtifact", "POST", "/v1/artifacts", m.ArtifactDetail, body=plain(body), sends="json")


def get_artifact(artifact: str) -> Call[m.ArtifactDetail]:
    """An artifact.

    Needs the permission `artifact:read`.
    """
    return Call("getArtifact", "GET", filled("/v1/artifacts/{artifact}", artifact=artifact), m.ArtifactDetail)


def get_manifest(artifact: str) -> Call[bytes]:
    """The signed manifest, byte for byte.

    Needs the permission `artifact:read`.
    """
    return Call("getManifest", "GET", filled("/v1/artifacts/{artifact}/manifest", artifact=artifact), bytes)


def bind_artifact(release: str, body: Union[m.BindArtifactBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.CommandResult]:
    """Say which registered artifact carries which components of the release. Sign-offs bind to its manifest's digest.

    Needs the permission `artifact:add`.
    """
    return Call("bindArtifact", "POST", filled("/v1/releases/{release}/artifacts", release=release), m.CommandResult, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def start_ingest(body: Union[m.IngestBody, Mapping[str, Any]]) -> Call[m.IngestView]:
    """Seal plaintext from a place into a store and register it. Started twice, it is one ingest with one result.

    Needs the permission `artifact:add`.
    """
    return Call("startIngest", "POST", "/v1/ingests", m.IngestView, body=plain(body), sends="json")


def get_ingest(ingest: str) -> Call[m.IngestView]:
    """How an ingest stands.

    Needs the permission `artifact:add`.
    """
    return Call("getIngest", "GET", filled("/v1/ingests/{ingest}", ingest=ingest), m.IngestView)


def list_events(release: str, *, after: Optional[int] = None, limit: Optional[int] = None) -> Call[m.EventPage]:
    """Events of a release in order, a page at a time; `next_after` is null when these were the last so far.

    Needs the permission `release:read`.
    """
    return Call("listEvents", "GET", filled("/v1/releases/{release}/events", release=release), m.EventPage, query={"after": after, "limit": limit})


def list_all_events(*, after: Optional[int] = None, limit: Optional[int] = None) -> Call[m.EventPage]:
    """Events of all releases in the order of their commits: who keeps the last `id` misses none.

    Needs the permission `release:read`.
    """
    return Call("listAllEvents", "GET", "/v1/events", m.EventPage, query={"after": after, "limit": limit})


def stream_events(release: str, *, after: Optional[int] = None, last_event_id: Optional[str] = None) -> Call[str]:
    """Events of a release as they happen, beginning behind `Last-Event-ID` (or `after`). Ends with the release.

    Needs the permission `release:read`.
    """
    return Call("streamEvents", "GET", filled("/v1/releases/{release}/events/stream", release=release), str, query={"after": after}, headers={"Last-Event-ID": last_event_id})


def stream_all_events(*, after: Optional[int] = None, last_event_id: Optional[str] = None) -> Call[str]:
    """Events of all releases as they happen; without a place to begin at, from now on.

    Needs the permission `release:read`.
    """
    return Call("streamAllEvents", "GET", "/v1/events/stream", str, query={"after": after}, headers={"Last-Event-ID": last_event_id})


def get_me() -> Call[m.Me]:
    """Who is asking, and what they may do."""
    return Call("getMe", "GET", "/v1/me", m.Me)


def list_pending(*, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.PendingPage]:
    """What waits for the caller in all releases, soonest first."""
    return Call("listPending", "GET", "/v1/me/pending", m.PendingPage, query={"cursor": cursor, "limit": limit})


def list_principals(*, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.PrincipalPage]:
    """Principals by id.

    Needs the permission `principal:add`.
    """
    return Call("listPrincipals", "GET", "/v1/principals", m.PrincipalPage, query={"cursor": cursor, "limit": limit})


def create_principal(body: Union[m.PrincipalBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.PrincipalView]:
    """Add a principal. A partner's account has the role `partner`, alone, and names its partner.

    Needs the permission `principal:add`.
    """
    return Call("createPrincipal", "POST", "/v1/principals", m.PrincipalView, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def get_principal(principal: str) -> Call[m.PrincipalView]:
    """A principal.

    Needs the permission `principal:add`.
    """
    return Call("getPrincipal", "GET", filled("/v1/principals/{principal}", principal=principal), m.PrincipalView)


def change_principal(principal: str, body: Union[m.PrincipalChange, Mapping[str, Any]]) -> Call[m.PrincipalView]:
    """Change roles, or switch off and on. Nobody changes their own.

    Needs the permission `principal:add`.
    """
    return Call("changePrincipal", "PATCH", filled("/v1/principals/{principal}", principal=principal), m.PrincipalView, body=plain(body), sends="json")


def list_tokens(principal: str) -> Call[m.TokenList]:
    """A principal's tokens, newest first: one's own, or for operators and auditors anybody's. Never their texts."""
    return Call("listTokens", "GET", filled("/v1/principals/{principal}/tokens", principal=principal), m.TokenList)


def issue_token(principal: str, body: Union[m.TokenBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.IssuedTokenView]:
    """Issue an API token. Its text is shown this once; a repeated request cannot show it again.

    Needs the permission `principal:add`.
    """
    return Call("issueToken", "POST", filled("/v1/principals/{principal}/tokens", principal=principal), m.IssuedTokenView, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def revoke_token(principal: str, token: str) -> Call[m.TokenView]:
    """Revoke a token: it stops at once. One's own, or for operators anybody's."""
    return Call("revokeToken", "DELETE", filled("/v1/principals/{principal}/tokens/{token}", principal=principal, token=token), m.TokenView)


def list_webhooks(*, owner: Optional[str] = None, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.WebhookPage]:
    """One's own endpoints; for operators anybody's."""
    return Call("listWebhooks", "GET", "/v1/webhooks", m.WebhookPage, query={"owner": owner, "cursor": cursor, "limit": limit})


def add_webhook(body: Union[m.WebhookBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.NewSecretView]:
    """Add an endpoint of one's own: it is told what one may see oneself. The secret is shown this once."""
    return Call("addWebhook", "POST", "/v1/webhooks", m.NewSecretView, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def get_webhook(webhook: str) -> Call[m.WebhookView]:
    """An endpoint."""
    return Call("getWebhook", "GET", filled("/v1/webhooks/{webhook}", webhook=webhook), m.WebhookView)


def remove_webhook(webhook: str) -> Call[m.WebhookView]:
    """Remove an endpoint with everything that was planned for it; the answer is what it was."""
    return Call("removeWebhook", "DELETE", filled("/v1/webhooks/{webhook}", webhook=webhook), m.WebhookView)


def switch_webhook(webhook: str, body: Union[m.SwitchBody, Mapping[str, Any]]) -> Call[m.WebhookView]:
    """Switch an endpoint off, or on: then it goes on where it was, and misses nothing."""
    return Call("switchWebhook", "PATCH", filled("/v1/webhooks/{webhook}", webhook=webhook), m.WebhookView, body=plain(body), sends="json")


def rotate_webhook(webhook: str, body: Union[m.RotateBody, Mapping[str, Any]]) -> Call[m.NewSecretView]:
    """Make a new secret, shown this once. The old one signs beside it for a while, so that nothing is refused meanwhile."""
    return Call("rotateWebhook", "POST", filled("/v1/webhooks/{webhook}/rotate", webhook=webhook), m.NewSecretView, body=plain(body), sends="json")


def list_deliveries(webhook: str, *, status: Optional[Literal['pending', 'delivered', 'dead', 'superseded']] = None, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.DeliveryPage]:
    """What became of each event for this endpoint."""
    return Call("listDeliveries", "GET", filled("/v1/webhooks/{webhook}/deliveries", webhook=webhook), m.DeliveryPage, query={"status": status, "cursor": cursor, "limit": limit})


def redrive_webhook(webhook: str, body: Union[m.RedriveBody, Mapping[str, Any]]) -> Call[m.Redriven]:
    """Try dead deliveries again, one or all, under their old numbers."""
    return Call("redriveWebhook", "POST", filled("/v1/webhooks/{webhook}/redrive", webhook=webhook), m.Redriven, body=plain(body), sends="json")


def replay_webhook(webhook: str, body: Union[m.ReplayBody, Mapping[str, Any]]) -> Call[m.WebhookView]:
    """Deliver everything behind an event again, under new numbers."""
    return Call("replayWebhook", "POST", filled("/v1/webhooks/{webhook}/replay", webhook=webhook), m.WebhookView, body=plain(body), sends="json")


def list_channels(*, owner: Optional[str] = None, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.ChannelPage]:
    """One's own channels; for operators anybody's, and the shared ones."""
    return Call("listChannels", "GET", "/v1/notices/channels", m.ChannelPage, query={"owner": owner, "cursor": cursor, "limit": limit})


def add_channel(body: Union[m.ChannelBody, Mapping[str, Any]], *, idempotency_key: Optional[str] = None) -> Call[m.ChannelView]:
    """Add a channel: a mail address, or an address of `apprise`. It is told of what happens from here on."""
    return Call("addChannel", "POST", "/v1/notices/channels", m.ChannelView, body=plain(body), sends="json", headers={"Idempotency-Key": idempotency_key}, keyed=True)


def get_channel(channel: str) -> Call[m.ChannelView]:
    """A channel."""
    return Call("getChannel", "GET", filled("/v1/notices/channels/{channel}", channel=channel), m.ChannelView)


def remove_channel(channel: str) -> Call[m.ChannelView]:
    """Remove a channel with its address and everything that was planned for it; the answer is what it was."""
    return Call("removeChannel", "DELETE", filled("/v1/notices/channels/{channel}", channel=channel), m.ChannelView)


def change_channel(channel: str, body: Union[m.ChannelChange, Mapping[str, Any]]) -> Call[m.ChannelView]:
    """Choose other topics, or switch a channel off or on; then it goes on where it was."""
    return Call("changeChannel", "PATCH", filled("/v1/notices/channels/{channel}", channel=channel), m.ChannelView, body=plain(body), sends="json")


def test_channel(channel: str) -> Call[m.NoticeNumbers]:
    """Send a notice that only shows that the channel works; its number, to look for in its list."""
    return Call("testChannel", "POST", filled("/v1/notices/channels/{channel}/test", channel=channel), m.NoticeNumbers)


def list_notices(channel: str, *, status: Optional[Literal['pending', 'delivered', 'dead', 'superseded']] = None, cursor: Optional[str] = None, limit: Optional[int] = None) -> Call[m.NoticePage]:
    """What became of each notice of a channel."""
    return Call("listNotices", "GET", filled("/v1/notices/channels/{channel}/notices", channel=channel), m.NoticePage, query={"status": status, "cursor": cursor, "limit": limit})


def redrive_notices(channel: str, body: Union[m.RedriveNotices, Mapping[str, Any]]) -> Call[m.NoticeNumbers]:
    """Try dead notices again, all or those of one message, under their old numbers."""
    return Call("redriveNotices", "POST", filled("/v1/notices/channels/{channel}/redrive", channel=channel), m.NoticeNumbers, body=plain(body), sends="json")


def list_audit_entries(*, start: Optional[int] = None, release: Optional[str] = None, kind: Optional[Literal['event', 'refusal', 'command', 'custody', 'access', 'admin']] = None, limit: Optional[int] = None) -> Call[m.AuditPage]:
    """Entries of the log in order: events, refusals, commands that changed nothing, what custody did, access that was handed out, administration.

    Needs the permission `audit:read`.
    """
    return Call("listAuditEntries", "GET", "/v1/audit/entries", m.AuditPage, query={"start": start, "release": release, "kind": kind, "limit": limit})


def get_audit_entry(index: int) -> Call[m.AuditEntry]:
    """One entry.

    Needs the permission `audit:read`.
    """
    return Call("getAuditEntry", "GET", filled("/v1/audit/entries/{index}", index=index), m.AuditEntry)


def get_audit_proof(index: int) -> Call[str]:
    """The entry's inclusion proof with the latest signed checkpoint, as one text (C2SP `tlog-proof`).

    Needs the permission `audit:read`.
    """
    return Call("getAuditProof", "GET", filled("/v1/audit/entries/{index}/proof", index=index), str)


def get_checkpoint() -> Call[m.CheckpointView]:
    """The latest signed checkpoint. Keep it: a later log that does not extend it was rewritten.

    Needs the permission `audit:read`.
    """
    return Call("getCheckpoint", "GET", "/v1/audit/checkpoint", m.CheckpointView)


def get_inclusion_proof(*, index: int, size: int) -> Call[m.ProofView]:
    """The path from an entry to the root of the first `size` entries.

    Needs the permission `audit:read`.
    """
    return Call("getInclusionProof", "GET", "/v1/audit/proofs/inclusion", m.ProofView, query={"index": index, "size": size})


def get_consistency_proof(*, old: int, new: int) -> Call[m.ProofView]:
    """The proof that the log of `new` entries extends that of `old`.

    Needs the permission `audit:read`.
    """
    return Call("getConsistencyProof", "GET", "/v1/audit/proofs/consistency", m.ProofView, query={"old": old, "new": new})


def export_audit(*, start: Optional[int] = None) -> Call[str]:
    """The log up to its latest signed checkpoint as JSON lines; `sluice audit verify` checks it offline.

    Needs the permission `audit:read`.
    """
    return Call("exportAudit", "GET", "/v1/audit/export", str, query={"start": start})


def get_sign_in() -> Call[m.SignInView]:
    """How people sign in here; 404 when they do so with API tokens alone."""
    return Call("getSignIn", "GET", "/v1/sign-in", m.SignInView)


def back_channel_logout(logout_token: str) -> Call[None]:
    """The identity provider ends sessions: what it names is over at once, here and for tokens of before."""
    return Call("backChannelLogout", "POST", "/v1/sign-in/back-channel", type(None), body={name: value for name, value in {"logout_token": logout_token}.items() if value is not None}, sends="form")


def healthz() -> Call[m.Health]:
    """The process lives."""
    return Call("healthz", "GET", "/healthz", m.Health)


def readyz() -> Call[m.Readiness]:
    """The records answer, and commands can be sent."""
    return Call("readyz", "GET", "/readyz", m.Readiness)
