"""The tour: patgate behind a real Envoy, with two domains, their model backends, and failures.

make demo          ends with commands to try, and stays up until Ctrl-C
make demo ONCE=1   checks every answer and ends; the exit status is not zero if one differs
"""

import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import httpx2  # noqa: E402
from openai import AuthenticationError, DefaultHttpxClient, OpenAI  # noqa: E402

import certificate  # noqa: E402
from pages import tour_pages  # noqa: E402
from server import ServerError, free_port  # noqa: E402
from stack import Stack  # noqa: E402
from tour import Tour, bold, curl, dim, short  # noqa: E402

PATGATE = Path(os.environ.get("TESTED_PATGATE", ROOT / "target" / "release" / "patgate"))
# Far below the default of 30 s, so that a viewer can watch the bound.
MAX_STALENESS = 5
# With ONCE, the machine may be loaded: a late answer must not become a 503.
ONCE = os.environ.get("ONCE") not in (None, "", "0")
# The promised time of recovery after any outage, in seconds.
HEALED_WITHIN = 5
# For Envoy's ext_authz: longer than patgate's deadline. A `max_interval` also bounds each try.
PATIENT = {
    "grpc_service": {
        "timeout": "10s",
        "retry_policy": {"retry_back_off": {"base_interval": "0.02s", "max_interval": "10s"}},
    }
}
# A model that the list of the domain acme has.
MODEL = "model-acme-small"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}]}
STREAM = {**CHAT, "stream": True}


class Gateway:
    """The running servers, and the command line of patgate against them."""

    def __init__(self, stack):
        progress("Postgres")
        self.postgres = stack.postgres()
        progress("Valkey")
        self.redis = stack.valkey()
        progress("model backends")
        backends = {name: stack.backend(name) for name in ("model-acme", "model-beta")}

        progress("patgate")
        keyring = stack.dir / "keyring"
        grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.env = {
            "PATGATE_POSTGRES_URL": self.postgres.url,
            # The same URL, set again: then patgate listens for changes in addition to polling.
            "PATGATE_FEED_URL": self.postgres.url,
            "PATGATE_REDIS_URL": self.redis.url,
            "PATGATE_KEYRING_FILE": str(keyring),
            "PATGATE_LISTEN_GRPC": grpc,
            "PATGATE_LISTEN_HTTP": http,
            "PATGATE_MAX_STALENESS": f"{MAX_STALENESS}s",
        }
        if ONCE:
            self.env["PATGATE_DEADLINE"] = "2s"
        keyring.touch(mode=0o600)
        keyring.write_text(self.patgate("keyring", "new"))
        self.patgate("migrate")
        # patgate serves with no login that may administer, as that of the commands below may.
        self.psql("CREATE ROLE gateway LOGIN IN ROLE patgate_serve")
        url = self.postgres.url.replace("postgres@", "gateway@")
        serve = {**self.env, "PATGATE_POSTGRES_URL": url, "PATGATE_FEED_URL": url}
        for name, backend in backends.items():
            self.patgate("backend", "create", name, "--url", backend.url, "--kind", "vllm")
        for slug, email in (("acme", "alice@example.com"), ("beta", "bob@example.com")):
            name = slug.capitalize()
            upstream = ("--upstream", f"model-{slug}", "--all-models")
            self.patgate("domain", "create", slug, "--name", name, *upstream)
            self.patgate("user", "create", email, "--name", email.partition("@")[0])
            self.patgate("role", "member", "add", slug, "admin", email)
        stack.process([PATGATE, "serve"], env=serve, name="patgate", ready=f"http://{http}/readyz")

        progress("Envoy, with a certificate of an authority of its own")
        files = certificate.make(stack.dir / "tls")
        self.authority = files["ca.crt"]
        tls = {"certificate": str(files["tls.crt"]), "key": str(files["tls.key"])}
        addresses = {name: f"127.0.0.1:{backend.port}" for name, backend in backends.items()}
        patch = {"authz": grpc, "clusters": addresses, "tls": tls}
        if ONCE:
            patch["ext_authz"] = PATIENT
        self.envoy = stack.envoy(config=ROOT / "envoy" / "envoy.yaml", patch=patch)
        self.port = self.envoy.ports["https"]
        self.url = f"https://127.0.0.1:{self.port}"

        progress("self-service")
        self.psql("CREATE ROLE web LOGIN IN ROLE patgate_web")
        listen = f"127.0.0.1:{free_port()}"
        self.site = f"http://{listen}"
        site = {
            **self.env,
            "PATGATE_WEB_POSTGRES_URL": self.postgres.url.replace("postgres@", "web@"),
            "PATGATE_WEB_LISTEN": listen,
            "PATGATE_WEB_GATEWAY_URL": self.url,
        }
        stack.process([PATGATE, "admin"], env=site, name="admin", ready=f"{self.site}/readyz")

    def account(self, email):
        """Lets a user sign in to self-service, and returns the address and the password."""
        invited = json.loads(self.patgate("user", "invite", email, "--output", "json"))
        password = secrets.token_urlsafe(12)
        accepted = httpx2.post(
            f"{self.site}/api/invitation", json={"code": invited["code"], "password": password}
        )
        accepted.raise_for_status()
        return email, password

    def patgate(self, *arguments):
        return self._run([PATGATE, *arguments])

    def psql(self, sql):
        return self._run([self.postgres.bin / "psql", self.postgres.url, "-qc", sql])

    def _run(self, command):
        run = subprocess.run(
            command,
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if run.returncode:
            program, *arguments = map(str, command)
            said = f"{Path(program).name} {' '.join(arguments)} failed:\n{run.stderr.strip()}"
            raise ServerError(said)
        return run.stdout

    def token(
        self, name, email="alice@example.com", domain="acme", expires_in="90d", on="domains:*"
    ):
        """Creates a token that may chat and list models, in a domain or only `on` these of it."""
        scopes = []
        for operation in ("llm_chat_completions", "llm_read"):
            scopes += ["--scope", f"{domain}:{on}:{operation}"]
        options = ["--user", email, "--expires-in", expires_in, "--output", "json"]
        return json.loads(self.patgate("token", "create", name, *options, *scopes))


def tour_requests(tour, gateway, alice, bob):
    chat = "/proxy/acme/v1/chat/completions"

    tour.step(
        "A chat completion is allowed",
        "The backend sees the identity of the caller. It sees neither the token, nor the "
        "x-domain-id that the client made up.",
    )
    answer = tour.show("POST", chat, alice, CHAT, [("x-domain-id", "made-up")])
    tour.expect(answer, 200)
    seen = answer.json.get("seen", {}).get("headers", [])
    for name, value in seen:
        if name.startswith(("x-domain", "x-user", "x-pat", "x-auth", "x-upstream")):
            print(f"   {dim(f'backend saw {name}: {value}')}")
    values = [value for name, value in seen if name == "x-domain-id"]
    tour.check("one x-domain-id", len(values) == 1 and values != ["made-up"], values)
    tour.check("no Authorization upstream", "authorization" not in dict(seen), dict(seen))

    tour.step("The same, streamed", "The words arrive one after another: no proxy buffers them.")
    # If the machine stalls for a moment, all may arrive at once, but not each time.
    for _ in range(5):
        status, arrivals = tour.stream(chat, alice, STREAM)
        spread = arrivals[-1] - arrivals[0] if arrivals else 0
        if spread > 0.1:
            break
    tour.check("answer 200", status == 200, status)
    tour.check("chunks apart in time", spread > 0.1, f"{len(arrivals)} within {spread:.3f} s")

    tour.step("Each domain has its own backend", "Bob's token, in beta: x-backend is model-beta.")
    answer = tour.show(
        "POST", "/proxy/beta/v1/chat/completions", bob, {**CHAT, "model": "model-beta-small"}
    )
    tour.expect(answer, 200)
    backend = answer.headers["x-backend"]
    tour.check("x-backend model-beta", backend == "model-beta", backend)

    tour.step(
        "Another domain is refused",
        "Alice's token has no scope in beta. A domain that does not exist gets the same answer.",
    )
    answer = tour.show("POST", "/proxy/beta/v1/chat/completions", alice, CHAT)
    tour.expect(answer, 403, "permission_denied")
    answer = tour.show("POST", "/proxy/nowhere/v1/chat/completions", alice, CHAT)
    tour.expect(answer, 403, "permission_denied")

    tour.step("A missing scope is refused", "This token may chat and list models, but not embed.")
    answer = tour.show("POST", "/proxy/acme/v1/embeddings", alice, {"model": "m", "input": "x"})
    tour.expect(answer, 403, "permission_denied")

    tour.step(
        "A token for one model",
        "It may use that model, and lists no other. The refusal says what it may use.",
    )
    limited = gateway.token("one-model", on=f"models:{MODEL}")["token"]
    tour.expect(tour.show("POST", chat, limited, CHAT), 200)
    answer = tour.show("GET", "/proxy/acme/v1/models", limited)
    tour.expect(answer, 200)
    listed = [model["id"] for model in answer.json["data"]]
    tour.check(f"only {MODEL} listed", listed == [MODEL], listed)
    answer = tour.show("POST", chat, limited, {**CHAT, "model": "another"})
    tour.expect(answer, 403, "permission_denied")
    message = answer.json["error"]["message"]
    print(f"   {message}")
    tour.check("the model that it may use", message.endswith(f"to it: `{MODEL}`."), message)

    tour.step(
        "No token, and a mistyped one",
        "The token carries a checksum under patgate's key: a typo costs no lookup.",
    )
    answer = tour.show("GET", "/proxy/acme/v1/models")
    tour.expect(answer, 401, "missing_credential")
    mistyped = alice[:-1] + ("0" if alice[-1] != "0" else "1")
    answer = tour.show("GET", "/proxy/acme/v1/models", mistyped)
    tour.expect(answer, 401, "invalid_token")

    tour.step("The official OpenAI client", "Its error for a denial has patgate's own message.")
    url = f"{gateway.url}/proxy/acme/v1"
    print(f"   OpenAI(base_url={url!r}, api_key={short(alice)!r}).chat.completions.create(…)")
    trusting = {"base_url": url, "http_client": DefaultHttpxClient(verify=tour.trust)}
    content = OpenAI(api_key=alice, **trusting).chat.completions.create(**CHAT)
    print(f"   {content.choices[0].message.content}")
    try:
        OpenAI(api_key=mistyped, **trusting).models.list()
        tour.check("AuthenticationError", False, "no error")
    except AuthenticationError as error:
        print(f"   AuthenticationError: {error.body['message']}")
        tour.check("code invalid_token", error.code == "invalid_token", error.code)


def tour_https(tour, gateway, alice):
    models = "/proxy/acme/v1/models"
    tour.step(
        "HTTP/1.1 and HTTP/2 over TLS",
        "The client chooses (ALPN). So far, all of this was HTTP/1.1.",
    )
    headers = {"Authorization": f"Bearer {alice}"}
    for http2, expected in ((False, "HTTP/1.1"), (True, "HTTP/2")):
        # curl asks for HTTP/2 if it can.
        words = curl(gateway.port, "GET", models, short(alice))
        print(f"   $ {words.replace('curl', 'curl --http2' if http2 else 'curl --http1.1')}")
        with httpx2.Client(http2=http2, verify=tour.trust) as client:
            answer = client.get(gateway.url + models, headers=headers)
        seen = (answer.http_version, answer.status_code)
        print("  ", *seen)
        tour.check(f"{expected} 200", seen == (expected, 200), seen)

    tour.step(
        "A client that does not know the authority",
        "It refuses the certificate, and sends no token. So does one that expects another name.",
    )
    for why, trust, name in (
        ("an unknown authority", ssl.create_default_context(), "127.0.0.1"),
        ("another name", tour.trust, "gateway.example.com"),
    ):
        refused = ""
        try:
            with httpx2.Client(verify=trust) as client:
                client.get(gateway.url + models, extensions={"sni_hostname": name})
        except httpx2.ConnectError as error:
            refused = str(error)
        print(f"   {refused}")
        tour.check(f"no connection: {why}", "CERTIFICATE_VERIFY_FAILED" in refused, refused)


def tour_lifetimes(tour, gateway):
    def ask(token):
        return lambda: tour.send("GET", "/proxy/acme/v1/models", token)

    tour.step("A token expires", "Expiry is checked on every use, by Postgres's clock.")
    token = gateway.token("short-lived", expires_in="5s")["token"]
    tour.expect(tour.show("GET", "/proxy/acme/v1/models", token), 200)
    answer, _ = tour.until("expired", ask(token), lambda a: a.status != 200, within=8)
    tour.expect(answer, 401, "token_expired")

    tour.step(
        "A token is revoked",
        f"No answer is based on data older than max_staleness, {MAX_STALENESS} s here.",
    )
    created = gateway.token("to-be-revoked")
    tour.expect(tour.show("GET", "/proxy/acme/v1/models", created["token"]), 200)
    print(f"   $ patgate token revoke {created['id']}")
    gateway.patgate("token", "revoke", created["id"])
    answer, _ = tour.until(
        "revoked", ask(created["token"]), lambda a: a.status != 200, within=MAX_STALENESS
    )
    tour.expect(answer, 401, "token_revoked")


def tour_outages(tour, gateway, hot):
    models = "/proxy/acme/v1/models"
    cold = [gateway.token(f"cold-{number}")["token"] for number in range(2)]

    tour.step(
        "Redis stops",
        "Clients do not notice. A token that this replica has never seen is read from Postgres.",
    )
    gateway.redis.stop()
    tour.expect(tour.show("GET", models, hot), 200)
    tour.expect(tour.show("GET", models, cold[0]), 200)
    gateway.redis.restart()

    tour.step(
        "Postgres stops",
        "A token in use is served from memory. Nothing is known about a new one: that is a 503 "
        "with Retry-After, never a 401 or 403.",
    )
    tour.expect(tour.send("GET", models, hot), 200)
    gateway.postgres.stop()
    tour.expect(tour.show("GET", models, hot), 200)
    answer = tour.show("GET", models, cold[1])
    tour.expect(answer, 503, "unavailable")
    retry_after = answer.headers["retry-after"]
    print(f"   {dim(f'retry-after: {retry_after}')}")
    tour.check("Retry-After", bool(retry_after), retry_after)

    tour.step(
        "Postgres stays down",
        "No answer is based on data older than max_staleness: the token might be revoked.",
    )
    answer, _ = tour.until(
        "hot token no longer served",
        lambda: tour.send("GET", models, hot),
        lambda a: a.status != 200,
        within=MAX_STALENESS + 1,
    )
    tour.expect(answer, 503, "unavailable")

    tour.step("Postgres is back", "Everything recovers by itself, without a restart.")
    gateway.postgres.restart()
    for token, which in ((cold[1], "cold token served"), (hot, "hot token served")):
        tour.until(
            which,
            lambda token=token: tour.send("GET", models, token),
            lambda a: a.status == 200,
            within=HEALED_WITHIN,
        )


def invite(gateway, token, account):
    url = gateway.url + "/proxy/acme/v1"
    email, password = account
    print(f"\n{bold('Try it yourself')} (alice, domain acme)\n")
    print(f"{gateway.site} makes and revokes tokens: sign in as {email}, password {password}\n")
    print(f"CA={gateway.authority}")
    print(curl(gateway.port, "GET", "/proxy/acme/v1/models", token))
    print(curl(gateway.port, "POST", "/proxy/acme/v1/chat/completions", token, CHAT))
    print(
        f"\nimport ssl\n"
        f"from openai import DefaultHttpxClient, OpenAI  # .venv/bin/python has it\n"
        f"trust = ssl.create_default_context(cafile={str(gateway.authority)!r})\n"
        f"client = OpenAI(base_url={url!r}, api_key={token!r},\n"
        f"                http_client=DefaultHttpxClient(verify=trust))\n"
        f"for chunk in client.chat.completions.create(**{STREAM!r}):\n"
        f"    print(chunk.choices[0].delta.content or '', end='')\n"
    )
    print("Ctrl-C ends the demo and removes everything it started.", flush=True)
    signal.pause()


def progress(what):
    print(f"{dim(f'{time.monotonic() - STARTED:5.1f} s')}  starting {what}", flush=True)


def main():
    if not PATGATE.exists():
        sys.exit(f"{PATGATE} is missing: run make build")
    with Stack() as stack:
        gateway = Gateway(stack)
        alice = gateway.token("alice-laptop")["token"]
        bob = gateway.token("bob-laptop", email="bob@example.com", domain="beta")["token"]
        print(f"{dim(f'{time.monotonic() - STARTED:5.1f} s')}  ready")

        tour = Tour(gateway.port, gateway.authority)
        print(f"\nCA={gateway.authority}")
        tour_requests(tour, gateway, alice, bob)
        tour_https(tour, gateway, alice)
        account = gateway.account("alice@example.com")
        tour_pages(tour, gateway.site, account)
        tour_lifetimes(tour, gateway)
        tour_outages(tour, gateway, alice)
        tour.summary()
        if not ONCE:
            invite(gateway, alice, account)
        return 1 if tour.failures else 0


if __name__ == "__main__":
    STARTED = time.monotonic()
    # The OpenAI client would use a proxy that the environment names.
    os.environ["no_proxy"] = "127.0.0.1"
    # Leaving the `with` of the stack stops the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print()
    except ServerError as error:
        sys.exit(f"demo: {error}")
