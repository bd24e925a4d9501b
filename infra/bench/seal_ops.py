"""One measured operation of `make bench-seal` in a process of its own: `python -m infra.bench.seal_ops OP JSON`.

Prints one JSON line: seconds of the operation itself, its CPU seconds, peak memory of the process, and what the
operation adds. A process each, so that peak memory and CPU time belong to it alone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Result = dict[str, Any]
Options = dict[str, Any]


def _store(options: Options) -> Any:
    from artifacts.stores.base import open_store

    return open_store(options["store"], **options.get("store_options", {}))


def _keys(options: Options) -> Any:
    """Keys that all processes of a run share, made by the first one. They seal random bytes only."""
    from artifacts.keys import custody_keygen
    from artifacts.signing import SigningKey

    place = Path(options["keys"])
    if not place.exists():
        custody = custody_keygen()
        place.write_text(
            json.dumps([custody.recipient, custody.identity, SigningKey.generate().secret_string()])
        )
    recipient, identity, signer = json.loads(place.read_text())
    return recipient, identity, SigningKey.parse(signer)


def _opened(options: Options) -> tuple[Any, Any]:
    """The manifest and a payload with every key, as an envelope would hold them."""
    from artifacts.envelope import EnvelopePayload, file_keys
    from artifacts.keys import custody_identity, unwrap_root
    from artifacts.manifest import parse_manifest

    sealed = json.loads(Path(options["sealed"]).read_text())
    manifest = parse_manifest(Path(sealed["manifest"]).read_bytes(), expected_digest=sealed["digest"])
    root = unwrap_root(sealed["root"], custody_identity(_keys(options)[1]), manifest.digest)
    payload = EnvelopePayload(
        artifact_id=manifest.artifact_id, manifest_digest=manifest.digest, release="bench", step="bench", grant="bench",
        keys=file_keys(root, manifest), issued_at=datetime.now(UTC), not_after=None,
    )  # fmt: skip
    return manifest, payload


def _timed(action: Callable[[], Any]) -> tuple[Any, Result]:
    """`began` and `ended` are of the machine's own clock, so that processes that run side by side can be put together."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    found = action()
    ended, after = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found, {"seconds": ended - began, "cpu": cpu, "began": began, "ended": ended}


def _wait_for(others: int, folder: Path) -> None:
    """Begin when so many processes have loaded what they need: loading is not what is measured."""
    (folder / f"ready-{os.getpid()}").touch()
    while len(list(folder.glob("ready-*"))) < others:
        time.sleep(0.001)


def seal(options: Options) -> Result:
    """Seal a file or folder into a store."""
    from artifacts.sealing import seal_tree

    recipient, _, signer = _keys(options)
    with _store(options) as store:
        store.features()
        if "together" in options:
            _wait_for(options["together"], Path(options["keys"]).parent / "start")
        sealed, result = _timed(
            lambda: seal_tree(
                Path(options["source"]), store, custody_recipient=recipient, signer=signer, components={"weights": "*"},
                digests=options.get("digests", ["sha256"]), workers=options.get("workers", 2),
            )
        )  # fmt: skip
    manifest = Path(options["sealed"]).with_suffix(".dsse")
    manifest.write_bytes(sealed.manifest)
    Path(options["sealed"]).write_text(
        json.dumps({"manifest": str(manifest), "digest": sealed.manifest_digest, "root": sealed.wrapped_root})
    )
    return result


def body(options: Options) -> Result:
    """Seal one file without a digest of its plaintext: the half of the work that a process of its own could do."""
    from artifacts.body import PART_SIZE, Layout, PartSealer, part_context
    from artifacts.keys import FileKey

    source = os.open(options["source"], os.O_RDONLY)
    target = os.open(options["target"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    layout, sealer, key = (
        Layout(os.fstat(source).st_size, PART_SIZE),
        PartSealer(PART_SIZE),
        FileKey(bytes(32)),
    )

    def put(piece: memoryview) -> None:
        os.write(target, piece)

    def parts() -> None:
        for index in range(layout.part_count):
            sealer.seal_to(
                source, layout.plain_start(index), layout.plain_length(index), key,
                part_context("art-bench", "file", index, layout), "file", put,
            )  # fmt: skip

    _wait_for(options["together"], Path(options["keys"]).parent / "start")
    return _timed(parts)[1]


def plain_digest(options: Options) -> Result:
    """The other half: read the same file once more and take its SHA-256, which is one chain and cannot be shared."""
    import hashlib

    block = memoryview(bytearray(1024 * 1024))

    def chain() -> None:
        digest = hashlib.sha256()
        with Path(options["source"]).open("rb", buffering=0) as file:
            while count := file.readinto(block):
                digest.update(block[:count])

    _wait_for(options["together"], Path(options["keys"]).parent / "start")
    return _timed(chain)[1]


def fetch(options: Options) -> Result:
    """Fetch and open everything."""
    from artifacts.fetching import fetch_artifact

    manifest, payload = _opened(options)
    with _store(options) as store:
        _, result = _timed(
            lambda: fetch_artifact(
                store, manifest, payload, Path(options["target"]), workers=options.get("workers", 2)
            )
        )
    return result


def verify(options: Options) -> Result:
    """Hold the sealed bytes against the manifest, without a key."""
    from artifacts.sources import StoreSource
    from artifacts.verifying import verify_tree

    manifest, _ = _opened(options)
    with _store(options) as store:
        report, result = _timed(lambda: verify_tree(StoreSource(store, manifest.artifact_id), manifest))
    if not report.ok:
        raise SystemExit(f"verification failed: {report.problems[:3]}")
    return result


def tensor(options: Options) -> Result:
    """Read one tensor by name, and the same bytes of the plain file, alternately."""
    from artifacts.opened import OpenedArtifact

    manifest, payload = _opened(options)
    times: list[float] = []
    plain: list[float] = []
    fetched = size = 0
    with _store(options) as store:
        for _ in range(options["runs"]):
            with OpenedArtifact(store, manifest, payload) as artifact:
                info = artifact.tensors()[options["tensor"]]
                size = info.end - info.start
                (path,) = artifact.paths()
                reader = artifact._shared(path)  # noqa: SLF001 - to count what it fetches
                found, result = _timed(lambda: artifact.load_tensor(options["tensor"]))
                times.append(result["seconds"])
                fetched = reader.bytes_fetched
            with Path(options["source"]).open("rb") as file:
                raw, result = _timed(lambda: os.pread(file.fileno(), size, info.start))  # noqa: B023
            plain.append(result["seconds"])
            if raw != found.data:
                raise SystemExit("the tensor differs from the plain file")
    return {"seconds": sorted(times)[len(times) // 2], "plain": sorted(plain)[len(plain) // 2], "cpu": 0.0,
            "fetched": fetched, "size": size}  # fmt: skip


def _client(options: Options) -> Any:
    import boto3
    from botocore.config import Config

    given = options["store_options"]
    return boto3.client(
        "s3", endpoint_url=given["endpoint_url"], region_name=given["region"], aws_access_key_id=given["access_key"],
        aws_secret_access_key=given["secret_key"], config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip


def plain_put(options: Options) -> Result:
    """Put the same bytes with boto3's own transfer manager, parts of 64 MiB, two at a time."""
    from boto3.s3.transfer import TransferConfig

    client = _client(options)
    chunk = 64 * 1024 * 1024
    config = TransferConfig(multipart_chunksize=chunk, multipart_threshold=chunk, max_concurrency=2)
    more = {"ChecksumAlgorithm": "SHA256"}
    _, result = _timed(
        lambda: client.upload_file(
            options["source"], options["bucket"], options["key"], Config=config, ExtraArgs=more
        )
    )
    return result


def plain_get(options: Options) -> Result:
    """Get them back likewise."""
    from boto3.s3.transfer import TransferConfig

    client = _client(options)
    chunk = 64 * 1024 * 1024
    config = TransferConfig(multipart_chunksize=chunk, multipart_threshold=chunk, max_concurrency=2)
    target = options["target"]
    _, result = _timed(lambda: client.download_file(options["bucket"], options["key"], target, Config=config))
    return result


def stages(options: Options) -> Result:
    """Seconds per GB of CPU that each stage of sealing costs alone, one thread: the profile behind the table."""
    import hashlib

    from blake3 import blake3
    from cryptography.cobblestone import Cobblestone256Encryptor

    from artifacts.body import BLOCK, WIRE_CHUNK, sealed_size

    size = 64 * 1024 * 1024
    plain, sealed = memoryview(bytearray(size)), memoryview(bytearray(sealed_size(size) + WIRE_CHUNK))
    source = os.open(options["source"], os.O_RDONLY)
    target = os.open(options["target"], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)

    def read(i: int) -> None:
        for at in range(0, size, BLOCK):
            os.preadv(source, [plain[at : at + BLOCK]], i * size + at)

    def encrypt(_: int) -> None:
        encryptor, written = Cobblestone256Encryptor(bytes(32), b"bench"), 0
        for at in range(0, size, BLOCK):
            written += encryptor.update_into(plain[at : at + BLOCK], sealed[written:])

    def digest(_: int) -> None:
        hashlib.sha256(plain).digest()

    def light(_: int) -> None:
        blake3(plain).digest()

    def write(i: int) -> None:
        os.pwrite(target, sealed[:size], i * size)

    found: Result = {"seconds": 0.0}
    for name, stage in {
        "read": read,
        "encrypt": encrypt,
        "sha256": digest,
        "blake3": light,
        "write": write,
    }.items():
        for i in range(2):
            stage(i)
        costs = []
        for _ in range(3):
            os.ftruncate(target, 0)  # writing takes new pages each time, as a new file does
            costs.append(_timed(lambda: [stage(i) for i in range(8)])[1]["cpu"])  # noqa: B023
        found[name] = min(costs) / (8 * size / 1e9)
    Path(options["target"]).unlink()
    found["cpu"] = 0.0
    return found


OPS: dict[str, Callable[[Options], Result]] = {
    "seal": seal, "fetch": fetch, "verify": verify, "tensor": tensor, "plain_put": plain_put, "plain_get": plain_get,
    "stages": stages, "body": body, "plain_digest": plain_digest,
}  # fmt: skip


def _peak_mib() -> float:
    """Peak resident memory since the process image was started (`ru_maxrss` would include the parent's, from the fork)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Run the operation named on the command line."""
    Path("/proc/self/clear_refs").write_text("5")
    result = OPS[sys.argv[1]](json.loads(sys.argv[2]))
    result["peak_mib"] = _peak_mib()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
