from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifacts.leaks import ReferenceSet, SignatureBuilder, SketchKey, WeightSignature
from tests.simulators import transformations as t

KEY = SketchKey(bytes(range(32)))


def sign(
    paths: list[Path] | Path, artifact: str, *, part: int = 1 << 20, digests: frozenset[str] | None = None
) -> WeightSignature:
    """A signature made as the sealing pipeline makes it: parts of each file, in order."""
    builder = SignatureBuilder(artifact, KEY, **({} if digests is None else {"digests": digests}))
    for path in [paths] if isinstance(paths, Path) else paths:
        with path.open("rb") as file:
            offset = 0
            while data := file.read(part):
                builder.feed(path.name, offset, data)
                offset += len(data)
        builder.finish_file(path.name)
    return builder.finish()


@pytest.fixture(scope="session")
def rng() -> np.random.Generator:
    return np.random.default_rng(20240)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> t.Leak:
    return t.Leak(t.synthetic(np.random.default_rng(1)))


@pytest.fixture(scope="session")
def small_path(small: t.Leak, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return t.write(small, tmp_path_factory.mktemp("small"))[0]


@pytest.fixture(scope="session")
def small_signature(small_path: Path) -> WeightSignature:
    return sign(small_path, "small-model")


@pytest.fixture(scope="session")
def references(small_signature: WeightSignature) -> ReferenceSet:
    return ReferenceSet(KEY, [small_signature])


@pytest.fixture(scope="session")
def minilm() -> t.Leak:
    return t.Leak(t.read_safetensors(t.minilm_path()))


@pytest.fixture(scope="session")
def minilm_signature() -> WeightSignature:
    return sign(t.minilm_path(), "minilm", part=8 << 20)


@pytest.fixture(scope="session")
def minilm_references(minilm_signature: WeightSignature) -> ReferenceSet:
    return ReferenceSet(KEY, [minilm_signature])
