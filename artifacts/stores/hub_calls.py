"""How the Hugging Face Hub is called: timeouts, bounded retries that are said, errors in the stores' words.

huggingface_hub's own HTTP client waits for ever, and repeats some requests silently; the first `HubCalls` of a process
gives it timeouts and, for our calls, leaves repeating to `RetryPolicy`, unless the process has set a client factory of
its own. Tokens go to the Hub alone, never to the storage host that it redirects to.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_token,
    set_client_factory,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import _http as hub_http
from huggingface_hub.utils.tqdm import disable_progress_bars

from artifacts.errors import AccessDenied, ObjectExists, ObjectMissing, StoreError
from artifacts.stores.retry import Again, RetryPolicy, retry_after

T = TypeVar("T")
ListOfOperations = list[CommitOperationAdd | CommitOperationDelete]
_factory_lock = threading.Lock()


class HeadMoved(StoreError):  # noqa: N818 - a state, as its siblings
    """Somebody else committed in between: look again and repeat."""


class _Busy(Exception):  # noqa: N818 - a signal through the library, never seen by callers
    """The Hub cannot answer now. Not one of the exceptions that the library repeats silently."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.after_s = reason, after_s


_ours: contextvars.ContextVar[bool] = contextvars.ContextVar("sluice_hub_call", default=False)
Sender = Callable[[httpx2.Request], httpx2.Response]
_sender: contextvars.ContextVar[Sender | None] = contextvars.ContextVar("sluice_hub_sender", default=None)


class _Client(httpx2.Client):
    """huggingface_hub's client with one difference: within our calls, `RetryPolicy` alone repeats requests.

    The library repeats some of them by itself, up to half a minute and without a word, and others not at all.
    """

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send; within our calls, an outage is `_Busy`; within `routed`, its sender sends."""
        sender = _sender.get()
        if sender is not None:
            return sender(request)
        if not _ours.get():
            return super().send(request, **options)
        try:
            answer = super().send(request, **options)
        except httpx2.TransportError as error:
            raise _Busy(f"the Hub gave no whole answer ({type(error).__name__})") from error
        if answer.status_code == 429 or answer.status_code >= 500:
            answer.close()
            after = retry_after(answer.headers.get("retry-after"))
            raise _Busy(f"the Hub answered {answer.status_code}", after)
        return answer


def _prepare_library(connect_s: float, read_s: float) -> None:
    """Give huggingface_hub's shared HTTP client timeouts and let us do the retries; see the module."""
    with _factory_lock:
        default = hub_http.default_client_factory
        if hub_http._GLOBAL_CLIENT_FACTORY is not default:  # noqa: SLF001 - the library has no getter
            return

        def factory() -> httpx2.Client:
            with default() as plain:
                hooks = plain.event_hooks
            timeout = httpx2.Timeout(read_s, connect=connect_s)
            return _Client(event_hooks=hooks, follow_redirects=True, timeout=timeout)

        set_client_factory(factory)
        disable_progress_bars()  # whoever calls us shows progress of their own


@contextlib.contextmanager
def routed(sender: Sender) -> Iterator[None]:
    """Within it, every request that huggingface_hub makes in this context is sent by `sender`, and by nobody else.

    Raises:
        StoreError: this process gave the library a client of its own, which would send past `sender`.
    """
    _prepare_library(10, 60)
    if not isinstance(hub_http.get_session(), _Client):
        raise StoreError("huggingface_hub has an HTTP client of its own here; its requests cannot be checked")
    token = _sender.set(sender)
    try:
        yield
    finally:
        _sender.reset(token)


class HubCalls:
    """One repository on one Hub, with one token.

    Args:
        repo_id: `owner/name`.
        endpoint: the Hub; by default huggingface.co, or `HF_ENDPOINT`.
        token: by default the one that huggingface_hub finds; False for none.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        endpoint: str | None = None,
        token: str | bool | None = None,
        policy: RetryPolicy | None = None,
        connect_timeout_s: float = 10,
        read_timeout_s: float = 60,
    ) -> None:
        _prepare_library(connect_timeout_s, read_timeout_s)
        self.repo_id = repo_id
        self.api = HfApi(endpoint=endpoint, token=token, library_name="sluice")
        self.policy = policy or RetryPolicy()
        self.where = f"hf:{repo_id}"
        self._committing = threading.Lock()
        self._timeout = httpx2.Timeout(read_timeout_s, connect=connect_timeout_s)

    def __repr__(self) -> str:
        return f"HubCalls({self.where!r})"

    def headers(self) -> dict[str, str]:
        """Headers with the token, for requests to the Hub itself."""
        token = self.api.token
        if token is None or token is True:
            token = get_token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def client(self) -> httpx2.Client:
        """A client for ranged reads that follows no redirect by itself."""
        return httpx2.Client(timeout=self._timeout, follow_redirects=False)

    def run(self, what: str, call: Callable[[], T]) -> T:
        """The result of `call`, repeated by the policy. Only for what is safe to repeat.

        Raises:
            AccessDenied, ObjectMissing, ObjectExists, StoreError, StoreUnavailable.
        """
        where = f"{self.where}: {what}" if what else self.where
        return self.policy.run(where, lambda: self.once(where, call))

    def speaks_xet(self, revision: str) -> bool:
        """Whether this Hub takes uploads through Xet: whether it knows of write tokens. Older and private ones do not."""
        url = f"{self.api.endpoint}/api/models/{self.repo_id}/xet-write-token/{quote(revision, safe='')}"

        def ask() -> bool:
            with self.client() as client:
                answer = client.get(url, headers=self.headers())
            if answer.status_code in {404, 405, 501}:
                return False
            hub_http.hf_raise_for_status(answer)
            return True

        return self.run("xet", ask)

    def head(self, revision: str = "main") -> str:
        """The commit that `revision` is at."""
        return str(self.run(revision, lambda: self.api.model_info(self.repo_id, revision=revision)).sha)

    def commit(self, revision: str, message: str, operations: Callable[[str], ListOfOperations]) -> str:
        """Commit what `operations(head)` gives on top of exactly that head; an empty list commits nothing.

        It is asked again whenever somebody else committed in between or the answer was lost, and then sees what is
        there by now: that is how a commit whose answer was lost is recognised. Gives the branch's commit.
        """

        def attempt() -> str:
            head = self.head(revision)
            with contextlib.ExitStack() as files:
                todo = operations(head)
                for item in todo:
                    if isinstance(item, CommitOperationAdd) and isinstance(item.path_or_fileobj, io.IOBase):
                        files.callback(item.path_or_fileobj.close)
                if not todo:
                    return head
                make = functools.partial(
                    self.api.create_commit,
                    self.repo_id,
                    todo,
                    commit_message=message,
                    revision=revision,
                    parent_commit=head,
                )
                try:
                    return str(self.once(self.where, make).oid)
                except HeadMoved as moved:
                    raise Again("somebody else committed at the same moment") from moved

        with self._committing:  # threads of one process need not race each other
            return self.policy.run(self.where, attempt)

    def once(self, where: str, call: Callable[[], T]) -> T:
        """The result of one `call`; raises `Again` where repeating may help, or the store's own error."""
        token = _ours.set(True)
        try:
            return call()
        except RuntimeError as error:  # the library wraps what went wrong with a large file
            if isinstance(error.__cause__, _KNOWN):
                raise translate(error.__cause__, where) from error
            raise
        except _KNOWN as error:
            raise translate(error, where) from error
        except HFValidationError as error:
            raise StoreError(f"{where}: {error}") from error
        finally:
            _ours.reset(token)


_KNOWN = (HfHubHTTPError, httpx2.TransportError, _Busy)


def translate(error: Exception, where: str) -> Exception:
    """The store's own error. The server's text stays out: it may repeat signed URLs."""
    if isinstance(error, _Busy):
        return Again(error.reason, error.after_s)
    if not isinstance(error, HfHubHTTPError):
        return Again(f"the Hub gave no whole answer ({type(error).__name__})")
    status, headers = error.response.status_code, error.response.headers
    if status == 429 or status >= 500:
        return Again(f"the Hub answered {status}", retry_after(headers.get("retry-after")))
    if isinstance(error, GatedRepoError):
        return AccessDenied(f"{where}: access to this gated repository was not granted to this account")
    if isinstance(error, (RevisionNotFoundError, EntryNotFoundError)):
        return ObjectMissing(f"{where}: not in this repository")
    if isinstance(error, RepositoryNotFoundError):
        return AccessDenied(f"{where}: no such repository, or this token may not see it")
    if status in {401, 403}:
        return AccessDenied(f"{where}: the Hub answered {status}; check the token and its rights")
    if status == 412:
        return HeadMoved(f"{where}: somebody else committed at the same moment")
    if status == 409:
        return ObjectExists(f"{where}: is there already")
    if status == 404:
        return ObjectMissing(f"{where}: not there")
    return StoreError(f"{where}: the Hub answered {status}")


def default_spool(repo_id: str, cache: Path) -> Path:
    """Where unfinished sealed files of a repository wait on this machine."""
    return cache / "sluice" / "hub" / repo_id.replace("/", "--")
