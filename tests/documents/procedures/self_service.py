"""docs/self-service.md: from an empty folder to an administrator who has signed in."""

import re

import httpx2
from installation import Site
from procedure import Procedure

from server import answers, free_port

DOCUMENT = "docs/self-service.md"
ADMIN, PASSWORD = "admin@example.org", "correct horse battery staple"


def run_self_service(p: Procedure) -> None:
    site = Site(p)
    site.database()
    port = free_port()
    p.fill("127.0.0.1:5432", f"127.0.0.1:{site.postgres.port}")
    p.fill("0.0.0.0:9193", f"0.0.0.0:{port}")
    steps = "from-nothing"
    p.follow(DOCUMENT, steps, 1)
    p.follow(DOCUMENT, steps, 2)
    # `open-to-others` is what the passwords must not be, and `umask` is in the first step only.
    modes = p.given("stat -c %a web.password operator.password web.url operator.url")
    p.expect("files that only their user reads", set(modes.split()) == {"600"}, modes)
    p.follow(DOCUMENT, steps, 3)
    p.follow(DOCUMENT, steps, 4)
    invited = p.follow(DOCUMENT, steps, 5)[-1].text()
    link, code = told(invited)
    p.expect("the link of step 4", link == "https://tokens.example.org/invitation", invited)
    here = f"http://127.0.0.1:{port}"
    ready = {"patgate admin": lambda: answers(f"{here}/readyz")}
    p.follow(DOCUMENT, steps, 6, stays=ready)

    # Step 7.
    with browser(here) as client:
        sign_in(p, client, code)
        answer = client.get("/api/users")
        p.expect(
            "no rights before the password is confirmed", answer.status_code == 403, answer.text
        )
        answer = client.post("/api/session/elevation", json={"password": PASSWORD})
        p.expect("the rights of an administrator", answer.is_success, answer.text)
        answer = client.get("/api/users")
        p.expect("the users", ADMIN in answer.text, answer.text)
        other = client.post("/api/users", json={"email": "ada@example.org", "name": "Ada"})
        p.expect("another user", other.is_success, other.text)
        wrong = httpx2.get(f"{here}/sign-in")
        p.expect("421 for another Host", wrong.status_code == 421, wrong.status_code)

    # Without step 4, the link is that of this machine.
    p.given("unset PATGATE_WEB_LISTEN PATGATE_WEB_URL")
    env = {
        "PATGATE_POSTGRES_URL_FILE": str(p.folder / "operator.url"),
        "PATGATE_POSTGRES_PASSWORD_FILE": str(p.folder / "operator.password"),
    }
    link, _ = told(p.run("patgate", "user", "invite", "ada@example.org", env=env))
    p.expect("the link without step 4", link == "http://127.0.0.1:9193/invitation", link)


def run_beside(p: Procedure) -> None:
    """Self-service for an installation that serves, and a token of its pages at the gateway."""
    site = Site(p)
    site.populated()
    gateway = site.gateway(site.replica().ready())
    port = free_port()
    steps, here = "beside-a-gateway-that-runs", f"http://127.0.0.1:{port}"
    p.fill("127.0.0.1:5432", f"127.0.0.1:{site.postgres.port}")
    p.fill("0.0.0.0:9193", f"0.0.0.0:{port}")
    (p.folder / "owner.url").write_text(site.url("postgres"))
    p.follow(DOCUMENT, steps, 1)
    modes = p.given("stat -c %a web.password web.url")
    p.expect("files that only their user reads", set(modes.split()) == {"600"}, modes)
    p.follow(DOCUMENT, steps, 2, stays={"patgate admin": lambda: answers(f"{here}/readyz")})
    # The operator's machine.
    p.given("unset ${!PATGATE_*}")
    for name, value in site.environment().items():
        p.given(f"export {name}='{value}'")
    link, code = told(p.follow(DOCUMENT, steps, 3)[-1].text())
    p.expect("the link of the proxy", link == "https://tokens.example.org/invitation", link)
    site.cli("role", "member", "add", "acme", "developer", ADMIN)
    scope = {"domain": "acme", "entity_type": "models", "entity_id": "*", "operation": "llm_read"}
    with browser(here) as client:
        sign_in(p, client, code)
        new = {"name": "laptop", "duration": "24h", "scopes": [scope]}
        made = client.post("/api/pats", json=new)
        p.expect("a token", made.status_code == 201, made.text)
    gateway.answers(200, made.json()["secret"])
    listed = p.step(DOCUMENT, steps, "patgate keyring list --file keyring").text()
    p.expect("a key", listed.strip(), listed)


def browser(here: str) -> httpx2.Client:
    """What a browser sends behind the proxy."""
    headers = {"host": "tokens.example.org", "origin": "https://tokens.example.org"}
    return httpx2.Client(base_url=here, headers=headers, timeout=60)


def sign_in(p: Procedure, client: httpx2.Client, code: str) -> None:
    """Opens the link, chooses a password with the code, and signs in."""
    answer = client.get("/invitation")
    p.expect("the page of the link", answer.status_code == 200, answer.text)
    answer = client.post("/api/invitation", json={"code": code, "password": PASSWORD})
    p.expect("the code sets a password", answer.is_success, answer.text)
    session = client.post("/api/sessions", json={"email": ADMIN, "password": PASSWORD})
    p.expect("a session", session.is_success, session.text)
    # The cookie is for TLS only, which this client does not speak.
    client.headers["authorization"] = f"Bearer {session.json()['secret']}"


def told(invited: str) -> tuple[str, str]:
    """Returns the link and the code that `patgate user invite` prints."""
    found = re.search(r"^(https?://\S+/invitation)\n(\S+)$", invited, re.M)
    assert found, invited
    return found[1], found[2]


def run_provider(p: Procedure) -> None:
    site = Site(p)
    site.migrated()
    site.operator()
    (p.folder / "oidc-secret").write_text("a secret of the provider\n")
    p.fill("/etc/patgate/oidc-secret", str(p.folder / "oidc-secret"))
    p.follow(DOCUMENT, "signing-in-by-a-provider", 1)
    listed = p.run("patgate", "provider", "list", env=site.environment())
    p.expect("the provider", "https://id.example.org/realms/main" in listed, listed)

    p.fill("PASSWORD '…'", "PASSWORD 'web-password'")
    p.sql(DOCUMENT, "who-decides", 1, site.url("postgres"))
    env = {"PATGATE_WEB_POSTGRES_URL": site.url("web")}
    keyring = p.run("patgate", "keyring", "new")
    (p.folder / "keyring").touch(mode=0o600)
    (p.folder / "keyring").write_text(keyring)
    settings = {**site.environment(), **env}
    checked = p.run("patgate", "config", "check", "--self-service", "--connect", env=settings)
    p.expect("the login suits self-service", "web.postgres.url" in checked, checked)
    more = {**settings, "PATGATE_POSTGRES_URL": site.url("web")}
    refused = p.run("patgate", "config", "check", "--connect", env=more, status=1)
    p.expect("the login is refused to serve", "failed" in refused, refused)
