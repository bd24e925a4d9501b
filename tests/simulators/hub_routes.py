"""The Hub's HTTP paths over its `State`: what huggingface_hub 2.4 sends, and what the Hub answers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from tests.simulators.hub_state import Commit, Entry, Refused, Repo, State, User, is_large

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}
REPO = r"(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"


@dataclass
class Call:
    """One request: `query` values are lists; `user` is None for anonymous."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    user: User | None
    endpoint: str
    storage: str
    args: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def get(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[["Routes", Call], Answer]
_ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, pattern: str) -> Callable[[Handler], Handler]:
    def keep(handler: Handler) -> Handler:
        _ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return keep


def as_json(data: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(data).encode(), {"Content-Type": "application/json", **headers})


def stamp(date: Any) -> str:
    return str(date.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]) + "Z"


class Routes:
    """Finds the handler of a call. `secret` signs the storage URLs as a CDN's would be."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.secret = b"simulated storage key"
        self.multipart_over = 8 * 1024 * 1024
        self.chunk_size = 5 * 1024 * 1024
        self.page = 100
        self.url_life_s = 3600
        self.endless = False  # listings whose next page is always the same page
        self.next_link = ""  # where listings say that their next page is
        self._tree: tuple[tuple[str, str, bool, bool], list[dict[str, Any]]] | None = None
        self.xet_cas: str | None = None  # where Xet's content store would be; None: this Hub knows no Xet

    def answer(self, call: Call) -> Answer:
        try:
            for method, pattern, handler in _ROUTES:
                wanted = method == call.method or (method == "GET" and call.method == "HEAD")
                if wanted and (match := pattern.fullmatch(call.path)):
                    # Slashes that are quoted are part of a revision or file name.
                    call.args = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                    return handler(self, call)
            raise Refused(  # noqa: TRY301 - every refusal takes the same way out
                404, f"Sorry, we can't find the page you are looking for: {call.method} {call.path}"
            )
        except Refused as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            extra = {k: call.endpoint + v for k, v in refused.extra.items()}
            return as_json({"error": refused.message} | extra, refused.status, **headers)

    # -- helpers ----------------------------------------------------------------------------------------------------

    def repo(self, call: Call, *, write: bool = False) -> Repo:
        kind = TYPES[call.args.get("kind", "models")]
        repo = self.state.find(kind, call.args["repo"], call.user)
        if write:
            self.state.must_write(repo, call.user)
        return repo

    def sign(self, endpoint: str, path: str, **query: str) -> str:
        query["expires"] = str(int(time.time()) + self.url_life_s)
        text = path + "?" + urlencode(sorted(query.items()))
        return f"{endpoint}{text}&sig={hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()}"

    def check_signed(self, call: Call) -> None:
        query = {k: v[0] for k, v in call.query.items()}
        text = call.path + "?" + urlencode(sorted((k, v) for k, v in query.items() if k != "sig"))
        good = hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()
        if query.get("sig") != good or int(query["expires"]) < time.time():
            raise Refused(403, "Request has expired or is not signed")

    def paged(self, call: Call, items: list[Any], size: int | None = None) -> Answer:
        """A page of `items`, with the link to the next as the Hub gives it."""
        size = size or int(call.get("limit", str(self.page)))
        size = min(size, 1000)
        start = int(call.get("cursor", "0"))
        headers = {}
        if start + size < len(items):
            query = [(k, v) for k, vs in call.query.items() for v in vs if k != "cursor"]
            url = f"{call.endpoint}{quote(call.path)}?{urlencode([*query, ('cursor', str(start + size))])}"
            headers["Link"] = f'<{url}>; rel="next"'
        return as_json(items[start : start + size], **headers)

    def tree_items(self, commit: Commit, base: str, *, recursive: bool, expand: bool) -> list[dict[str, Any]]:
        """The rows below a folder; kept for the next page of the same listing."""
        asked = (commit.oid, base, recursive, expand)
        if self._tree is not None and self._tree[0] == asked:
            return self._tree[1]
        items: dict[str, dict[str, Any]] = {}
        for path, entry in sorted(commit.files.items()):
            if base and not path.startswith(base + "/"):
                continue
            rest = path[len(base) + 1 :] if base else path
            folders = rest.split("/")[:-1]
            for depth in range(1, len(folders) + 1):
                name = "/".join([*filter(None, [base]), *folders[:depth]])
                oid = hashlib.sha1(f"{commit.oid}{name}".encode()).hexdigest()
                items.setdefault(name, {"type": "directory", "oid": oid, "size": 0, "path": name})
                if not recursive:
                    break
            if recursive or not folders:
                items[path] = self.file_json(path, entry, commit if expand else None)
        self._tree = (asked, list(items.values()))
        return self._tree[1]

    def file_json(self, path: str, entry: Entry, commit: Commit | None = None) -> dict[str, Any]:
        item: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
        if entry.sha256:
            item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 134}
            item["xetHash"] = entry.xet
        if commit:
            item["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": stamp(commit.date)}
        return item

    def listed_json(self, repo: Repo, expand: list[str], *, full: bool) -> dict[str, Any]:
        """A row of a listing: with `expand`, nothing but what was asked for."""
        item = self.info_json(repo, repo.head, full=full)
        held = sum(e.size for e in repo.head.files.values())
        item["usedStorage"] = held if repo.storage is None else repo.storage
        if expand:
            return {k: v for k, v in item.items() if k in {*expand, "_id", "id", "modelId"}}
        return item if full else {k: v for k, v in item.items() if k not in {"usedStorage", "lastModified"}}

    def info_json(self, repo: Repo, commit: Commit, *, full: bool, blobs: bool = False) -> dict[str, Any]:
        tags = list(repo.card_tags)
        item: dict[str, Any] = {
            "_id": hashlib.sha1(repo.id.encode()).hexdigest()[:24],
            "id": repo.id,
            "modelId": repo.id,
            "author": repo.owner,
            "sha": commit.oid,
            "lastModified": stamp(repo.modified),
            "createdAt": stamp(repo.created),
            "private": repo.private,
            "gated": repo.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": tags,
        }
        if repo.parameters is not None:
            item["safetensors"] = {"parameters": {"F32": repo.parameters}, "total": repo.parameters}
        if full:
            item["siblings"] = []
            for path, entry in sorted(commit.files.items()):
                sibling: dict[str, Any] = {"rfilename": path}
                if blobs:
                    sibling |= {"size": entry.size, "blobId": entry.oid}
                    if entry.sha256:
                        sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": 134}
                item["siblings"].append(sibling)
        return item


@route("GET", "/api/whoami-v2")
def whoami(_: Routes, call: Call) -> Answer:
    if call.user is None:
        raise Refused(401, "Invalid username or password.")
    orgs = [{"type": "org", "name": org, "roleInOrg": call.user.role} for org in sorted(call.user.orgs)]
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": call.user.role}}
    return as_json({"type": "user", "name": call.user.name, "orgs": orgs, "auth": token})


@route("POST", "/api/repos/create")
def create(routes: Routes, call: Call) -> Answer:
    if call.user is None:
        raise Refused(401, "Invalid username or password.")
    asked = call.json()
    owner = asked.get("organization") or call.user.name
    if call.user.role != "write" or not (owner == call.user.name or owner in call.user.orgs):
        raise Refused(403, f"You don't have the rights to create a repository under {owner}")
    private = asked.get("visibility") == "private" or asked.get("private") is True
    kind = asked.get("type") or "model"
    repo_id = f"{owner}/{asked['name']}"
    routes.state.create(repo_id, kind=kind, private=private, author=call.user.name)
    prefix = "" if kind == "model" else f"{kind}s/"
    return as_json({"url": f"{call.endpoint}/{prefix}{repo_id}", "name": repo_id})


@route("DELETE", "/api/repos/delete")
def delete(routes: Routes, call: Call) -> Answer:
    asked = call.json()
    kind = asked.get("type") or "model"
    repo_id = f"{asked.get('organization') or (call.user and call.user.name)}/{asked['name']}"
    repo = routes.state.find(kind, repo_id, call.user)
    routes.state.must_write(repo, call.user)
    del routes.state.repos[kind, repo.id.lower()]
    return Answer()


@route("PUT", f"/api/{REPO}/settings")
def settings(routes: Routes, call: Call) -> Answer:
    repo, asked = routes.repo(call, write=True), call.json()
    if "gated" in asked:
        if asked["gated"] not in {"auto", "manual", False}:
            raise Refused(400, "Invalid gated")
        repo.gated = asked["gated"]
    if "visibility" in asked or "private" in asked:
        repo.private = asked.get("visibility") == "private" or asked.get("private") is True
    return as_json({"private": repo.private, "gated": repo.gated})


@route("GET", f"/api/{REPO}(/revision/(?P<rev>.+))?")
def info(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call)
    commit = repo.at(call.args.get("rev", "main"))
    return as_json(routes.info_json(repo, commit, full=True, blobs="blobs" in call.query))


@route("GET", f"/api/{REPO}/auth-check(/write)?")
def auth_check(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call, write=call.path.endswith("/write"))
    routes.state.must_read_files(repo, call.user)
    return Answer()


@route("GET", f"/api/{REPO}/refs")
def refs(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call)

    def listed(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"name": n, "ref": n if n.startswith("refs/") else f"refs/{kind}/{n}", "targetCommit": c}
            for n, c in names.items()
        ]

    answer = {"branches": listed("heads", repo.branches), "tags": listed("tags", repo.tags), "converts": []}
    if "include_prs" in call.query:
        answer["pullRequests"] = listed("pr", repo.pulls)
    return as_json(answer)


@route("POST", f"/api/{REPO}/tag/(?P<rev>.+)")
def make_tag(routes: Routes, call: Call) -> Answer:
    repo, asked = routes.repo(call, write=True), call.json()
    if asked["tag"] in repo.tags:
        raise Refused(409, f"Tag {asked['tag']} exists already")
    repo.tags[asked["tag"]] = repo.at(call.args["rev"]).oid
    return as_json({})


@route("DELETE", f"/api/{REPO}/tag/(?P<tag>.+)")
def drop_tag(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call, write=True)
    if repo.tags.pop(call.args["tag"], None) is None:
        raise Refused(404, "Tag not found", "RevisionNotFound")
    return Answer()


@route("POST", f"/api/{REPO}/branch/(?P<branch>.+)")
def make_branch(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call, write=True)
    if call.args["branch"] in repo.branches:
        raise Refused(409, "Branch exists already")
    repo.branches[call.args["branch"]] = repo.at(call.json().get("startingPoint", "main")).oid
    return as_json({})


@route("DELETE", f"/api/{REPO}/branch/(?P<branch>.+)")
def drop_branch(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call, write=True)
    if call.args["branch"] == "main" or repo.branches.pop(call.args["branch"], None) is None:
        raise Refused(404, "Branch not found", "RevisionNotFound")
    return Answer()


@route("GET", f"/api/{REPO}/commits/(?P<rev>.+)")
def commits(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call)
    items, at = [], repo.at(call.args["rev"])
    while True:
        author = {"user": at.author}
        items.append({"id": at.oid, "title": at.title, "message": at.message, "date": stamp(at.date),
                      "authors": [author]})  # fmt: skip
        if at.parent is None:
            return routes.paged(call, items)
        at = repo.commits[at.parent]


@route("GET", f"/api/{REPO}/tree/(?P<rev>[^/]+)(/(?P<path>.+))?")
def tree(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call)
    commit = repo.at(call.args["rev"])
    base = call.args.get("path", "").strip("/")
    expand = call.get("expand") in {"True", "true", "1"}
    recursive = call.get("recursive") in {"True", "true", "1"}
    items = routes.tree_items(commit, base, recursive=recursive, expand=expand)
    if base and not items:
        raise Refused(404, f"{base} does not exist on '{call.args['rev']}'", "EntryNotFound")
    return routes.paged(call, items, routes.page if expand else 10 * routes.page)


@route("POST", f"/api/{REPO}/paths-info/(?P<rev>.+)")
def paths_info(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call)
    commit = repo.at(call.args["rev"])
    form = parse_qs(call.body.decode(), keep_blank_values=True)
    last = commit if form.get("expand", [""])[0].lower() == "true" else None
    items = []
    for path in form.get("paths", []):
        if path in commit.files:
            items.append(routes.file_json(path, commit.files[path], last))
        elif any(p.startswith(path.rstrip("/") + "/") for p in commit.files):
            items.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": path})
    return as_json(items)


@route("GET", f"/api/{REPO}/xet-write-token/(?P<rev>.+)")
def xet_write_token(routes: Routes, call: Call) -> Answer:
    """The token alone: the content store that it is for (xorbs and shards) is not simulated."""
    if routes.xet_cas is None:
        return Answer(404)
    routes.repo(call, write=True)
    told = {"casUrl": routes.xet_cas, "accessToken": "xet-simulated", "exp": 4_000_000_000}
    answer = as_json(told)
    answer.headers |= {
        "X-Xet-Cas-Url": routes.xet_cas,
        "X-Xet-Access-Token": "xet-simulated",
        "X-Xet-Token-Expiration": "4000000000",
    }
    return answer


@route("POST", f"/api/{REPO}/preupload/(?P<rev>.+)")
def preupload(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call, write="create_pr" not in call.query)
    at = repo.at(call.args["rev"])
    files = []
    for file in call.json()["files"]:
        mode = "lfs" if is_large(file["path"], file["size"], base64.b64decode(file["sample"])) else "regular"
        there = at.files.get(file["path"])
        files.append(
            {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": there and there.oid}
        )
    return as_json({"files": files})


@route("POST", f"/api/{REPO}/commit/(?P<rev>.+)")
def commit(routes: Routes, call: Call) -> Answer:
    pull = "create_pr" in call.query
    repo = routes.repo(call, write=not pull)
    header: dict[str, Any] = {}
    changed: dict[str, Entry] = {}
    deleted: list[str] = []
    for line in call.body.splitlines():
        item = json.loads(line)
        value = item["value"]
        match item["key"]:
            case "header":
                header = value
            case "file":
                changed[value["path"]] = routes.state.entry(
                    value["path"], base64.b64decode(value["content"]), large=False
                )
            case "lfsFile":
                if value["oid"] not in repo.large:
                    raise Refused(400, f"LFS pointer pointed to a file that does not exist: {value['oid']}")
                changed[value["path"]] = routes.state.large_entry(value["oid"])
            case "deletedFile" | "deletedFolder":
                deleted.append(value["path"])
            case other:
                raise Refused(400, f"Unknown operation {other}")
    if any(".." in p.split("/") or p.startswith(("/", ".git/")) for p in changed):
        raise Refused(400, "Invalid path")
    made, ref = routes.state.commit(
        repo,
        call.args["rev"],
        changed,
        deleted,
        title=header["summary"],
        message=header.get("description", ""),
        author=call.user.name if call.user else "anonymous",
        parent=header.get("parentCommit"),
        pull=pull,
    )
    url = f"{call.endpoint}/{repo.id}/commit/{made.oid}"
    pr_url = f"{call.endpoint}/{repo.id}/discussions/{ref.rpartition('/')[2]}" if ref else None
    return as_json({"success": True, "commitOid": made.oid, "commitUrl": url, "pullRequestUrl": pr_url})


@route("POST", "/api/validate-yaml")
def validate_yaml(_: Routes, __: Call) -> Answer:
    return as_json({"errors": [], "warnings": []})


# -- large files -----------------------------------------------------------------------------------------------------


@route("POST", r"/((?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
def lfs_batch(routes: Routes, call: Call) -> Answer:
    repo, asked = routes.repo(call, write=True), call.json()
    objects = []
    for item in asked["objects"]:
        oid, size = item["oid"], item["size"]
        answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
        if oid not in repo.large:
            where = {"repo": f"{repo.type}:{repo.id}", "size": str(size)}
            verify = {"href": f"{call.endpoint}/lfs/verify?repo={quote(where['repo'])}"}
            if size > routes.multipart_over and "multipart" in asked.get("transfers", []):
                count = -(-size // routes.chunk_size)
                header = {"chunk_size": str(routes.chunk_size)}
                for part in range(1, count + 1):
                    header[str(part)] = routes.sign(call.storage, f"/lfs/{oid}", part=str(part), **where)
                href = routes.sign(call.endpoint, f"/lfs/{oid}/complete", **where)
                answer["actions"] = {"upload": {"href": href, "header": header}, "verify": verify}
            else:
                href = routes.sign(call.storage, f"/lfs/{oid}", **where)
                answer["actions"] = {"upload": {"href": href}, "verify": verify}
        objects.append(answer)
    return as_json({"transfer": "multipart", "objects": objects})


def _keep(routes: Routes, where: str, oid: str, size: int, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != oid or len(data) != size:
        raise Refused(400, "The uploaded bytes do not have the announced SHA-256")
    kind, _, repo_id = where.partition(":")
    routes.state.store(data)
    routes.state.repos[kind, repo_id.lower()].large.add(oid)


@route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
def lfs_put(routes: Routes, call: Call) -> Answer:
    routes.check_signed(call)
    oid = call.args["oid"]
    if part := call.get("part"):
        routes.state.multipart.setdefault(call.get("repo") + oid, {})[int(part)] = call.body
        return Answer(headers={"ETag": f'"{hashlib.md5(call.body, usedforsecurity=False).hexdigest()}"'})
    _keep(routes, call.get("repo"), oid, int(call.get("size")), call.body)
    return Answer(headers={"ETag": f'"{oid}"'})


@route("POST", "/lfs/(?P<oid>[0-9a-f]{64})/complete")
def lfs_complete(routes: Routes, call: Call) -> Answer:
    routes.check_signed(call)
    oid, asked = call.args["oid"], call.json()
    parts = routes.state.multipart.get(call.get("repo") + oid, {})
    for part in asked["parts"]:
        data = parts.get(part["partNumber"])
        if data is None or hashlib.md5(data, usedforsecurity=False).hexdigest() != part["etag"].strip('"'):
            raise Refused(400, f"Part {part['partNumber']} is missing or has another ETag")
    _keep(routes, call.get("repo"), oid, int(call.get("size")), b"".join(parts[i] for i in sorted(parts)))
    routes.state.multipart.pop(call.get("repo") + oid, None)
    return as_json({"success": True})


@route("POST", "/lfs/verify")
def lfs_verify(routes: Routes, call: Call) -> Answer:
    kind, _, repo_id = call.get("repo").partition(":")
    asked = call.json()
    repo = routes.state.find(kind, repo_id, call.user)
    if asked["oid"] not in repo.large or len(routes.state.blobs[asked["oid"]]) != asked["size"]:
        raise Refused(404, "The object was not uploaded")
    return as_json({"message": "ok"})


@route("GET", r"/((?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
def resolve(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call)
    routes.state.must_read_files(repo, call.user)
    commit = repo.at(call.args["rev"])
    entry = commit.files.get(call.args["path"])
    if entry is None:
        raise Refused(404, "Entry not found", "EntryNotFound")
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    if entry.sha256 is None:
        headers["ETag"] = f'"{entry.oid}"'
        return Answer(200, routes.state.blobs[entry.content_sha256], headers)
    headers |= {
        "X-Linked-Etag": f'"{entry.sha256}"',
        "X-Linked-Size": str(entry.size),
        "ETag": f'"{entry.oid}"',
        "Location": routes.sign(call.storage, f"/storage/{entry.sha256}"),
    }
    return Answer(302, b"", headers)


@route("GET", "/storage/(?P<oid>[0-9a-f]{64})")
def storage(routes: Routes, call: Call) -> Answer:
    routes.check_signed(call)
    if call.headers.get("authorization"):
        raise Refused(400, "A token was sent to the storage host; it must stay with the Hub")
    return Answer(
        200, routes.state.blobs[call.args["oid"]], {"ETag": f'"{call.args["oid"]}"', "Accept-Ranges": "bytes"}
    )


# -- access requests ---------------------------------------------------------------------------------------------------


@route("GET", f"/api/{REPO}/user-access-request/(?P<status>pending|accepted|rejected)")
def access_list(routes: Routes, call: Call) -> Answer:
    repo = routes.repo(call, write=True)
    if not repo.gated:
        raise Refused(400, "This repository is not gated")
    items = [
        {
            "requestId": r.id,
            "user": {
                "_id": r.id,
                "user": r.user,
                "fullname": r.user.title(),
                "email": f"{r.user}@example.org",
            },
            "status": r.status,
            "timestamp": stamp(r.date),
        }
        for r in repo.access.values()
        if r.status == call.args["status"]
    ]
    return routes.paged(call, items)


@route("POST", f"/api/{REPO}/user-access-request/handle")
def access_handle(routes: Routes, call: Call) -> Answer:
    repo, asked = routes.repo(call, write=True), call.json()
    routes.state.handle(
        repo, asked.get("user"), asked.get("requestId"), asked["status"], asked.get("rejectionReason")
    )
    return as_json({})


@route("POST", f"/api/{REPO}/user-access-request/grant")
def access_grant(routes: Routes, call: Call) -> Answer:
    routes.state.grant(routes.repo(call, write=True), call.json()["user"])
    return as_json({})


# -- listings ------------------------------------------------------------------------------------------------------------


def _amount(text: str) -> float:
    return float(text.rstrip("KMBT")) * {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}.get(text[-1], 1)


@route("GET", "/api/(?P<kind>models|datasets|spaces)")
def listing(routes: Routes, call: Call) -> Answer:
    kind = TYPES[call.args["kind"]]
    found = [
        r for (t, _), r in routes.state.repos.items()
        if t == kind and (not r.private or routes.state.member(r, call.user))
    ]  # fmt: skip
    if author := call.get("author"):
        found = [r for r in found if r.owner == author]
    if search := call.get("search").lower():
        found = [r for r in found if search in r.id.lower()]
    if gated := call.get("gated").lower():
        found = [r for r in found if bool(r.gated) == (gated == "true")]
    for tag in call.query.get("filter", []):
        found = [r for r in found if tag in r.card_tags]
    if bounds := call.get("num_parameters"):
        wanted = dict(b.split(":") for b in bounds.split(","))
        low, high = _amount(wanted.get("min", "0")), _amount(wanted.get("max", "1000T"))
        found = [r for r in found if r.parameters is not None and low <= r.parameters <= high]
    sort = call.get("sort", "trendingScore")
    key = {"createdAt": lambda r: r.created, "lastModified": lambda r: r.modified}.get(
        sort, lambda r: r.created
    )
    found.sort(key=lambda r: r.id)
    found.sort(key=lambda r: stamp(key(r)), reverse=call.get("direction", "-1") == "-1")
    size = min(int(call.get("limit", str(routes.page))), 1000)
    if where := call.get(
        "cursor"
    ):  # the Hub's cursors name the last entry, so that newer ones push nothing away
        date, name = json.loads(base64.urlsafe_b64decode(where))
        found = [r for r in found if stamp(key(r)) < date or (stamp(key(r)) == date and r.id > name)]
    shown = found[:size]
    headers = {}
    if len(found) > size or (routes.endless and shown):
        cursor = base64.urlsafe_b64encode(json.dumps([stamp(key(shown[-1])), shown[-1].id]).encode()).decode()
        query = [(k, v) for k, vs in call.query.items() for v in vs if k not in {"cursor", "n"}]
        if routes.endless:  # another address each time, and always the same behind it
            query.append(("n", str(int(call.get("n", "0")) + 1)))
        else:
            query.append(("cursor", cursor))
        url = routes.next_link or f"{call.endpoint}{quote(call.path)}?{urlencode(query)}"
        headers["Link"] = f'<{url}>; rel="next"'
    full = call.get("full").lower() == "true"
    return as_json([routes.listed_json(r, call.query.get("expand", []), full=full) for r in shown], **headers)
