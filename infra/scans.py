"""What CI looks for in our own files, and in what they stand on: `make security`, `make check`, `make audit`.

    secrets    every tracked text, by detect-secrets: what `.secrets.baseline` does not know as a fixture, by file and content, is a finding
    code       our packages, by bandit
    audit      known weaknesses of every pinned dependency, by pip-audit

Nothing that looks like a secret is sent anywhere to be tried. `--changed` looks at what changed since the last run that found nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / ".secrets.baseline"
STAMP = ROOT / "build" / "security-scanned"
#: Generated, frozen or pinned files, full of digests; vectors and histories are made with keys of their own.
_LEFT_OUT = re.compile(
    r"requirements/.*\.lock|tests/replay/histories/.*|tests/vectors/.*|.*\.svg|\.secrets\.baseline"
)
_PACKAGES = ("orchestrator/", "workflows/", "activities/", "artifacts/", "infra/")
#: Temporary folders, SQL over our own tables and escaped markup are judged by ruff's rules, each opt-out with its reason.
_BANDIT = ("-q", "-ll", "--skip", "B108,B608,B704")
#: The filter that would ask a provider whether a found credential works.
_ASKS_PROVIDERS = "detect_secrets.filters.common.is_ignored_due_to_verification_policies"
_NOTHING, _FOUND, _UNKNOWN = 0, 1, 2


def tracked(since: float = 0.0, root: Path = ROOT) -> list[str]:
    """Tracked files that were changed after a time (seconds since 1970), without those that are left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 - git is wherever the checkout was made
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    files = [name for name in listed if name and not _LEFT_OUT.fullmatch(name)]
    return [name for name in files if (root / name).is_file() and (root / name).stat().st_mtime > since]


def secrets_in(files: Sequence[str], root: Path = ROOT, baseline: Path = BASELINE) -> list[str]:
    """What looks like a secret and is no known fixture: `file:line: kind`, never the secret itself."""
    from detect_secrets.core.secrets_collection import SecretsCollection
    from detect_secrets.settings import transient_settings

    known = json.loads(baseline.read_text(encoding="utf-8"))
    filters = [one for one in known["filters_used"] if one["path"] != _ASKS_PROVIDERS]
    fixtures = {
        (name, one["type"], one["hashed_secret"]) for name, all_ in known["results"].items() for one in all_
    }
    found = SecretsCollection(str(root))
    with transient_settings({"plugins_used": known["plugins_used"], "filters_used": filters}):
        if files:
            found.scan_files(*files)
    return sorted(
        f"{name}:{secret.line_number}: {secret.type}"
        for name, secret in found
        if (name, secret.type, secret.secret_hash) not in fixtures
    )


def security(*, changed: bool) -> int:
    """Both scans of our own files; 0 only if neither found anything."""
    began = time.time()
    newest = max(path.stat().st_mtime for path in (BASELINE, Path(__file__)))
    since = STAMP.stat().st_mtime if changed and STAMP.exists() else 0.0
    try:
        files = tracked(since if newest < since else 0.0)
    except (OSError, subprocess.CalledProcessError):
        print("security: this is no checkout of git, whose tracked files are what is scanned")
        return _UNKNOWN
    code = [name for name in files if name.endswith(".py") and name.startswith(_PACKAGES)]
    command = [sys.executable, "-m", "bandit", *_BANDIT, *code]
    bandit = subprocess.Popen(command, cwd=ROOT) if code else None  # noqa: S603 - our own interpreter
    found = secrets_in(files)
    for line in found:
        print(line)
    if found:
        print(
            "These look like secrets. One that is real: take it out, and replace it where it is used. A fixture: add it to "
            f"{BASELINE.name} (detect-secrets scan --baseline {BASELINE.name}), or mark its line `pragma: allowlist secret`."
        )
    if (bandit is not None and bandit.wait() != 0) or found:
        return _FOUND
    STAMP.parent.mkdir(exist_ok=True)
    STAMP.touch()
    os.utime(STAMP, (began, began))
    print(f"security: {len(files)} files scanned for secrets, {len(code)} by bandit; nothing found")
    return _NOTHING


def audit(pins: Sequence[str], more: Sequence[str]) -> int:
    """Known weaknesses of what is pinned. 0: each was looked up, and none is known; 1: some are; 2: not everything could be looked up."""
    asked = [part for pin in pins for part in ("-r", pin)]
    options = ("-f", "json", "--progress-spinner", "off", "--disable-pip", "--require-hashes")
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "pip_audit", *options, *asked, *more],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        print(f"audit: nothing was looked up: {said[:300]}\n{_WHERE}")
        return _UNKNOWN
    lines, code = audited(packages)
    print("\n".join(lines))
    return code


def audited(packages: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """What pip-audit's answer means: lines to show, and the exit code."""
    weak = [(one, weakness) for one in packages for weakness in one.get("vulns", ())]
    lines = [
        f"{one['name']} {one['version']}: {weakness['id']}, mended in {', '.join(weakness['fix_versions']) or 'no version yet'}"
        for one, weakness in weak
    ]
    skipped = [one for one in packages if "skip_reason" in one]
    known = len(packages) - len(skipped)
    lines.append(f"audit: {known} of {len(packages)} pinned packages looked up, {len(weak)} known weaknesses")
    if skipped:
        lines += [f"{len(skipped)} could not be looked up, the first: {skipped[0]['skip_reason']}", _WHERE]
    return lines, _FOUND if weak else _UNKNOWN if skipped or not packages else _NOTHING


_WHERE = (
    "The package index that is configured tells no weaknesses, or cannot be reached; a mirror often does not. Run it where one can be "
    "reached, or ask OSV: make audit AUDIT_ARGS='-s osv' (with --osv-url for a copy of your own)."
)


def main() -> int:
    """`python -m infra.scans security|audit`."""
    parser = argparse.ArgumentParser(prog="python -m infra.scans", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    scanning = commands.add_parser("security", help="secrets in tracked files, and bandit over the code")
    scanning.add_argument("--changed", action="store_true", help="what changed since nothing was found")
    auditing = commands.add_parser("audit", help="what follows unknown options goes to pip-audit")
    auditing.add_argument("pins", nargs="*", help="files of pinned requirements")
    asked, more = parser.parse_known_args()
    if asked.command == "audit":
        return audit(asked.pins or ["requirements/dev.lock"], more)
    if more:
        parser.error(f"unknown: {' '.join(more)}")
    return security(changed=asked.changed)


if __name__ == "__main__":
    sys.exit(main())
