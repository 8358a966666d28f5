"""envoy/README.md and docs/operations.md: patgate and Envoy on different machines."""

import yaml
from installation import Site
from procedure import Procedure

from procedures.envoy import Parts, cluster, give_secret

ENVOY = "envoy/README.md"
SECRET = "s" * 32


def run_remote(p: Procedure) -> None:
    """The authority of the document signs for a real replica, and for the Envoy that asks it."""
    parts, site = Parts(p), Site(p)
    site.populated()
    p.follow(ENVOY, "an-authority-of-your-own")
    authority = p.folder / "authority"
    modes = p.given("stat -c %a . *; cd ~")
    p.expect("files that only their user reads", set(modes.split()) == {"600", "700"}, modes)
    p.given(f"printf %s {SECRET} >grpc.secret")
    tls = {
        "PATGATE_GRPC_TLS_CERTIFICATE_FILE": str(authority / "patgate.crt"),
        "PATGATE_GRPC_TLS_PRIVATE_KEY_FILE": str(authority / "patgate.key"),
        "PATGATE_GRPC_TLS_CLIENT_CA_FILE": str(authority / "ca.crt"),
        "PATGATE_GRPC_TLS_CLIENT_NAMES": "envoy.gateway.internal",
        "PATGATE_GRPC_SECRET_FILE": str(p.folder / "grpc.secret"),
    }
    replica = site.replica(**tls).ready()

    # The files of Envoy's machine.
    there = p.folder / "there"
    there.mkdir(mode=0o700)
    for name, file in (("ca.crt", "ca.crt"), ("envoy.crt", "tls.crt"), ("envoy.key", "tls.key")):
        (there / file).write_bytes((authority / name).read_bytes())
    p.fill("/etc/envoy/patgate", str(there))
    config = parts.shipped("envoy.yaml")
    cluster(config, "patgate").update(yaml.safe_load(p.text(ENVOY, "the-cluster", 1)))
    (there / "client.yaml").write_text(p.text(ENVOY, "the-cluster", 2))
    parts.accepted("TLS to patgate", "envoy.yaml", config)
    token = site.token("laptop")
    gateway = site.gateway(replica, text=yaml.safe_dump(config))
    # TLS alone is not enough for this replica.
    gateway.answers(503, token["token"])
    p.fill('value: "…"', f'value: "{SECRET}"')
    metadata = yaml.safe_load(p.text(ENVOY, "a-secret-between-envoy-and-patgate"))
    give_secret(p, config, metadata["initial_metadata"])
    site.gateway(replica, text=yaml.safe_dump(config)).answers(200, token["token"])

    # The same replica is asked by the operator.
    site.token_file("token", token)
    (p.folder / "operator.url").touch(mode=0o600)
    (p.folder / "operator.url").write_text(site.url("operator"))
    p.given("cp authority/ca.crt authority/envoy.crt authority/envoy.key .")
    p.fill("10.20.0.11:9191", replica.grpc)
    heading = "why-was-a-request-refused"
    said = p.follow("docs/operations.md", heading, 2)[-1].text()
    p.expect("the replica answers the same", "replica: 200" in said, said)
