"""Every secret of a deployment and of the story that is told on it, for the search of `tests.support.canary`."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from activities.custody.keys import load_or_make
from artifacts.custody.base import KeyProvider
from artifacts.keys import unwrap_root
from artifacts.manifest import wrapped_root_key
from artifacts.stores.base import Store
from infra.demo_story import Model, Story
from infra.settings import Settings
from tests.support.canary import Secret

#: Where the story's people lay what is theirs in clear.
OWNERS = ("model", "partner", "public", "leaker", "pipeline")


def of_weights(model: Model) -> Iterator[Secret]:
    """Pieces of the weights, from all over the file."""
    weights = model.weights.read_bytes()
    for offset in range(100_000, len(weights) - 64, 500_000):
        yield Secret(f"weights at {offset}", weights[offset : offset + 48])


def of_texts() -> Iterator[Secret]:
    """What the story's documents say."""
    yield Secret("text of an evaluation", b"Retrieval and similarity as published.")
    yield Secret("text of an assessment", b"Examined for the demo.")


def of_people(story: Story) -> Iterator[Secret]:
    """Tokens, and the keys of people, partners and deployments: no process of the service ever needs one."""
    for name, token in story.cast.tokens.items():
        yield Secret(f"token of {name}", token.encode())
    for name in ("ada", "ben", "chloe", "dev", "elif"):
        key = story.cast[name].key
        assert key is not None
        yield Secret(f"signing key of {name}", key.seed())
    for name, pair in story.keys.items():
        yield Secret(f"key of {name}", pair.identity.encode())


def of_files(settings: Settings) -> Iterator[Secret]:
    """What lies in secret files, as text and as the bytes that the text stands for; their home is the file."""
    token = settings.effective_operator_token_file
    assert token is not None
    yield Secret("the operator's token", token.read_bytes().strip(), (token,))
    for file in (
        settings.effective_codec_keys_file,
        settings.effective_document_keys_file,
        settings.effective_webhook_keys_file,
        settings.effective_verdict_keys_file,
        settings.effective_transfer_signing_key_file,
        settings.effective_model_signing_key_file,
    ):
        assert file is not None
        words = re.findall(rb"[A-Za-z0-9+/_-]{40,}={0,2}", file.read_bytes())
        assert words, file
        for number, word in enumerate(words):
            yield Secret(f"{file.name} {number}", word, (file,))
            with suppress(ValueError):
                yield Secret(f"{file.name} {number}, decoded", base64.b64decode(word, validate=True), (file,))


def of_custody(
    settings: Settings, provider: KeyProvider, store: Store, artifacts: Mapping[str, str]
) -> Iterator[Secret]:
    """Custody's own keys and the root key of each artifact (id → manifest digest), which lie nowhere at all in clear."""
    keys = load_or_make(settings.effective_custody_keys_file, provider, settings.custody_log_name)
    yield Secret("custody's identity", keys.identity.secret_string().encode())
    yield Secret("key of envelopes", keys.envelopes.secret_string().encode())
    for artifact, digest in artifacts.items():
        info = store.stat(wrapped_root_key(artifact))
        assert info is not None
        wrapped = store.get_range(wrapped_root_key(artifact), 0, info.size).decode()
        root = unwrap_root(wrapped, keys.identity, digest.removeprefix("sha256:"))
        yield Secret(f"root key of {artifact}", root.raw)


def owned(folder: Path) -> list[Path]:
    """The folders of the story's people."""
    return [folder / name for name in OWNERS]
