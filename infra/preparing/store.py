"""The bucket that sealed files go to."""

from __future__ import annotations

from infra.settings import Settings


class StoreError(Exception):
    """The store is not there, or refuses."""


def prepare_store(settings: Settings) -> list[str]:
    """Make the bucket of the store's address when it is not there; a folder and a Hub repository make themselves.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    uri = settings.effective_store_uri
    if not uri.startswith("s3://"):
        return []
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = uri.removeprefix("s3://").partition("/")[0]
    client = boto3.client("s3", endpoint_url=settings.s3_endpoint_url)
    try:
        known = {found["Name"] for found in client.list_buckets()["Buckets"]}
        if bucket in known:
            return []
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        raise StoreError(
            f"the store refuses {bucket}: {error.response.get('Error', {}).get('Code')}"
        ) from None
    except BotoCoreError as error:
        raise StoreError(f"the store does not answer: {type(error).__name__}") from None
    return [f"bucket {bucket}"]
