"""Where sealed files lie: a directory, S3, the Hugging Face Hub, behind one small interface.

`open_store("dir:/srv/sealed")`, `open_store("s3://bucket/prefix")` and `open_store("hf:owner/name")` give a
`Store`. Everything else a caller needs is a word of `artifacts.stores.base`.
"""

from artifacts.stores.base import (
    ObjectInfo,
    PartInfo,
    Store,
    StoreFeatures,
    Upload,
    open_store,
    read_parts,
    valid_key,
)

__all__ = [
    "ObjectInfo",
    "PartInfo",
    "Store",
    "StoreFeatures",
    "Upload",
    "open_store",
    "read_parts",
    "valid_key",
]
