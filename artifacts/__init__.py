"""Sealed artifacts: a library of its own, usable by a partner without the service.

    artifacts.sealing      seal_tree: a folder goes sealed into a store; needs no secret of the service
    artifacts.verifying    verify_artifact: is every sealed byte the one that the manifest lists? No key needed
    artifacts.envelope     make_envelope, open_envelope, public records: how keys reach people
    artifacts.fetching     fetch_artifact: sealed files from anywhere to verified plaintext in a folder
    artifacts.opened       OpenedArtifact: read files and single tensors without fetching the rest
    artifacts.filesystem   the same for fsspec: `sealed://`
    artifacts.resealing    reseal_artifact: a new root key for an old artifact
    artifacts.keys         root and file keys, key pairs, wrapping the root to custody
    artifacts.signing      the identities that sign manifests and envelopes
    artifacts.manifest     what an artifact consists of
    artifacts.stores       where sealed files lie: a directory, S3, the Hub
    artifacts.errors       everything that can go wrong, in one tree

The formats are in docs/sealed-format.md, frozen in tests/vectors/. Below these lie `body` and `reader` (chunks), `age`
(envelope files), `encoding`, `paths`, `source` (what is sealed), `sources` (where sealed bytes are read from), `ticket`
(resume). Nothing here imports the service.
"""
