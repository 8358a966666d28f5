"""docs/routes.md: a plain Envoy that learns of backends from the database."""

import yaml
from claims import ROOT
from installation import Site
from procedure import Procedure

from server import answers, free_port

DOCUMENT = "docs/routes.md"


def run_routes(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    # Its address counts here.
    site.cli("backend", "update", "model-acme", "--url", site.backend.url)
    folder = p.folder / "routes"
    listen = f"127.0.0.1:{free_port()}"
    p.env |= {"PATGATE_POSTGRES_URL": site.url("router"), "PATGATE_ROUTES_LISTEN": listen}
    p.fill("PASSWORD '…'", "PASSWORD 'router-password'")
    p.sql(DOCUMENT, "the-login", 1, site.url("postgres"))
    exported = p.follow(DOCUMENT, "routes-from-the-database", 1)[0].text()
    names = [cluster["name"] for cluster in yaml.safe_load(exported)["resources"]]
    p.expect("one cluster", names == ["model-acme"], names)
    # This backend is on this machine, too.
    p.fill("routes.networks=10.20.0.0/16", "routes.networks=127.0.0.1/32")
    p.fill("/etc/envoy/routes", str(folder))
    stays = {
        "patgate --set routes.networks=10.20.0.0/16 sync": lambda: answers(
            f"http://{listen}/readyz"
        )
    }
    p.follow(DOCUMENT, "routes-from-the-database", 2, stays=stays)

    # In place of the clusters of the models.
    config = yaml.safe_load((ROOT / "envoy/envoy.yaml").read_text())
    clusters = config["static_resources"]["clusters"]
    clusters[:] = [cluster for cluster in clusters if cluster["name"] == "patgate"]
    config |= yaml.safe_load(p.text(DOCUMENT, "beside-a-plain-envoy"))
    gateway = site.gateway(site.replica().ready(), clusters={}, text=yaml.safe_dump(config))
    gateway.answers(200, site.token("laptop")["token"])

    # A domain that is made by commands is served without a restart.
    beta = p.stack.backend("model-beta")
    site.cli("backend", "create", "model-beta", "--url", beta.url, "--kind", "vllm")
    site.cli("domain", "create", "beta", "--name", "B", "--upstream", "model-beta", "--all-models")
    site.cli("role", "create", "beta", "reader", "--operation", "llm_read")
    site.cli("role", "member", "add", "beta", "reader", "ada@example.com")
    token = site.token("beta", "beta:models:*:llm_read")["token"]
    gateway.answers(200, token, "/proxy/beta/v1/models")
    answer = gateway.ask(token, "/proxy/beta/v1/models")
    p.expect("the new backend", answer.headers["x-backend"] == "model-beta", answer.headers)
    mode = (folder / "clusters.yaml").stat().st_mode & 0o777
    p.expect("the mode 0644", mode == 0o644, oct(mode))


def run_adopted(p: Procedure) -> None:
    """The folder of another installation is left alone, and is taken over by the command."""
    site = Site(p)
    site.populated()
    folder = p.folder / "routes"
    folder.mkdir(mode=0o755)
    p.env |= {"PATGATE_POSTGRES_URL": site.url("router")}
    p.env |= {"PATGATE_ROUTES_LISTEN": f"127.0.0.1:{free_port()}"}
    p.fill("PASSWORD '…'", "PASSWORD 'router-password'")
    p.sql(DOCUMENT, "the-login", 1, site.url("postgres"))
    sync = "patgate --set routes.networks=127.0.0.1/32 sync --for envoy --dir"
    p.given(f"{sync} {folder} --once")
    before = (folder / "clusters.yaml").read_text()
    site.cli("installation", "renew")
    p.given(f"! {sync} {folder} --once")
    p.expect("the file as before", (folder / "clusters.yaml").read_text() == before, before)
    p.fill("patgate … sync --for envoy --dir", sync)
    p.fill("/etc/envoy/routes", str(folder))
    p.follow(DOCUMENT, "after-a-restore", 2)
    after = (folder / "clusters.yaml").read_text()
    p.expect("another name in the first line", after.split()[1:] != before.split()[1:], after)
    p.expect("the same routes", yaml.safe_load(after) == yaml.safe_load(before), after)
