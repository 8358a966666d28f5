"""The documents of deploy/: values of the chart, names in manifests, compose, Prometheus."""

import re
import shlex
import shutil
import sys

import httpx2
import yaml
from checkout import Checkout
from claims import ROOT
from installation import Site
from procedure import Failed, Procedure

from server import answers

CHART = "deploy/helm/patgate/README.md"
EXAMPLE = "operator:…@db.example.org:5432/patgate?sslmode=verify-full"


def run_chart_operator(p: Procedure) -> None:
    site = Site(p)
    site.populated()
    p.fill(EXAMPLE, site.url("operator").removeprefix("postgres://"))
    listed = p.follow(CHART, "install", 6)[-1].text()
    p.expect("the backend", "model-acme" in listed, listed)


# The blocks with values besides those of the first installation, and what each makes. Some stand in
# place of a line of the first ones.
VALUES = (
    ("secrets", 1, "Deployment"),
    ("a-token-for-helm-test", 2, "Pod"),
    ("self-service", 1, "Ingress"),
    ("platforms", 2, "Job"),
    ("platforms", 3, "HorizontalPodAutoscaler"),
    ("platforms", 4, "Certificate"),
    ("platforms", 5, "PrometheusRule"),
)
IN_PLACE = {("secrets", 1), ("platforms", 2)}
CUSTOM = ("cert-manager.io/v1", "monitoring.coreos.com/v1")


def run_chart_values(p: Procedure) -> None:
    sys.path.append(str(ROOT / "tests/chart"))
    import helm

    if not helm.INSTALLED.exists():
        raise Failed("Helm is not installed: run tools/install.sh chart")
    first = yaml.safe_load(p.text(CHART, "install", 3))
    for heading, number, kind in VALUES:
        more = yaml.safe_load(p.text(CHART, heading, number))
        file = p.folder / f"{heading}-{number}.yaml"
        whole = first | more if (heading, number) in IN_PLACE else helm.merged(first, more)
        file.write_text(yaml.safe_dump(whole))
        for version, program in helm.programs().items():
            command = [program, "template", "patgate", ROOT / "deploy/helm/patgate", "-n", "authz"]
            command += ["-f", file, *(part for one in CUSTOM for part in ("--api-versions", one))]
            made = yaml.safe_load_all(p.run(*command))
            kinds = sorted({item["kind"] for item in made if item})
            p.expect(f"Helm {version}: {heading} {number} makes a {kind}", kind in kinds, kinds)
        p.say(f"{CHART}, {heading} {number}: {kind}")


def run_names(p: Procedure) -> None:
    for name in ("envoy-gateway", "istio"):
        shutil.copytree(ROOT / "deploy" / name, p.folder / "deploy" / name)
    for name, new in (("envoy-gateway", "gw"), ("istio", "access")):
        document = f"deploy/{name}/README.md"
        heading = "install" if name == "envoy-gateway" else "patgate-behind-istio"
        folder = p.folder / "deploy" / name
        files = [*folder.glob("*.yaml"), *folder.glob("*.sed")]
        before = {file: file.read_text() for file in files}
        p.follow(document, heading, 1)
        after = {file: file.read_text() for file in files}
        renamed = [file.name for file in files if before[file] != after[file]]
        p.expect(f"files with the namespace {new}", len(renamed) > 2, renamed)
        for file, text in after.items():
            left = re.findall(r"^.*(?<![\w/])authz(?!\w).*$", text, re.M)
            p.expect(f"no namespace authz in {file.name}", not left, left)
            # `ext_authz` and the socket are no namespaces.
            for other in ("ext_authz", "/authz.sock"):
                kept = before[file].count(other) == text.count(other)
                p.expect(f"{file.name} has {other} as before", kept, text)


def run_compose(p: Procedure) -> None:
    site = Site(p)
    folder = p.folder / "deploy/compose"
    shutil.copytree(ROOT / "deploy/compose", folder, ignore=shutil.ignore_patterns("state", ".env"))
    shutil.copytree(ROOT / "envoy", p.folder / "envoy")
    shutil.copy(ROOT / "Cargo.toml", p.folder / "Cargo.toml")
    # In place of a container engine, which starts nothing but this in the script.
    engine = '[ "$1 $2 $3" = "run --rm --network=none" ] && shift 4 && exec patgate "$@"; exit 9'
    p.program("docker", engine)
    p.given("cd deploy/compose")
    p.follow("deploy/compose/README.md", "2-passwords-key-ring-configuration")
    ring = (folder / "state/keys/keyring").read_text()
    listed = p.run("patgate", "keyring", "list", "--file", folder / "state/keys/keyring")
    p.expect("a key ring", "mints" in listed, listed)
    modes = p.given("stat -c %a state").strip()
    p.expect("a folder that only this user can read", modes == "700", modes)
    # Each part that the script has made is accepted by what reads it.
    p.given("cd ../.. && envoy --mode validate -c deploy/compose/state/envoy/envoy.yaml")
    site.database()
    site.psql((ROOT / "deploy/bootstrap.sql").read_text())
    site.psql((folder / "state/postgres/logins.sql").read_text())
    host = f"@127.0.0.1:{site.postgres.port}/"
    for service in ("owner", "server", "operator", "web"):
        url = (folder / f"state/{service}/postgres.url").read_text().strip()
        url = url.replace("@postgres:5432/", host)
        p.run("psql", url, "-qc", "SELECT 1")
        if service == "owner":
            p.run("patgate", "migrate", env={"PATGATE_POSTGRES_URL": url})
    # As options of the command line, which have the words of the file.
    words = [line.split(maxsplit=1) for line in (folder / "state/valkey/valkey.conf").open()]
    options = [word for name, *rest in words for word in (f"--{name}", *shlex.split(rest[0]))]
    valkey = p.stack.valkey(options)
    password = (folder / "state/server/redis.password").read_text().strip()
    _ = site.valkey
    p.run(
        "redis-cli",
        "-u",
        f"redis://patgate-serve:{password}@127.0.0.1:{valkey.port}",
        "MGET",
        "patgate:a",
    )
    # Again: what exists is kept.
    p.given("cd deploy/compose && ./setup.sh")
    p.expect("the same key ring", (folder / "state/keys/keyring").read_text() == ring, "another")
    p.expect("the name of the image", "localhost/patgate" in (folder / ".env").read_text(), "no")


def run_observability(p: Procedure) -> None:
    document = "deploy/observability/README.md"
    shutil.copy(ROOT / "deploy/observability/alerts.yaml", p.folder / "alerts.yaml")
    (p.folder / "prometheus.yml").write_text(p.text(document, "scraping"))
    if shutil.which("promtool") is None:
        raise Failed("promtool is not installed. Debian and Ubuntu: apt-get install prometheus")
    checked = p.given("promtool check config prometheus.yml")
    p.expect("rules", "SUCCESS" in checked and "rules found" in checked, checked)
    tree = Checkout(p)
    address = f"127.0.0.1:{tree.port(9902)}"
    p.fill("127.0.0.1:9902", address)
    url = f"http://{address}/stats/prometheus"
    before = {"curl": lambda: p.until("Envoy's metrics", lambda: answers(url))}
    guard = p.follow(document, "scraping", 2, before=before)[-1].text()
    p.expect("the guard's counter", "denied" in guard, guard)
    refused = httpx2.get(f"http://{address}/config_dump").status_code
    p.expect("404 for the rest of the admin interface", refused == 404, refused)
    inhibited = yaml.safe_load(p.text(document, "scraping", 3))
    alerts = (ROOT / "deploy/observability/alerts.yaml").read_text()
    for name in re.findall(r"Patgate\w+", str(inhibited)):
        p.expect(f"the alert {name}", f"alert: {name}\n" in alerts, "not in alerts.yaml")
    # In place of a cluster, which would get this object.
    p.program("kubectl", '[ "$*" = "apply -f -" ] && exec cat >applied.yaml; exit 9')
    p.follow(document, "prometheus-operator")
    applied = yaml.safe_load((p.folder / "applied.yaml").read_text())
    rules = yaml.safe_load((p.folder / "alerts.yaml").read_text())
    p.expect("a PrometheusRule with all rules", applied["spec"] == rules, applied["kind"])
