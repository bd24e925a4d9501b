"""Sealing straight to S3, killed in the middle of a file: what the server holds already is not sent again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import SourceError
from artifacts.manifest import file_object_key
from artifacts.sealing import seal_tree
from artifacts.source_store import open_source
from artifacts.stores import Store, open_store
from artifacts.stores.s3 import SharedS3
from artifacts.stores.s3_upload import S3Upload
from tests.artifacts.sealed_world import World, noise, tree
from tests.artifacts.stores.servers import S3Server

pytestmark = pytest.mark.stack
PART = 5 * 1024 * 1024  # what S3 takes as a part at least
SIZE = 4 * PART + 77
SEAL = """
import json, sys, time
from pathlib import Path
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from artifacts.stores import Store, open_store
from artifacts.stores.s3 import SharedS3
given = json.loads(sys.stdin.read())
told = []
def tell(progress):
    told.append(progress)
    print(progress.bytes_done, flush=True)
    if len(told) == 2:
        time.sleep(600)  # nobody is told anything meanwhile, so no thread goes on to a third part
seal_tree(Path(given["source"]), open_store(given["uri"], **given["options"]), custody_recipient=given["custody"],
    signer=SigningKey.parse(given["signer"]), components={"weights": "*"}, part_size=given["part_size"],
    state_dir=Path(given["state"]), progress=tell, workers=2)
"""


@pytest.mark.parametrize("server", ["moto", "juicefs"])
def test_kill_9_in_the_middle_of_a_file_sends_no_stored_part_again(
    server: str,
    request: pytest.FixtureRequest,
    new_bucket: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    world = World(tmp_path)
    (world.source / "many.bin").write_bytes(noise(SIZE))
    given = {
        "source": str(world.source), "uri": f"s3://{new_bucket(s3)}/sealed", "options": s3.options, "state": str(world.state),
        "custody": world.custody.recipient, "signer": world.signer.secret_string(), "part_size": PART,
    }  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-c", SEAL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert child.stdin
    assert child.stdout
    child.stdin.write(json.dumps(given))
    child.stdin.close()
    for _ in range(2):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stdout.close()

    sent: list[int] = []
    real = S3Upload.put_part

    def put_part(upload: S3Upload, index: int, data: Any, sha256: str) -> Any:
        sent.append(index)
        return real(upload, index, data, sha256)

    monkeypatch.setattr(S3Upload, "put_part", put_part)
    artifact = json.loads(next(world.state.glob("*.ticket.json")).read_text())["artifact_id"]
    with open_store(given["uri"], **s3.options) as store:
        part_size = PART + 56 + 16 * (PART // 16384 + 1)
        stored = store.begin(file_object_key(artifact, "many.bin"), 5, part_size).parts()
        assert 2 <= len(stored) < 5
        sealed = world.seal(store=store, part_size=PART, components={"weights": "*"})
        assert sealed.artifact_id == artifact
        assert sorted(sent) == sorted(set(range(5)) - set(stored))
        assert sealed.bytes_reused == sum(min(PART, SIZE - index * PART) for index in stored)
        assert {index: part.sha256 for index, part in stored.items()}.items() <= {
            index: part.sha256 for index, part in enumerate(sealed.files[0].parts)
        }.items()
        world.fetch(sealed, tmp_path / "copy", source=store)
    assert tree(tmp_path / "copy") == tree(world.source)


def test_plaintext_in_a_bucket_is_sealed_by_prefix_and_by_name(
    moto: S3Server, new_bucket: Any, tmp_path: Path
) -> None:
    bucket, world, shared = new_bucket(moto), World(tmp_path), SharedS3()

    def opened(uri: str) -> Store:
        return open_store(uri, **moto.options, shared=shared)

    objects = {"a/model.bin": noise(300_000), "a/deep/config.json": b"{}", "ab/other.bin": b"not below a/"}
    with closing(moto.client()) as client:
        for name, data in objects.items():
            client.put_object(Bucket=bucket, Key=name, Body=data)
    for address, expected in {
        f"s3://{bucket}/a": {"model.bin": objects["a/model.bin"], "deep/config.json": b"{}"},
        f"s3://{bucket}/a/model.bin": {"model.bin": objects["a/model.bin"]},
        f"s3://{bucket}": objects,
    }.items():
        source = open_source(address, opened)
        sealed = seal_tree(
            source, world.store, custody_recipient=world.custody.recipient, signer=world.signer, components={"w": "*"}
        )  # fmt: skip
        source.close()
        copy = tmp_path / sealed.artifact_id
        world.fetch(sealed, copy)
        assert tree(copy) == expected
    with pytest.raises(SourceError, match="nothing below it"):
        open_source(f"s3://{bucket}/mod", opened)
