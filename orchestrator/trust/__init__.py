"""Statements, signing, verifying and the Merkle audit log: bytes in, bytes out."""
