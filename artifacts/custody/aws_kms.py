"""The key in AWS KMS: it never leaves the service. The context is KMS's encryption context, which it logs.

KMS keeps the versions of a key to itself, so `version` is 0 here. Re-wrapping is KMS's own `ReEncrypt`: the key does
not come out for it. `Decrypt` names the key, so a ciphertext under another key of the account is refused.
"""

from __future__ import annotations

from typing import Any, NoReturn

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from artifacts.custody.base import (
    Context,
    Description,
    Health,
    KeyProvider,
    WrappedKey,
    check_context,
    check_plaintext,
)
from artifacts.custody.errors import (
    KeyServiceDenied,
    KeyServiceMisconfigured,
    KeyServiceUnavailable,
    KeyVersionGone,
    WrappedKeyForeign,
    WrappedKeyInvalid,
)
from artifacts.errors import KeyProviderError

_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "UnrecognizedClientException",
    }
)
_GONE = frozenset({"DisabledException", "KMSInvalidStateException", "KMSInvalidMacException"})
_MISSING = frozenset(
    {"NotFoundException", "InvalidKeyUsageException", "InvalidArnException", "ValidationException"}
)
_INVALID = frozenset({"InvalidCiphertextException"})
_FOREIGN = frozenset({"IncorrectKeyException"})


class AwsKms(KeyProvider):
    """A `KeyProvider` on a symmetric KMS key."""

    name = "aws-kms"

    def __init__(
        self,
        key_id: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        timeout: float = 10.0,
        client: Any = None,
    ) -> None:
        """A provider; nothing is sent yet. Credentials come from boto3's usual chain.

        Args:
            key_id: id, ARN or alias of the key.
            region: AWS region, or None for the environment's.
            endpoint_url: another endpoint (a VPC endpoint), or None.
            timeout: seconds until the service counts as down.
            client: a ready boto3 KMS client instead of all that.

        Raises:
            KeyServiceMisconfigured: no region, or no such endpoint.
        """
        self._key_id = key_id
        self._arn: str | None = None
        if client is None:
            config = Config(
                connect_timeout=timeout, read_timeout=timeout, retries={"max_attempts": 2, "mode": "standard"}
            )
            try:
                client = boto3.client("kms", region_name=region, endpoint_url=endpoint_url, config=config)
            except (BotoCoreError, ValueError) as error:
                raise KeyServiceMisconfigured(f"aws-kms {key_id}: no client can be made ({error})") from None
        self._kms = client

    def __repr__(self) -> str:
        return f"AwsKms({self._key_id!r})"

    def wrap(self, plaintext: bytes, context: Context) -> WrappedKey:
        """See `KeyProvider.wrap`."""
        bound, plaintext = check_context(context), check_plaintext(plaintext)
        answer = self._call("encrypt", KeyId=self._resolve(), Plaintext=plaintext, EncryptionContext=bound)
        return WrappedKey(self.name, self._resolve(), 0, answer["CiphertextBlob"])

    def unwrap(self, wrapped: WrappedKey, context: Context, purpose: str = "") -> bytes:
        """See `KeyProvider.unwrap`; no second lock stands here."""
        bound = check_context(context)
        self._check_ours(wrapped)
        answer = self._call(
            "decrypt", KeyId=self._resolve(), CiphertextBlob=wrapped.ciphertext, EncryptionContext=bound
        )
        plaintext: bytes = answer["Plaintext"]
        return plaintext

    def rewrap(self, wrapped: WrappedKey, old_context: Context, new_context: Context) -> WrappedKey:
        """See `KeyProvider.rewrap`. The key does not leave KMS."""
        old, new = check_context(old_context), check_context(new_context)
        self._check_ours(wrapped)
        answer = self._call(
            "re_encrypt",
            CiphertextBlob=wrapped.ciphertext,
            SourceKeyId=self._resolve(),
            SourceEncryptionContext=old,
            DestinationKeyId=self._resolve(),
            DestinationEncryptionContext=new,
        )
        return WrappedKey(self.name, self._resolve(), 0, answer["CiphertextBlob"])

    def rotate(self) -> int:
        """See `KeyProvider.rotate`: KMS's rotation on demand. KMS allows a limited number of them per key."""
        self._call("rotate_key_on_demand", KeyId=self._resolve())
        return 0

    def describe(self) -> Description:
        """See `KeyProvider.describe`."""
        metadata = self._call("describe_key", KeyId=self._key_id)["KeyMetadata"]
        usage, spec = (
            metadata.get("KeyUsage") or "ENCRYPT_DECRYPT",
            metadata.get("KeySpec", "SYMMETRIC_DEFAULT"),
        )
        if usage != "ENCRYPT_DECRYPT" or spec != "SYMMETRIC_DEFAULT":
            raise KeyServiceMisconfigured(
                f"aws-kms {self._key_id}: is a {spec} key for {usage}; only a symmetric key binds an encryption context"
            )
        state = metadata.get("KeyState")
        detail = f"KMS key {metadata['Arn']}, state {state}, origin {metadata.get('Origin')}"
        return Description(self.name, str(metadata["Arn"]), 0, protected=True, detail=detail)

    def health(self) -> Health:
        """See `KeyProvider.health`."""
        try:
            found = self.describe()
        except KeyProviderError as error:
            return Health(ok=False, detail=str(error))
        return Health(ok="state Enabled" in found.detail, detail=found.detail)

    def _resolve(self) -> str:
        """The key's ARN, asked once: an alias that is moved to another key later does not move us with it."""
        if self._arn is None:
            self._arn = self.describe().key
        return self._arn

    def _check_ours(self, wrapped: WrappedKey) -> None:
        if wrapped.provider != self.name or wrapped.key != self._resolve():
            raise WrappedKeyForeign(
                f"aws-kms {self._key_id}: the key was wrapped by {wrapped.provider} {wrapped.key}"
            )

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._kms, operation)(**arguments)
        except ClientError as error:
            self._refused(error)
        except (NoCredentialsError, PartialCredentialsError):
            raise KeyServiceDenied(
                f"aws-kms {self._key_id}: there are no AWS credentials for this process"
            ) from None
        except (BotoConnectionError, HTTPClientError) as error:
            raise KeyServiceUnavailable(
                f"aws-kms {self._key_id}: cannot be reached ({type(error).__name__}); it will be tried again"
            ) from None
        except BotoCoreError as error:
            raise KeyServiceMisconfigured(
                f"aws-kms {self._key_id}: {operation} cannot be sent ({error})"
            ) from None
        return answer

    def _refused(self, error: ClientError) -> NoReturn:
        code = str(error.response.get("Error", {}).get("Code", ""))
        where = f"aws-kms {self._key_id}"
        if code in _INVALID:
            raise WrappedKeyInvalid(
                f"{where}: the wrapped key was altered, or belongs to another release, artifact or plan"
            ) from None
        if code in _FOREIGN:
            raise WrappedKeyForeign(f"{where}: the wrapped key belongs to another KMS key") from None
        if code in _DENIED:
            raise KeyServiceDenied(
                f"{where}: denied ({code}); check the credentials and the key's policy"
            ) from None
        if code in _GONE:
            raise KeyVersionGone(f"{where}: the key is disabled or about to be deleted ({code})") from None
        if code in _MISSING:
            raise KeyServiceMisconfigured(f"{where}: no such symmetric key ({code})") from None
        raise KeyServiceUnavailable(
            f"{where}: answers {code or 'an error'}; it will be tried again"
        ) from None
