"""The keyed sketch: which weights are sampled, how they are normalised, how two samples are compared (tier 1).

Positions hang on the key and the *shape*, never on a name: renaming, re-sharding and reordering change nothing. Whoever
lacks the key cannot know which weights to change. LEAKS.md's statistic: on window-centred samples x, y

    z = sum(xy) / sqrt(sum(x^2 y^2))      r = sum(xy) / sqrt(sum(x^2) sum(y^2))

z is Student-like for independent x, y of any distribution (heavy tails included); r is Pearson's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from artifacts.leaks.errors import SignatureError

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]

WINDOWS = 2
WINDOW = 2048
SAMPLES = WINDOWS * WINDOW
STEPS = 12.0  # int8 steps per robust standard deviation: 5.6 bits of entropy, quantisation costs r 0.0003
CLIP = 127 / STEPS  # both sides are clipped here, in robust standard deviations

MATCH_R = 0.15
MATCH_Z = 8.0


class SketchKey:
    """The 32-byte secret that fixes the sampled positions. Whoever has it could change just those weights.

    Attributes:
        key_id: public name of the key, 16 hex digits, safe to print.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise SignatureError(f"a sketch key has 32 bytes, this one has {len(secret)}")
        self._secret = secret
        self.key_id = hmac.new(secret, b"sluice leak sketch key id v1", hashlib.sha256).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"SketchKey({self.key_id})"

    @property
    def secret(self) -> bytes:
        """The secret itself. Never log, print or store it in clear."""
        return self._secret

    def sealing_key(self) -> bytes:
        """The key under which signatures are sealed: 32 bytes by HKDF-SHA-256 from the secret."""
        return HKDF(hashes.SHA256(), 32, None, b"sluice leak signature seal v1").derive(self._secret)

    def words(self, label: str, numbers: Sequence[int], count: int) -> npt.NDArray[np.uint64]:
        """`count` 64-bit words of the keyed stream for this use (`label`) and these numbers (a shape, mostly)."""
        info = label.encode() + b"\0" + b",".join(str(n).encode() for n in numbers)
        seed = hmac.new(self._secret, info, hashlib.sha256).digest()
        return np.frombuffer(hashlib.shake_256(seed).digest(8 * count), "<u8")

    def starts(self, rows: int, cols: int) -> tuple[int, ...]:
        """First flat index of each sampled window in a row-major matrix: one window per half of the matrix."""
        half = rows * cols // WINDOWS
        if half < WINDOW:
            raise SignatureError(f"a {rows}x{cols} matrix is too small for {WINDOWS} windows of {WINDOW}")
        words = self.words("windows", (rows, cols), WINDOWS)
        return tuple(i * half + int(word % np.uint64(half - WINDOW + 1)) for i, word in enumerate(words))

    def order(self, label: str, count: int, *numbers: int) -> npt.NDArray[np.intp]:
        """A keyed order of `range(count)`."""
        return np.argsort(self.words(label, (count, *numbers), count), kind="stable")


def eligible(rows: int, cols: int) -> bool:
    """Whether a matrix is sampled: both windows fit. Vectors (norms, biases) never are; they look alike everywhere."""
    return rows >= 8 and cols >= 8 and rows * cols >= SAMPLES


def normalise(window: npt.NDArray[np.floating]) -> F32:
    """Centre and scale one window robustly, clipped to ±`CLIP`; all zeros for a window without spread.

    The scale is the median magnitude of the weights that are not zero, so that neither a pruned copy nor a few huge
    outliers change what the rest looks like.
    """
    x = np.asarray(window, dtype=np.float64)
    centred = x - np.median(x)
    magnitude = np.abs(centred)
    held = magnitude[magnitude > 0]
    if held.size == 0:
        return np.zeros(x.shape, np.float32)
    scale = 1.4826 * float(np.median(held))
    with np.errstate(over="ignore", invalid="ignore"):
        y = np.clip(centred / scale, -CLIP, CLIP)
    y -= y.mean()
    return y.astype(np.float32)


def to_int8(values: npt.NDArray[np.floating], steps: float) -> I8:
    """Values rounded to `steps` per unit, clipped to ±127."""
    return np.asarray(np.clip(np.rint(values * steps), -127, 127), dtype=np.int8)


def quantise(window: npt.NDArray[np.floating]) -> I8:
    """One window as int8 samples."""
    return to_int8(normalise(window), STEPS)


def prepare(samples: I8) -> F32:
    """Stored int8 samples (…, `SAMPLES`) back as window-centred float32 for `compare`."""
    x = samples.astype(np.float32).reshape(*samples.shape[:-1], WINDOWS, WINDOW)
    x -= x.mean(axis=-1, keepdims=True)
    return x.reshape(samples.shape)


def compare(suspect: F32, candidates: F32) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pearson r and z of one suspect's samples (n,) against each candidate's (k, n); 0 where a side has no spread."""
    x = suspect.astype(np.float64)
    y = candidates.astype(np.float64)
    sxy = y @ x
    sxx, syy = float(x @ x), np.einsum("kn,kn->k", y, y)
    sx2y2 = (y * y) @ (x * x)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where((sxx > 0) & (syy > 0), sxy / np.sqrt(sxx * syy), 0.0)
        z = np.where(sx2y2 > 0, sxy / np.sqrt(sx2y2), 0.0)
    return r, z


def passes(r: float, z: float) -> bool:
    """Whether one tensor's r and z count as matched (LEAKS.md: r >= 0.15 and z >= 8)."""
    return r >= MATCH_R and z >= MATCH_Z


def structured(windows: F32, cols: int) -> bool:
    """Whether samples look like a constant anybody would compute: masks, position tables, repeated rows.

    Such tensors are equal in unrelated models and say nothing about lineage. Learned weights are not predictable from
    their neighbours; these are (R² of a linear prediction above 0.8), or have almost no distinct values.
    """
    for window in windows.reshape(WINDOWS, WINDOW).astype(np.float64):
        if np.unique(np.rint(window * STEPS)).size < 6:
            return True
        lags = [lag for lag in (1, 2, cols, 2 * cols) if lag <= WINDOW // 2]
        longest = max(lags)
        target = window[longest:]
        design = np.stack([window[longest - lag : WINDOW - lag] for lag in lags], axis=1)
        fit, *_ = np.linalg.lstsq(design, target, rcond=None)
        total = float(target @ target)
        if total == 0 or 1 - float(np.sum((target - design @ fit) ** 2)) / total > 0.8:
            return True
    return False
