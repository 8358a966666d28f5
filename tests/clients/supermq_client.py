"""Manages Personal Access Tokens as a program does that was written for SuperMQ's auth service.

Paths, members and order are those of its published interface: a user signs in, makes a token,
gives it scopes, and takes them and the token back. Each time, the gateway is asked whether the
token works.

Reads a job from standard input, and prints one JSON line per secret that it was given.
"""

import json
import sys
import time
import urllib.error
import urllib.request

JOB = json.load(sys.stdin)
PATIENCE = 20


def send(method: str, url: str, bearer: str, body=None):
    """Sends a request, and returns the status and the body of the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    request.add_header("Content-Type", "application/json")
    if bearer:
        request.add_header("Authorization", f"Bearer {bearer}")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        status, text = refused.code, refused.read()
    return status, json.loads(text) if text else None


def expect(what: str, seen, expected):
    """Ends with an error if something is not what the interface says."""
    if seen != expected:
        sys.exit(f"{what}: expected {expected!r}, seen {seen!r}")


class Auth:
    """The auth service of SuperMQ, as its clients see it."""

    def __init__(self, base: str, username: str, password: str):
        self.base = base
        body = {"username": username, "password": password}
        status, issued = send("POST", f"{base}/users/tokens/issue", "", body)
        expect("issue", status, 201)
        self.access_token = issued["access_token"]

    def call(self, method: str, path: str, body=None):
        """Calls the service, and returns the body of its answer, which must be a success."""
        status, answer = send(method, f"{self.base}{path}", self.access_token, body)
        if not 200 <= status < 300:
            sys.exit(f"{method} {path}: {status} {answer!r}")
        return answer


def secret(pat) -> str:
    """The secret of a new token, which the test must know to look for it."""
    print(json.dumps({"secret": pat["secret"]}))
    return pat["secret"]


def becomes(token: str, status: int):
    """Waits until the gateway answers a request with the token in this way."""
    until = time.monotonic() + PATIENCE
    while True:
        seen, _ = send("GET", JOB["gateway"], token)
        if seen == status:
            return
        if time.monotonic() > until:
            sys.exit(f"the gateway answers {seen}, and not {status}")
        time.sleep(0.05)


auth = Auth(JOB["api"], JOB["username"], JOB["password"])
new = {"name": "My PAT", "description": "Token for automation", "duration": "30d"}
pat = auth.call("POST", "/pats", new)
token, path = secret(pat), f"/pats/{pat['id']}"
expect("a new token", [pat["name"], pat["revoked"]], ["My PAT", False])
becomes(token, 403)

scope = {
    "optional_domain_id": JOB["domain"],
    "entity_type": "models",
    "entity_id": "*",
    "operation": "llm_read",
}
scopes = [
    {"id": "", "pat_id": "", **scope},
    {"id": "", "pat_id": "", **scope, "operation": "llm_completions"},
]
auth.call("PATCH", f"{path}/scope/add", {"scopes": scopes})
becomes(token, 200)

page = auth.call("GET", "/pats?offset=0&limit=10")
expect("the list", [page[part] for part in ("total", "offset", "limit")], [1, 0, 10])
expect("its tokens", [one["id"] for one in page["pats"]], [pat["id"]])
expect("after them", auth.call("GET", "/pats?offset=1&limit=1")["pats"], [])
seen = auth.call("GET", path)
expect("a token", [seen["description"], "secret" in seen], ["Token for automation", False])

expect("a name", auth.call("PATCH", f"{path}/name", {"name": "Renamed"})["name"], "Renamed")
described = auth.call("PATCH", f"{path}/description", {"description": "Described"})
expect("a description", described["description"], "Described")

held = auth.call("GET", f"{path}/scope?offset=0&limit=10")
expect("scopes", held["total"], 2)
reads = [one["id"] for one in held["scopes"] if one["operation"] == "llm_read"]
auth.call("PATCH", f"{path}/scope/remove", {"scopes_id": reads})
becomes(token, 403)
auth.call("DELETE", f"{path}/scope")
expect("no scopes", auth.call("GET", f"{path}/scope")["total"], 0)
auth.call("PATCH", f"{path}/scope/add", {"scopes": scopes})
becomes(token, 200)

second = secret(auth.call("PATCH", f"{path}/secret/reset", {"duration": "24h"}))
becomes(second, 200)
becomes(token, 401)
auth.call("PATCH", f"{path}/secret/revoke")
becomes(second, 401)
expect("a revoked token", auth.call("GET", path)["revoked"], True)
auth.call("DELETE", path)
expect("a deleted token", send("GET", f"{auth.base}{path}", auth.access_token)[0], 404)
