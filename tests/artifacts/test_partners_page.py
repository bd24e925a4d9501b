"""What docs/partners.md tells partners to do works as it stands there."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from artifacts import age
from artifacts.errors import ArtifactError
from artifacts.keys import partner_identity
from artifacts.manifest import file_object_key
from tests.artifacts.sealed_world import NOW, World
from tests.artifacts.test_sources_and_filesystem import Web, web

__all__ = ["web"]

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


@pytest.fixture
def weights(world: World) -> np.ndarray:
    """A model with the tensor that the page reads; made before `web` seals it."""
    tensor = np.arange(12, dtype=np.float32).reshape(3, 4)
    save_file({"encoder.layer.0.attention.self.query.weight": tensor}, world.source / "model.safetensors")
    return tensor


@pytest.mark.parametrize("installed", [True, False])
def test_the_python_that_opens_without_downloading_runs_as_it_stands(
    world: World, weights: np.ndarray, web: Web, monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    code = re.findall(r"```python\n(from artifacts.*?)```", PAGE, re.DOTALL)[0]
    for page, here in {
        '"https://mirror.example/artifacts/ID/files"': "base",
        'framework="pt"': 'framework="np"',
        "        ...": "        safe = {name: tensors.get_tensor(name) for name in tensors.keys()}",
    }.items():
        assert code.count(page) == 1
        code = code.replace(page, here)
    names = {
        "base": web.base, "manifest": web.sealed.manifest, "envelope": world.envelope(web.sealed), "now": NOW,
        "identity": world.partner.identity, "custody_key": str(world.signer.verify_key),
    }  # fmt: skip
    if not installed:
        monkeypatch.setitem(sys.modules, "safetensors", None)
        with pytest.raises(ArtifactError, match="pip install safetensors"):
            exec(code, names)
        return
    exec(code, names)
    np.testing.assert_array_equal(names["weight"], weights)
    np.testing.assert_array_equal(names["safe"]["encoder.layer.0.attention.self.query.weight"], weights)
