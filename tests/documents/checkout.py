"""A folder in which the commands find what they find in a checkout of this repository."""

import re

from claims import ROOT
from procedure import Procedure

from server import free_port

# In seconds, for a loaded machine: a late answer must not become a 503.
PATIENT = {"timeout: 0.25s": "timeout: 10s", "max_interval: 0.2s": "max_interval: 10s"}


class Checkout:
    """The procedure's folder, with the shipped files. Ports of the documents become free ones."""

    def __init__(self, procedure: Procedure):
        self.folder, self._ports = procedure.folder, {}
        for name in ("deploy", "tools"):
            (self.folder / name).symlink_to(ROOT / name)
        for place in ("target/release", ".venv/bin"):
            (self.folder / place).mkdir(parents=True)
        (self.folder / "target/release/patgate").symlink_to(procedure.programs / "patgate")
        for name in ("envoy", "python"):
            (self.folder / ".venv/bin" / name).symlink_to(procedure.programs / name)
        (self.folder / "envoy/tls").mkdir(parents=True)
        for file in sorted((ROOT / "envoy").glob("*.yaml")):
            (self.folder / "envoy" / file.name).write_text(self.moved(file.read_text()))

    def port(self, documented: int) -> int:
        """Returns what stands for a port of the documents."""
        if documented == 8443:
            self.port(8080)
        if documented not in self._ports:
            # The port with TLS is that after the one without.
            self._ports[documented] = free_port(2 if documented == 8080 else 1)
            if documented == 8080:
                self._ports[8443] = self._ports[8080] + 1
        return self._ports[documented]

    def moved(self, config: str) -> str:
        """Returns a shipped configuration of Envoy with free ports, and with patience."""
        config = re.sub(
            r"port_value: (\d+)", lambda port: f"port_value: {self.port(int(port[1]))}", config
        )
        for shipped, patient in PATIENT.items():
            config = config.replace(shipped, patient)
        return config

    def settings(self) -> dict[str, str]:
        """Settings of a replica that listens where this Envoy asks."""
        return {
            "PATGATE_LISTEN_GRPC": f"127.0.0.1:{self.port(9191)}",
            "PATGATE_LISTEN_HTTP": f"127.0.0.1:{self.port(9192)}",
            "PATGATE_DEADLINE": "2s",
        }
