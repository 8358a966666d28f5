"""docs/models.md, docs/apis.md, docs/clients.md: lists of models, other APIs, a first request."""

from claims import ROOT
from installation import Site
from procedure import Procedure

import certificate
from server import answers, free_port


def run_models(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    site.operator()
    qwen = p.stack.backend("model-qwen")
    p.fill("http://127.0.0.1:8002", qwen.url)
    p.follow("docs/models.md", "models")
    clusters = {
        "model-acme": f"127.0.0.1:{site.backend.port}",
        "model-qwen": f"127.0.0.1:{qwen.port}",
    }
    gateway = site.gateway(site.replica().ready(), clusters=clusters)
    token = site.token("laptop")["token"]
    for model, status, backend in (
        ("org/m-7b", 200, "model-acme"),
        ("qwen2.5-7b:q4", 200, "model-qwen"),
        ("qwen2.5-7b/x", 403, None),
        ("another", 403, None),
    ):
        answer = gateway.chat(token, model)
        got = (answer.status_code, answer.headers.get("x-backend"))
        p.expect(
            f"{status} by {backend} for {model}", got == (status, backend), f"{got} {answer.text}"
        )


def run_apis(p: Procedure) -> None:
    document = "docs/apis.md"
    site = Site(p)
    site.populated()
    site.operator()
    (p.folder / "deploy").symlink_to(ROOT / "deploy")
    users = p.stack.backend("users")
    listens = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    p.env |= {
        "PATGATE_POSTGRES_URL": site.url("operator"),
        "PATGATE_LISTEN_GRPC": listens[0],
        "PATGATE_LISTEN_HTTP": listens[1],
        "PATGATE_DEADLINE": "2s",
        "PATGATE_DRAIN_DELAY": "0s",
    }
    serves = {"PATGATE_APIS=apis/ patgate serve": lambda: answers(f"http://{listens[1]}/readyz")}
    as_gateway = {
        "PATGATE_APIS=apis/ patgate serve": lambda: p.given(
            f"export PATGATE_POSTGRES_URL='{site.url('gateway')}'"
        )
    }
    # The tables that a reader has copied before the first block.
    p.given("mkdir -p apis && cp deploy/apis/cube-ai.yaml apis/")
    p.follow(document, "describing-an-api", stays=serves, before=as_gateway)
    p.shell().interrupt()
    p.given(f"export PATGATE_POSTGRES_URL='{site.url('operator')}'")
    p.fill("http://users.internal:9002", users.url)
    p.follow(document, "cube-ais-own-paths", stays=serves, before=as_gateway)
    replica = site.replica("second", PATGATE_APIS=str(p.folder / "apis")).ready()
    clusters = {
        "model-acme": f"127.0.0.1:{site.backend.port}",
        "users": f"127.0.0.1:{users.port}",
    }
    gateway = site.gateway(replica, clusters=clusters)
    token = (p.folder / "token").read_text().strip()
    gateway.answers(200, token, "/users")
    gateway.answers(403, token, "/proxy/acme/v1/models", code="permission_denied")

    # Each example of a table is one that patgate reads.
    def checked(name: str, table: str, status: int = 0) -> None:
        (p.folder / name).mkdir()
        (p.folder / name / "table.yaml").write_text(table)
        p.run("patgate", "api", "check", f"{name}/", status=status)

    table = p.text(document, "a-table")
    checked("datasets", table)
    checked("misspelled", table.replace("operation: update", "operation: updated"), status=2)
    checked("reports", p.text(document, "a-backend-of-its-own"))
    shipped = (ROOT / "deploy/apis/cube-ai.yaml").read_text()
    rule = 'path: "/audit/{*rest}", operation: audit_log_read, entity: domains'
    tail = f"  - {{ methods: [GET], {rule} }}\n"
    p.expect("the tail that the rules replace", shipped.count(tail) == 1, "another one")
    rules = p.text(document, "one-request-one-meaning")
    lines = "".join(f"  {line}\n" for line in rules.splitlines())
    checked("audit", shipped.replace(tail, lines))
    checked("both", shipped.replace(tail, tail + lines), status=2)

    # The text of the error is that of the document.
    laptop = site.token("laptop")["token"]
    answer = gateway.ask(laptop, "/proxy/acme/v1/v1/chat/completions", "POST", json={"model": "m"})
    said = answer.json()["error"]["message"]
    p.expect(p.text(document, "errors").strip(), said == p.text(document, "errors").strip(), said)


def run_client(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    files = certificate.make(p.stack.dir / "tls")
    tls = {"certificate": str(files["tls.crt"]), "key": str(files["tls.key"])}
    gateway = site.gateway(site.replica().ready(), tls=tls)
    port = gateway.envoy.ports["https"]
    token = site.token("laptop")["token"]
    gateway.answers(200, token)
    # Where the certificate is signed by a private authority.
    p.env |= {"CURL_CA_BUNDLE": str(files["ca.crt"]), "TOKEN": token}
    p.fill("<gateway>", f"127.0.0.1:{port}")
    p.fill("<domain>", "acme")
    shown = p.follow("docs/clients.md", "my-request-was-refused")[0].text()
    p.expect("200", " 200" in shown and '"object"' in shown, shown)
    p.given("TOKEN=pat_wrong")
    again = p.follow("docs/clients.md", "my-request-was-refused")[0].text()
    p.expect("the text of the refusal", " 401" in again and "invalid_token" in again, again)
