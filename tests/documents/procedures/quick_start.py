"""README.md: the quick start, from an empty Postgres to a request over HTTPS."""

import json

from checkout import Checkout
from installation import Site
from procedure import Procedure

from server import accepts, answers

DOCUMENT, HEADING = "README.md", "quick-start-with-your-own-envoy"


def run_quick_start(p: Procedure) -> None:
    site, tree = Site(p), Checkout(p)
    site.as_administrator()
    p.env |= tree.settings()
    # What is built already is linked where the commands look for it.
    p.fill("make tools build", ":")
    p.fill("owner:…@localhost:5432", f"owner:owner-password@localhost:{site.postgres.port}")
    typed = {"createuser": "owner-password\nowner-password\n"}
    p.follow(DOCUMENT, HEADING, 1, stdin=typed)
    p.fill("PASSWORD '…'", "PASSWORD 'a-password'")
    p.sql(DOCUMENT, HEADING, 2, site.url("owner"))
    for file, login in (("server", "gateway"), ("operator", "operator")):
        p.given(f"sed 's/owner:owner-password/{login}:a-password/' owner.url >{file}.url")
    p.fill("http://127.0.0.1:8001", f"http://127.0.0.1:{tree.port(8001)}")
    p.follow(DOCUMENT, HEADING, 3)

    p.fill("redis://127.0.0.1:6379", f"redis://127.0.0.1:{site.valkey.port}")
    p.fill("--port 8001", f"--port {tree.port(8001)}")
    for port in (8080, 8443):
        p.fill(f"127.0.0.1:{port}", f"127.0.0.1:{tree.port(port)}")
    before = {"curl": lambda: p.until("all servers answer", lambda: serving(tree))}
    listed = p.follow(DOCUMENT, HEADING, 4, before=before)[-1].text()
    p.expect("a list of models", '"object"' in listed, listed)
    before = {"curl": lambda: p.until("Envoy takes up the certificate", lambda: secure(p, tree))}
    listed = p.follow(DOCUMENT, HEADING, 5, before=before)[-1].text()
    p.expect("a list of models over TLS", '"object"' in listed, listed)

    # It protects: the same request without the token, and for another domain.
    base = f"http://127.0.0.1:{tree.port(8080)}/proxy"
    refused = p.given(f"curl -sS {base}/acme/v1/models")
    p.expect("401 without a token", "missing_credential" in refused, refused)
    refused = p.given(f'curl -sS -H "Authorization: Bearer $(cat token)" {base}/other/v1/models')
    p.expect("403 in another domain", "permission_denied" in refused, refused)
    checked = p.given(
        "patgate check --method GET --path /proxy/acme/v1/models --output json <token"
    )
    p.expect("the same answer by the command", json.loads(checked)["status"] == 200, checked)


def serving(tree: Checkout) -> bool:
    backend, gateway = tree.port(8001), tree.port(8080)
    replica = answers(f"http://127.0.0.1:{tree.port(9192)}/readyz")
    return replica and accepts(backend) and answers(f"http://127.0.0.1:{gateway}/healthz")


def secure(p: Procedure, tree: Checkout) -> bool:
    address = f"https://127.0.0.1:{tree.port(8443)}/healthz"
    return "200" in p.given(
        f"curl -sS --cacert envoy/tls/ca.crt -o /dev/null -w '%{{http_code}}' {address} || true"
    )
