"""What docs/partners.md tells partners to do works as it stands there."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

from artifacts import age
from artifacts.keys import partner_identity
from artifacts.manifest import file_object_key
from tests.artifacts.sealed_world import World

PAGE = (Path(__file__).parents[2] / "docs" / "partners.md").read_text()


def test_the_twenty_line_script_opens_a_file_and_refuses_a_changed_one(world: World, tmp_path: Path) -> None:
    script = re.findall(r"```python\n(import base64.*?)```", PAGE, re.DOTALL)[0]
    assert len([line for line in script.splitlines() if line.strip()]) <= 20
    sealed = world.seal()
    # what `age -d | jq -r .payload | base64 -d` prints
    signed = age.decrypt(world.envelope(sealed), partner_identity(world.partner.identity))
    (tmp_path / "keys.json").write_bytes(base64.b64decode(json.loads(signed)["payload"]))
    (tmp_path / "manifest.json").write_bytes(sealed.manifest)
    (tmp_path / "open_sealed.py").write_text(script)
    stored = world.folder / "store" / file_object_key(sealed.artifact_id, "many.bin")

    def run(output: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "open_sealed.py", "manifest.json", "keys.json", "many.bin", str(stored), output],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run("opened.bin")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "opened.bin").read_bytes() == (world.source / "many.bin").read_bytes()
    assert run("opened.bin").returncode != 0, "it must not overwrite"
    stored.chmod(0o600)
    changed = bytearray(stored.read_bytes())
    changed[100] ^= 1
    stored.write_bytes(changed)
    assert "part 0 was changed" in run("other.bin").stderr
