"""The durable engine: Temporal, and the keys that its payloads are encrypted with."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from infra.settings_parts.place import Place


class EngineSettings(Place):
    """Temporal."""

    temporal_address: str = Field(default="127.0.0.1:7233", description="`host:port` of the Temporal server.")
    temporal_namespace: str = Field(default="sluice", min_length=2, description="Temporal namespace.")
    temporal_tls: bool = Field(
        default=False, description="Speak TLS to Temporal, with the system's trusted roots."
    )
    temporal_tls_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed Temporal's certificate. Turns TLS on.",
    )
    temporal_tls_cert_file: Path | None = Field(
        default=None, description="PEM file of the client certificate. Turns TLS on."
    )
    temporal_tls_key_file: Path | None = Field(
        default=None, description="PEM file of the client certificate's key."
    )
    temporal_api_key_file: Path | None = Field(
        default=None, description="File with the API key for Temporal Cloud. Turns TLS on."
    )
    temporal_retention_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Days that Temporal keeps the history of a release that ended. Set when the one-machine stack makes the namespace.",
    )
    temporal_ui: bool = Field(
        default=True, description="Whether the one-machine stack serves Temporal's own pages."
    )
    temporal_ui_port: int = Field(
        default=8233, ge=0, le=65535, description="Port of Temporal's own pages in the one-machine stack."
    )
    codec_keys_file: Path | None = Field(
        default=None,
        description="File with the keys that encrypt every payload in Temporal, one `id:base64` a line; the first encrypts, all "
        "decrypt. Dev mode makes one in the data folder.",
    )

    @field_validator("temporal_address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise ValueError(f"{value!r} is not host:port")
        return value

    @property
    def temporal_uses_tls(self) -> bool:
        """Whether the connection to Temporal is encrypted."""
        return self.temporal_tls or any(
            (self.temporal_tls_ca_file, self.temporal_tls_cert_file, self.temporal_api_key_file)
        )

    @property
    def effective_codec_keys_file(self) -> Path | None:
        """The file of codec keys; in dev mode the one that the stack makes."""
        return self.codec_keys_file or (self.data_dir / "secrets" / "codec.keys" if self.dev else None)
