"""One way to speak to Temporal, shared by API, workers, tests and the replayer: the plugin, connecting, namespace, versions.

Invariants:

- Every payload is pydantic JSON under `infra.codec`; failure messages and stack traces are payloads too, and so are headers.
- Workflow code sees the standard library, pydantic, Temporal, `orchestrator.domain` and `orchestrator.contracts`; any other import in
  a workflow is an error, not a reload. Whatever else lives in `orchestrator` can't be imported there at all.
- Nothing runs on a versioned queue before a current version is set: `make_current` belongs to every worker's start.

Errors:

    TemporalError
    ├── TemporalUnreachableError   nothing answers at the address, or it refuses us
    └── NamespaceMissingError      the server is there, our namespace isn't
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import pkgutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    RegisterNamespaceRequest,
    SetWorkerDeploymentCurrentVersionRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client, ClientConfig, TLSConfig
from temporalio.common import HeaderCodecBehavior, VersioningBehavior, WorkerDeploymentVersion
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.plugin import SimplePlugin
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxMatcher, SandboxRestrictions
from temporalio.workflow import SandboxImportNotificationPolicy

import orchestrator
from infra.codec import CodecKeys, EncryptingCodec
from infra.interceptors import ContextInterceptor
from infra.settings import Settings, read_secret
from infra.telemetry.runtime import runtime_for
from infra.telemetry.tracing import temporal_interceptors
from infra.workflow_code import keep_workflow_code

#: What workflow code may import besides the standard library, pydantic and Temporal.
WORKFLOW_MAY_IMPORT = ("orchestrator.domain", "orchestrator.contracts")

#: Pure helpers beside the workflows: no workflow is defined in them.
_WORKFLOW_HELPERS = ("workflows.effects", "workflows.errors")

#: Third-party modules that the domain stands on; they are pure, and loading them anew for every run would cost seconds.
_DOMAIN_STANDS_ON = ("dateutil", "rfc8785", "six")

#: The few search attributes that the service sets; dashboards read the database instead.
SEARCH_ATTRIBUTES: Mapping[str, str] = {"SluiceStage": "Keyword", "SluiceWaitingFor": "Keyword"}


class TemporalError(Exception):
    """Temporal can't be used."""


class TemporalUnreachableError(TemporalError):
    """Nothing answers at the address, or it refuses us."""


class NamespaceMissingError(TemporalError):
    """The server is there, our namespace isn't."""


class SluicePlugin(SimplePlugin):
    """Data converter, codec, interceptors and sandbox, in one piece.

    Give it to `Client.connect` and to `Replayer`; workers take it from their client.
    """

    def __init__(self, keys: CodecKeys, interceptors: Sequence[Any] = ()) -> None:
        super().__init__(
            "sluice",
            data_converter=data_converter(keys),
            interceptors=[*interceptors, ContextInterceptor()],
            workflow_runner=_sandbox,
        )

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        """See base class; headers are encrypted as well."""
        config = super().configure_client(config)
        config["header_codec_behavior"] = HeaderCodecBehavior.CODEC
        return config


def data_converter(keys: CodecKeys) -> DataConverter:
    """Pydantic JSON, encrypted, failures included."""
    return DataConverter(
        payload_converter_class=PydanticPayloadConverter,
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
        payload_codec=EncryptingCodec(keys),
    )


def sandbox_restrictions() -> SandboxRestrictions:
    """What workflow code may see.

    The package `orchestrator` has to pass as the parent of domain and contracts, and would take its other children along: those are
    forbidden by name.
    """
    allowed = {name.removeprefix("orchestrator.") for name in WORKFLOW_MAY_IMPORT}
    others = {module.name for module in pkgutil.iter_modules(orchestrator.__path__)} - allowed
    forbidden = SandboxMatcher(children={"orchestrator": SandboxMatcher(access=others)})
    restrictions = SandboxRestrictions.default.with_passthrough_modules(
        "orchestrator", *_WORKFLOW_HELPERS, *_DOMAIN_STANDS_ON
    )
    return replace(
        restrictions.with_import_notification_policy(
            SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
        ),
        invalid_modules=restrictions.invalid_modules | forbidden,
        invalid_module_members=restrictions.invalid_module_members | forbidden,
        # else a module that the process has loaded already is handed out before it is looked at
        disable_lazy_sys_module_passthrough=True,
    )


def _sandbox(existing: WorkflowRunner | None) -> WorkflowRunner:
    if existing is not None and not isinstance(existing, SandboxedWorkflowRunner):
        return existing  # a test or a debugger that asked for no sandbox
    keep_workflow_code()
    return SandboxedWorkflowRunner(restrictions=sandbox_restrictions())


def plugin_for(settings: Settings) -> SluicePlugin:
    """The plugin with the keys of these settings.

    Raises:
        CodecKeysError: the file of keys is missing or malformed.
    """
    path = settings.effective_codec_keys_file
    if path is None:
        raise TemporalError("SLUICE_CODEC_KEYS_FILE is not set: payloads in Temporal would be in clear")
    return SluicePlugin(CodecKeys.read(path), temporal_interceptors(settings))


async def connect(
    settings: Settings, *, patience: timedelta = timedelta(seconds=10), identity: str | None = None
) -> Client:
    """Connect, and see that our namespace is there.

    Args:
        settings: Address, namespace, TLS and codec keys.
        patience: How long to wait for a server that is still starting.
        identity: How this process appears in Temporal; host and process id by default.

    Raises:
        TemporalUnreachableError: nothing answers within `patience`.
        NamespaceMissingError: the server has no such namespace.
    """
    settle_at_exit()
    plugin = plugin_for(settings)
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            client = await Client.connect(
                settings.temporal_address,
                namespace=settings.temporal_namespace,
                plugins=[plugin],
                tls=tls_of(settings),
                api_key=_api_key(settings),
                identity=identity,
                runtime=runtime_for(settings),
            )
            await client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=settings.temporal_namespace), timeout=timedelta(seconds=5)
            )
        except (RuntimeError, RPCError) as error:
            if time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                continue
            raise _connection_error(settings, error) from None
        return client


def _connection_error(settings: Settings, error: Exception) -> TemporalError:
    if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
        return NamespaceMissingError(
            f"Temporal at {settings.temporal_address} has no namespace {settings.temporal_namespace!r}: create it, "
            "or set SLUICE_TEMPORAL_NAMESPACE"
        )
    return TemporalUnreachableError(
        f"no Temporal server answers at {settings.temporal_address} "
        f"({'with' if settings.temporal_uses_tls else 'without'} TLS): start one with `sluice up`, or set "
        f"SLUICE_TEMPORAL_ADDRESS. It said: {str(error).splitlines()[0][:200]}"
    )


def tls_of(settings: Settings) -> bool | TLSConfig:
    """How Temporal is spoken to: in clear, with the system's roots, or with certificates of one's own."""
    if not settings.temporal_uses_tls:
        return False

    def pem(path: Path | None) -> bytes | None:
        return path.read_bytes() if path else None

    return TLSConfig(
        server_root_ca_cert=pem(settings.temporal_tls_ca_file),
        client_cert=pem(settings.temporal_tls_cert_file),
        client_private_key=pem(settings.temporal_tls_key_file),
    )


def _api_key(settings: Settings) -> str | None:
    path = settings.temporal_api_key_file
    return read_secret(path, "temporal_api_key_file") if path else None


async def prepare_namespace(
    client: Client, *, retention: timedelta, search_attributes: Mapping[str, str] = SEARCH_ATTRIBUTES
) -> None:
    """Make the client's namespace what the service needs: there, with its retention and its search attributes.

    For servers of our own (the one-machine stack, tests, the first start of a cluster); safe to repeat.
    """
    keep = Duration()
    keep.FromTimedelta(retention)
    try:
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=client.namespace, workflow_execution_retention_period=keep)
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise
        await client.workflow_service.update_namespace(
            UpdateNamespaceRequest(
                namespace=client.namespace, config=NamespaceConfig(workflow_execution_retention_ttl=keep)
            )
        )
    kinds = {
        name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}")
        for name, kind in search_attributes.items()
    }
    with suppress(RPCError):  # already there: the server says so in different ways
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=kinds)
        )


# --- worker versions


def default_build_id(
    packages: Iterable[str] = ("workflows", "orchestrator.domain", "orchestrator.contracts"),
) -> str:
    """Version and a digest over the code that a workflow's replay depends on."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for package in packages:
        for path in sorted((root / package.replace(".", "/")).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{version('sluice-release')}-{digest.hexdigest()[:12]}"


def deployment_config(settings: Settings) -> WorkerDeploymentConfig:
    """The versioning of release workers: `Worker(deployment_config=...)`."""
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.deployment, settings.build_id or default_build_id()),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


async def make_current(
    client: Client, deployment: WorkerDeploymentVersion, *, patience: timedelta = timedelta(seconds=30)
) -> None:
    """Route new runs to this version; call it once its worker polls, and repeat it as you like.

    Raises:
        TemporalError: the server did not see a worker of this version within `patience`.
    """
    deadline = time.monotonic() + patience.total_seconds()
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace,
        deployment_name=deployment.deployment_name,
        build_id=deployment.build_id,
        identity=client.identity,
        ignore_missing_task_queues=True,
    )
    while True:
        try:
            await client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError as error:
            # the server learns of a version from its first poll, a moment after the worker has started
            retryable = {
                RPCStatusCode.NOT_FOUND,
                RPCStatusCode.FAILED_PRECONDITION,
                RPCStatusCode.UNAVAILABLE,
                RPCStatusCode.DEADLINE_EXCEEDED,
                RPCStatusCode.RESOURCE_EXHAUSTED,
                RPCStatusCode.CANCELLED,
                RPCStatusCode.ABORTED,
                RPCStatusCode.INTERNAL,
            }
            if error.status not in retryable or time.monotonic() > deadline:
                raise TemporalError(
                    f"Temporal did not make {deployment.to_canonical_string()} the current version: {error.message}"
                ) from error
            await asyncio.sleep(0.1)
        else:
            return


# --- leaving


_SETTLE_SECONDS = 0.3
_settles = False


def settle_at_exit() -> None:
    """Wait a moment before the interpreter ends, once a client was made in this process.

    The SDK's own threads may still hand over results while the interpreter is torn down, which aborts the process (seen with
    SDK 1.35: 2 of 15 exits; none after a short wait).
    """
    global _settles  # noqa: PLW0603 - one registration per process
    if not _settles:
        _settles = True
        atexit.register(time.sleep, _SETTLE_SECONDS)


def replayer(keys: CodecKeys, workflows: Sequence[type]) -> Any:
    """A replayer for saved histories with the same plugin as the workers."""
    from temporalio.worker import Replayer

    return Replayer(workflows=workflows, plugins=[SluicePlugin(keys)])
