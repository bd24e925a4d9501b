"""Runs one peer of `make bench-seal` on one file, in an environment that has it: `python seal_peers.py TOOL OP IN OUT`.

Prints the seconds that the work itself took. Standard library and the peer only.
"""

# mypy: ignore-errors
import sys
import time
from pathlib import Path

KEYSET = "build/bench/tink-keyset.json"


def pyrage(op: str, source: str, target: str) -> None:
    """Rage's bindings, file to file, X25519."""
    from pyrage import decrypt_io, encrypt_io, x25519

    key_file = Path("build/bench/pyrage.key")
    if op == "seal":
        key_file.write_text(str(x25519.Identity.generate()))
    identity = x25519.Identity.from_str(key_file.read_text())
    with Path(source).open("rb") as reader, Path(target).open("wb") as writer:
        if op == "seal":
            encrypt_io(reader, writer, [identity.to_public()])
        else:
            decrypt_io(reader, writer, [identity])


def tink(op: str, source: str, target: str) -> None:
    """Tink streaming AEAD, AES256-GCM-HKDF with 1 MiB segments."""
    import io

    import tink as library
    from tink import secret_key_access, streaming_aead

    streaming_aead.register()
    keys = Path(KEYSET)
    if op == "seal":
        handle = library.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
        keys.write_text(library.json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN))
    handle = library.json_proto_keyset_format.parse(keys.read_text(), secret_key_access.TOKEN)
    primitive = handle.primitive(streaming_aead.StreamingAead)
    with Path(source).open("rb") as reader, Path(target).open("wb") as writer:
        if op == "seal":
            with primitive.new_encrypting_stream(writer, b"context") as stream:
                while block := reader.read(1024 * 1024):
                    stream.write(block)
        else:
            buffered = io.BufferedReader(primitive.new_decrypting_stream(reader, b"context"), 1024 * 1024)
            while block := buffered.read(1024 * 1024):
                writer.write(block)


def aws(op: str, source: str, target: str) -> None:
    """AWS Encryption SDK with a raw AES keyring, 1 MiB frames, no signature."""
    import aws_encryption_sdk
    from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
    from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
    from aws_cryptographic_material_providers.mpl.models import AesWrappingAlg, CreateRawAesKeyringInput

    providers = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
    keyring = providers.create_raw_aes_keyring(
        CreateRawAesKeyringInput(
            key_namespace="bench",
            key_name="bench",
            wrapping_key=bytes(32),
            wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16,
        )
    )
    client = aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=aws_encryption_sdk.CommitmentPolicy.REQUIRE_ENCRYPT_ALLOW_DECRYPT
    )
    more = {"frame_length": 1024 * 1024} if op == "seal" else {}
    if op == "seal":
        more["algorithm"] = aws_encryption_sdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
    with Path(source).open("rb") as reader, Path(target).open("wb") as writer:
        mode = "e" if op == "seal" else "d"
        with client.stream(mode=mode, source=reader, keyring=keyring, **more) as stream:
            while block := stream.read(1024 * 1024):
                writer.write(block)


if __name__ == "__main__":
    run = {"pyrage": pyrage, "tink": tink, "aws": aws}[sys.argv[1]]
    started = time.perf_counter()
    run(*sys.argv[2:5])
    print(time.perf_counter() - started)
