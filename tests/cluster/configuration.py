"""The files and command lines of a cluster's servers. Addresses and ports are the same in every
cluster, since each has a network of its own."""

import json
import secrets
from ipaddress import ip_address
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import DNSName, IPAddress

import certificate

NAME = "node"
# In memory, and short enough for a Unix socket.
STATE = Path("/run/patgate")
ADDRESSES = ("10.200.0.1", "fd00:200::1")
PODS = ("10.244.0.0/24", "fd00:244::/64")
SERVICES = ("10.96.0.0/16", "fd00:96::/112")
# The first of each range is the Service `kubernetes`.
API_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
API_ADDRESSES = (*ADDRESSES, "127.0.0.1", "10.96.0.1", "fd00:96::1")
API = f"https://{ADDRESSES[0]}:6443"
SOCKET = "/run/containerd/containerd.sock"
PAUSE = "patgate.test/pause:1"

# Those that a chart's objects need. Each one less is some work less for a machine that measures.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "endpoints-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "ttl-after-finished-controller",
)


def etcd(state: Path) -> list:
    # The state is in memory, and gone with the run, so nothing need be durable.
    return ["etcd", "--data-dir", state / "etcd", "--unsafe-no-fsync", "--log-level=warn"]


def api_server(state: Path) -> list:
    """Writes the keys and the kubeconfig of an administrator."""
    names = [*map(DNSName, API_NAMES), *(IPAddress(ip_address(text)) for text in API_ADDRESSES)]
    certificate.make(state, names)
    key = state / "accounts.key"
    # The API server finds the public key in this format, and not in PKCS 8.
    key.touch(mode=0o600)
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    token = secrets.token_hex(32)
    tokens = state / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text(f"{token},admin,admin,system:masters\n")
    kubeconfig(state, token)
    return [
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=::",
        f"--advertise-address={ADDRESSES[0]}",
        f"--tls-cert-file={state}/tls.crt",
        f"--tls-private-key-file={state}/tls.key",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        # So that Pod Security is what refuses a pod.
        "--allow-privileged=true",
        f"--service-cluster-ip-range={','.join(SERVICES)}",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    ]


def kubeconfig(state: Path, token: str) -> None:
    named = {"name": "cluster"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {**named, "cluster": {"server": API, "certificate-authority": f"{state}/ca.crt"}}
        ],
        "users": [{**named, "user": {"token": token}}],
        "contexts": [{**named, "context": {"cluster": "cluster", "user": "cluster"}}],
        "current-context": "cluster",
    }
    path = state / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))


def controller_manager(state: Path) -> list:
    return [
        "kube-controller-manager",
        f"--kubeconfig={state}/kubeconfig",
        f"--service-account-private-key-file={state}/accounts.key",
        f"--root-ca-file={state}/ca.crt",
        f"--controllers={','.join(CONTROLLERS)}",
        "--leader-elect=false",
        "--profiling=false",
        "--bind-address=127.0.0.1",
    ]


def scheduler(state: Path) -> list:
    return [
        "kube-scheduler",
        f"--kubeconfig={state}/kubeconfig",
        "--leader-elect=false",
        "--profiling=false",
        "--bind-address=127.0.0.1",
    ]


def proxy(state: Path) -> list:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{state}/kubeconfig"},
        "hostnameOverride": NAME,
        "mode": "iptables",
        "clusterCIDR": ",".join(PODS),
        # Zero leaves the machine's settings alone, which are not of this network only.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    return ["kube-proxy", "--config", written(state / "proxy.yaml", config)]


def coredns(state: Path) -> list:
    (state / "Corefile").write_text(
        f""".:53 {{
    bind {" ".join(ADDRESSES)}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {state}/kubeconfig
    }}
    cache 5
}}
"""
    )
    return ["coredns", "-conf", state / "Corefile"]


def containerd(state: Path, images: Path) -> list:
    network = state / "network"
    network.mkdir()
    written(network / "10-pods.conflist", pod_network(state))
    cri = "io.containerd.grpc.v1.cri"
    # Everything else is in /run, where clients and shims look for it.
    path = state / "containerd.toml"
    path.write_text(
        f"""version = 2
root = {json.dumps(str(images))}
state = "/run/containerd"
# It would make a folder in /opt.
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."{cri}"]
  sandbox_image = "{PAUSE}"
  netns_mounts_under_state_dir = true
  # Without these, it would ask for what not every machine has or allows.
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."{cri}".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{network}"
[plugins."{cri}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."{cri}".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""
    )
    return ["containerd", "--config", path]


def pod_network(state: Path) -> dict:
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{state}/addresses",
                    "ranges": [[{"subnet": subnet}] for subnet in PODS],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet(state: Path, logs: Path, cgroup: str) -> list:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "address": ADDRESSES[0],
        # Only this network reaches it, and all that runs in it are the tests and their pods.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDomain": "cluster.local",
        "clusterDNS": list(ADDRESSES),
        "resolvConf": "",
        "podLogsDir": str(logs / "pods"),
        # Those of the pods are below one that is this cluster's.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        # The machine's disk is not this cluster's.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        # A changed ConfigMap or Secret reaches its files within this time, and not within a minute.
        "syncFrequency": "3s",
    }
    return [
        "kubelet",
        f"--kubeconfig={state}/kubeconfig",
        f"--config={written(state / 'kubelet.yaml', config)}",
        f"--root-dir={state}/kubelet",
        f"--cert-dir={state}/kubelet/pki",
        f"--hostname-override={NAME}",
        f"--node-ip={','.join(ADDRESSES)}",
    ]


def written(path: Path, config: dict) -> Path:
    path.write_text(json.dumps(config, indent=1))
    return path
