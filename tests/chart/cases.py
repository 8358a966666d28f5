"""Sets of values: those that must render, and those that must be refused with a message."""

from helm import merged

# What each accepted set begins with: the least that the chart needs.
LEAST = {
    "image": {"registry": "registry.example.org/gateway"},
    "postgres": {"existingSecret": "server-login"},
    "keyring": {"existingSecret": "key-ring"},
    "migration": {"postgres": {"existingSecret": "owner-login"}},
}

TABLE = """\
name: own
host: "{domain}.own.example.org"
mount: /own
credentials: [authorization.Bearer]
errors: openai
rules:
  - { methods: [GET], path: /reports, operation: read, entity: reports }
"""

ADMIN = {
    "admin": {
        "enabled": True,
        "url": "https://tokens.example.org",
        "postgres": {"existingSecret": "web-login"},
    }
}
SIDECAR = {"mode": "sidecar", "sidecar": {"envoy": {"existingConfigMap": "envoy-config"}}}
SIDECAR_TLS = merged(SIDECAR, {"sidecar": {"envoy": {"tlsSecret": "gateway-tls"}}})
ENVOY_PROXY = {"mode": "sidecar", "sidecar": {"attach": "EnvoyProxy"}}
FROM = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}]
EGRESS = [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 5432}]}]

# Every feature that goes together with the others.
EVERYTHING = {
    "imageRegistry": "registry.example.org:5000",
    "imagePullSecrets": ["registry-login"],
    "commonLabels": {"team": "gateway"},
    "podLabels": {"cost-centre": "7"},
    "podAnnotations": {"example.org/note": "a"},
    "replicas": 3,
    "settings": {
        "max_staleness": "1m",
        "bodies": {"per_token": 2000000},
        "drain": {"delay": "20s", "grace": "1m"},
        "feed": {"relay": "redis"},
        "redis": {"sentinel": {"master": "mymaster"}, "topology": "sentinel"},
        "log": {"format": "text"},
        "telemetry": {"otlp": {"endpoint": "https://collector.tracing:4317"}},
        "web": {
            "gateway_url": "https://gateway.example.org",
            "oidc": {"issuer": "https://id.example.org", "client_id": "patgate"},
        },
    },
    "postgres": {"existingSecret": "server-login", "passwordKey": "password"},
    "feed": {"existingSecret": "feed-login"},
    "redis": {
        "url": "rediss://patgate-relay@sentinel-0:26379,sentinel-1:26379/0",
        "existingSecret": "redis-login",
        "passwordKey": "password",
        "sentinel": {"existingSecret": "sentinel-login"},
        "tls": {
            "existingSecret": "redis-tls",
            "certificateKey": "tls.crt",
            "privateKeyKey": "tls.key",
        },
    },
    "apis": {"shipped": ["scim", "cube-ai"]},
    "trust": {"existingConfigMap": "authorities"},
    "telemetry": {
        "headers": {"existingSecret": "collector"},
        "ca": {"existingSecret": "collector"},
    },
    "logFilter": "info,patgate=debug",
    "grpc": {
        "secret": {"existingSecret": "grpc-secret"},
        "tls": {
            "clientNames": ["envoy.gateway", "spiffe://cluster.local/ns/gateway/sa/envoy"],
            "clientCa": {"existingSecret": "client-ca"},
            "certManager": {
                "enabled": True,
                "issuerRef": {"name": "internal", "kind": "ClusterIssuer"},
                "dnsNames": ["authz.example.org"],
                "duration": "2160h",
                "renewBefore": "720h",
            },
        },
    },
    "http": {"tls": {"existingSecret": "http-tls"}},
    "service": {"clusterIP": True, "appProtocol": "grpc", "annotations": {"a.example.org/b": "c"}},
    "network": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]},
    "serviceAccount": {"annotations": {"example.org/role": "patgate"}},
    "extraEnv": [{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "k8s.cluster.name=a"}],
    "extraVolumes": [{"name": "extra", "emptyDir": {"sizeLimit": "1Mi"}}],
    "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "gateway", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podDisruptionBudget": {"maxUnavailable": "30%"},
    "autoscaling": {
        "enabled": True,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
    },
    "networkPolicy": {
        "enabled": True,
        "grpcFrom": FROM,
        "metricsFrom": FROM,
        "adminFrom": FROM,
        "egress": EGRESS,
    },
    "metrics": {
        "job": "authz",
        "serviceMonitor": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "tlsConfig": {"insecureSkipVerify": True},
        },
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "runbookPrefix": "https://git.example.org/patgate/",
            "envoyJob": "gateway",
        },
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "patgate"}},
    },
    "admin": {
        **ADMIN["admin"],
        "proxies": 2,
        "redis": {
            "url": "rediss://patgate-admin@sentinel-0:26379/0",
            "existingSecret": "redis-admin-login",
            "passwordKey": "password",
        },
        "oidc": {"existingSecret": "oidc", "caKey": "ca.crt"},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"a.example.org/b": "c"},
            "tlsSecret": "tokens-tls",
        },
        "httpRoute": {
            "enabled": True,
            "annotations": {"a.example.org/b": "c"},
            "parentRefs": [{"name": "public", "namespace": "gateway", "sectionName": "https"}],
        },
    },
}

ACCEPTED = {
    "least": {},
    "everything": EVERYTHING,
    "names": {
        "nameOverride": "authz",
        "fullnameOverride": "authz-of-a-name-that-is-far-too-long-" * 3,
    },
    "registry": {"imageRegistry": "mirror.example.org", "imagePullSecrets": ["login"]},
    "digest": {"image": {"registry": "ghcr.io", "digest": "sha256:" + "0" * 64}},
    "one replica": {"replicas": 1},
    "settings": {
        "settings": {
            "mode": "shadow",
            "memory": {"negatives": 1000000},
            "model": {"read": "always"},
        }
    },
    "url in the values": {
        "postgres": {
            "url": "postgres://gateway@db/patgate?sslmode=verify-full",
            "passwordKey": "password",
        },
        "migration": {
            "postgres": {"url": "postgres://owner@db/patgate", "passwordKey": "password"}
        },
    },
    "url without a Secret": {
        "postgres": {
            "existingSecret": "",
            "url": "postgres://gateway@db/patgate?sslmode=verify-full",
        },
        "migration": {"postgres": {"existingSecret": "", "url": "postgres://owner@db/patgate"}},
    },
    "feed at postgres": {"feed": {"usePostgres": True}},
    "feed at the URL of postgres": {
        "postgres": {"url": "postgres://a@db/b"},
        "feed": {"usePostgres": True},
    },
    "redis": {"redis": {"existingSecret": "redis-login"}},
    "redis, TLS": {
        "redis": {
            "url": "rediss://patgate@redis.example.org:6379/0",
            "existingSecret": "redis-login",
            "passwordKey": "password",
            "tls": {"existingSecret": "redis-tls"},
        },
    },
    "shipped tables": {
        "apis": {"shipped": ["cube-ai", "cube-platform", "cube-cloud", "scim", "aigne-hub"]}
    },
    "own table": {"apis": {"shipped": ["scim"], "tables": {"own.yaml": TABLE}}},
    "own table, other ends of lines": {
        "apis": {"tables": {"own.yaml": TABLE.replace("\n", "\r")}},
    },
    "words of YAML": {
        "nameOverride": "true",
        "postgres": {"existingSecret": "null"},
        "keyring": {"existingSecret": "123", "key": ".ring"},
    },
    "labels of the chart": {
        "commonLabels": {"helm.sh/chart": "a", "patgate/service": "metrics"},
        "podLabels": {"app.kubernetes.io/component": "serve"},
        "metrics": {"serviceMonitor": {"enabled": True}},
    },
    "existing tables": {"apis": {"existingConfigMap": "tables"}},
    "authorities": {"trust": {"existingSecret": "authorities"}},
    "secret of Envoy": {"grpc": {"secret": {"existingSecret": "grpc-secret"}}},
    "TLS": {"grpc": {"tls": {"existingSecret": "grpc-tls"}}},
    "mutual TLS": {
        "grpc": {"tls": {"existingSecret": "grpc-tls", "clientNames": ["envoy.gateway"]}}
    },
    "cert-manager": {
        "grpc": {"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "internal"}}}}
    },
    "TLS of health": {
        "http": {"tls": {"existingSecret": "http-tls"}},
        "metrics": {"serviceMonitor": {"enabled": True}},
    },
    "ports": {"grpc": {"port": 8081}, "http": {"port": 8082}},
    "one address": {"service": {"clusterIP": True}},
    "IPv4": {"network": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}},
    "IPv6": {"network": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}, **ADMIN},
    "both families": {"network": {"ipFamilyPolicy": "RequireDualStack"}, **ADMIN},
    "listen address": {"network": {"listenAddress": "127.0.0.1"}},
    "existing service account": {"serviceAccount": {"create": False, "name": "gateway"}},
    "OpenShift": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}},
    "shadow": {"settings": {"mode": "shadow"}},
    "drain": {"settings": {"drain": {"delay": "500ms", "grace": "2m"}}},
    "recreate": {"strategy": {"type": "Recreate"}},
    "recreate, no rolling update": {"strategy": {"type": "Recreate", "rollingUpdate": None}},
    "no spread": {"topologySpread": {"enabled": False}},
    "strict spread": {"topologySpread": {"whenUnsatisfiable": "DoNotSchedule"}},
    "no budget": {"podDisruptionBudget": {"enabled": False}, **ADMIN},
    "autoscaling": {"autoscaling": {"enabled": True}},
    "network policy": {"networkPolicy": {"enabled": True}, **ADMIN},
    "outgoing connections": {"networkPolicy": {"enabled": True, "egress": EGRESS}, **ADMIN},
    "service monitor": {"metrics": {"serviceMonitor": {"enabled": True}}},
    "alerts": {"metrics": {"prometheusRule": {"enabled": True}}},
    "dashboard": {"metrics": {"dashboard": {"enabled": True}}},
    "migration in init containers": {"migration": {"mode": "initContainer"}},
    "own migration": {"migration": {"mode": "none"}},
    "self-service": ADMIN,
    "self-service, Ingress": {"admin": {**ADMIN["admin"], "ingress": {"enabled": True}}},
    "self-service, HTTPRoute": {
        "admin": {
            **ADMIN["admin"],
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        }
    },
    "self-service, Redis of replicas": {"redis": {"existingSecret": "redis-login"}, **ADMIN},
    "self-service, public client": {
        "settings": {"web": {"oidc": {"issuer": "https://id.example.org", "client_id": "patgate"}}},
        "admin": {
            **ADMIN["admin"],
            "oidc": {"existingSecret": "oidc", "clientSecretKey": "", "caKey": "ca.crt"},
        },
    },
    "test with a token": {
        "grpc": {"tls": {"existingSecret": "grpc-tls"}},
        "tests": {"check": {"tokenSecret": "token", "operatorSecret": "operator-login"}},
    },
    "test with a token, and a policy": {
        "networkPolicy": {"enabled": True, "grpcFrom": FROM},
        "tests": {"check": {"tokenSecret": "token", "operatorSecret": "operator-login"}},
    },
    "sidecar": SIDECAR,
    "sidecar, migration in init containers": {**SIDECAR, "migration": {"mode": "initContainer"}},
    "sidecar, everything": {
        **SIDECAR_TLS,
        **ADMIN,
        "imageRegistry": "registry.example.org",
        "imagePullSecrets": ["login"],
        "autoscaling": {"enabled": True},
        "networkPolicy": {
            "enabled": True,
            "envoyFrom": FROM,
            "metricsFrom": FROM,
            "egress": EGRESS,
        },
        "network": {"ipFamilyPolicy": "PreferDualStack"},
        "metrics": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
        "grpc": {"secret": {"existingSecret": "grpc-secret"}},
    },
    "EnvoyProxy": ENVOY_PROXY,
    "EnvoyProxy, more": {
        **ENVOY_PROXY,
        "imagePullSecrets": ["login"],
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "gateway", "operator": "Exists"}],
        "migration": {"mode": "initContainer"},
        "metrics": {"serviceMonitor": {"enabled": True}},
    },
}

# Each with a part of the message that must say why.
REFUSED = {
    "no registry": ({"image": {"registry": ""}}, "image.registry is not set"),
    "no login": ({"postgres": {"existingSecret": ""}}, "postgres.existingSecret is not set"),
    "no key ring": ({"keyring": {"existingSecret": ""}}, "keyring.existingSecret is not set"),
    "no login to migrate": (
        {"migration": {"postgres": {"existingSecret": ""}}},
        "migration.postgres.existingSecret is not set",
    ),
    "a password in the values": (
        {"postgres": {"url": "postgres://gateway:secret@db/patgate"}},
        "postgres.url holds a password",
    ),
    "a password in a parameter": (
        {"redis": {"url": "redis://db/0?password=secret"}},
        "redis.url holds a password",
    ),
    "two addresses of the feed": (
        {"feed": {"usePostgres": True, "existingSecret": "feed-login"}},
        "feed.usePostgres excludes",
    ),
    "a relay without a feed": (
        {"settings": {"feed": {"relay": "redis"}}, "redis": {"existingSecret": "redis-login"}},
        "settings.feed.relay needs a direct connection",
    ),
    "a relay without Redis": (
        {"settings": {"feed": {"relay": "redis"}}, "feed": {"usePostgres": True}},
        "settings.feed.relay needs Redis",
    ),
    "two sources of tables": (
        {"apis": {"existingConfigMap": "tables", "shipped": ["scim"]}},
        "apis.existingConfigMap excludes",
    ),
    "a table twice": (
        {"apis": {"shipped": ["scim"], "tables": {"scim.yaml": "a"}}},
        "apis.tables and apis.shipped both have scim.yaml",
    ),
    "two sources of authorities": (
        {"trust": {"existingConfigMap": "a", "existingSecret": "b"}},
        "trust.existingConfigMap excludes",
    ),
    "a delay without a unit": (
        {"settings": {"drain": {"delay": "20"}}},
        "delay",
    ),
    "a setting as a fraction": ({"settings": {"drain": {"grace": "1.5s"}}}, "grace"),
    "two units": (
        {"settings": {"drain": {"delay": "1m 30s"}}},
        'settings.drain.delay is "1m 30s"',
    ),
    "a time without a unit": ({"settings": {"max_staleness": 60}}, "max_staleness"),
    "a choice that is none": ({"settings": {"mode": "shadwo"}}, "mode"),
    "a word as a number": ({"settings": {"grpc": {"max_connections": "many"}}}, "max_connections"),
    "octal digits as a number": ({"settings": {"listen": {"uds_mode": 0o660}}}, "uds_mode"),
    "two certificates": (
        {
            "grpc": {
                "tls": {
                    "existingSecret": "a",
                    "certManager": {"enabled": True, "issuerRef": {"name": "b"}},
                }
            }
        },
        "grpc.tls.existingSecret excludes",
    ),
    "no issuer": (
        {"grpc": {"tls": {"certManager": {"enabled": True}}}},
        "grpc.tls.certManager.issuerRef.name is not set",
    ),
    "names without TLS": (
        {"grpc": {"tls": {"clientNames": ["a"]}}},
        "grpc.tls.clientNames needs TLS",
    ),
    "authorities without names": (
        {"grpc": {"tls": {"existingSecret": "a", "clientCa": {"existingSecret": "b"}}}},
        "grpc.tls.clientCa needs grpc.tls.clientNames",
    ),
    "TLS over a socket": (
        {**SIDECAR, "grpc": {"tls": {"existingSecret": "a"}}},
        "grpc.tls has no effect with mode sidecar",
    ),
    "no configuration of Envoy": (
        {"mode": "sidecar"},
        "sidecar.envoy.existingConfigMap is not set",
    ),
    "one address for a sidecar": (
        {**SIDECAR, "service": {"clusterIP": True}},
        "service.clusterIP has no effect",
    ),
    "autoscaling of Envoy Gateway": (
        {**ENVOY_PROXY, "autoscaling": {"enabled": True}},
        "autoscaling.enabled has no effect",
    ),
    "a policy for Envoy Gateway": (
        {**ENVOY_PROXY, "networkPolicy": {"enabled": True}},
        "networkPolicy.enabled is refused",
    ),
    "more than most": (
        {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}},
        "autoscaling.minReplicas is above",
    ),
    "a share of nothing": (
        {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
        "autoscaling.enabled needs resources.requests.cpu",
    ),
    "a rollout that cannot move": (
        {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
        "maxSurge and maxUnavailable cannot both be 0",
    ),
    "self-service without a URL": (
        {"admin": {"enabled": True, "postgres": {"existingSecret": "a"}}},
        "admin.url is not set",
    ),
    "self-service without TLS": (
        {
            "admin": {
                "enabled": True,
                "url": "http://tokens.example.org",
                "postgres": {"existingSecret": "a"},
            }
        },
        "admin.url is not set to a URL such as https",
    ),
    "self-service without a login": (
        {"admin": {"enabled": True, "url": "https://a.example.org"}},
        "admin.postgres.existingSecret is not set",
    ),
    "a route without a Gateway": (
        {"admin": {**ADMIN["admin"], "httpRoute": {"enabled": True}}},
        "admin.httpRoute.parentRefs is empty",
    ),
    "an Ingress of nothing": ({"admin": {"ingress": {"enabled": True}}}, "need admin.enabled"),
    "a token without an operator": (
        {"tests": {"check": {"tokenSecret": "a"}}},
        "tests.check.tokenSecret needs tests.check.operatorSecret",
    ),
    "a test without a certificate": (
        {
            "grpc": {"tls": {"existingSecret": "a", "clientNames": ["b"]}},
            "tests": {"check": {"tokenSecret": "a", "operatorSecret": "b"}},
        },
        "tests.check.tokenSecret has no certificate",
    ),
    "a hidden password": (
        {"postgres": {"url": "postgres://gateway:a/b@db/patgate"}},
        "postgres.url holds a password",
    ),
    "a login in a setting": (
        {"settings": {"telemetry": {"otlp": {"endpoint": "https://a:b@collector:4317"}}}},
        "settings.telemetry.otlp.endpoint holds a login",
    ),
    "self-service below a path": (
        {"admin": {**ADMIN["admin"], "url": "https://tokens.example.org/a"}},
        "admin.url is not set",
    ),
    "one port for two": ({"http": {"port": 9191}}, "grpc.port and http.port are the same"),
    "one port for two of self-service": (
        {"admin": {**ADMIN["admin"], "port": 9194}},
        "admin.port and admin.metricsPort are the same",
    ),
    "one port for patgate and Envoy": (
        {**SIDECAR, "http": {"port": 8080}},
        "two ports of a pod have one number",
    ),
    "a volume of the chart": (
        {"extraVolumes": [{"name": "keyring", "emptyDir": {}}]},
        '"keyring" is the name of one of the chart\'s volumes',
    ),
    "a mount over a Secret": (
        {
            "extraVolumes": [{"name": "a", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "a", "mountPath": "/etc/patgate/keyring/"}],
        },
        "/etc/patgate/keyring/ is taken",
    ),
    "a mount over the program": (
        {
            "extraVolumes": [{"name": "a", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "a", "mountPath": "/usr/local/bin"}],
        },
        "/usr/local/bin is taken",
    ),
    "a mount of nothing": (
        {"extraVolumeMounts": [{"name": "a", "mountPath": "/a"}]},
        'extraVolumes has no "a"',
    ),
    "a login in the environment": (
        {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://a:b@proxy:3128"}]},
        "HTTPS_PROXY holds a login",
    ),
    "a drain of days": ({"settings": {"drain": {"grace": "99h"}}}, "an hour at most"),
    "a drain without end": (
        {"settings": {"drain": {"delay": "99999999999999999999s"}}},
        "an hour at most",
    ),
    # By the schema.
    "no security context": ({"podSecurityContext": None}, "podSecurityContext"),
    "no user that is not root": ({"podSecurityContext": {"runAsNonRoot": None}}, "runAsNonRoot"),
    "no seccomp profile": ({"podSecurityContext": {"seccompProfile": None}}, "seccompProfile"),
    "nothing about the secret": ({"grpc": {"secret": None}}, "secret"),
    "no settings at all": ({"settings": None}, "settings"),
    "a password of Postgres in the environment": (
        {"extraEnv": [{"name": "PGPASSWORD", "value": "a"}]},
        "extraEnv",
    ),
    "a header in the environment": (
        {"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_HEADERS", "value": "authorization=a"}]},
        "extraEnv",
    ),
    "TLS of Postgres turned off": (
        {"extraEnv": [{"name": "PGSSLMODE", "value": "disable"}]},
        "extraEnv",
    ),
    "a Secret that cannot exist": ({"keyring": {"existingSecret": "My_Ring"}}, "existingSecret"),
    "no key": ({"grpc": {"secret": {"existingSecret": "a", "key": ""}}}, "key"),
    "the folder above as a key": ({"keyring": {"key": ".."}}, "key"),
    "any name": ({"grpc": {"tls": {"existingSecret": "a", "clientNames": ["*"]}}}, "clientNames"),
    "no name": ({"grpc": {"tls": {"existingSecret": "a", "clientNames": [","]}}}, "clientNames"),
    "a socket over the image": (
        merged(SIDECAR, {"sidecar": {"socket": "/etc/patgate/a"}}),
        "socket",
    ),
    "a socket above": (merged(SIDECAR, {"sidecar": {"socket": "/run/../etc/a"}}), "socket"),
    "an address that is none": ({"network": {"listenAddress": "eth0"}}, "listenAddress"),
    "a number that is not exact": ({"settings": {"memory": {"negatives": 1e30}}}, "negatives"),
    "an unknown value": ({"replica": 3}, "replica"),
    "an unknown value inside": ({"grpc": {"tls": {"secretName": "a"}}}, "secretName"),
    "an unknown setting": ({"settings": {"max_stalenes": "1m"}}, "max_stalenes"),
    "a setting of the chart": ({"settings": {"listen": {"grpc": "0.0.0.0:1"}}}, "grpc"),
    "a secret in the settings": ({"settings": {"grpc": {"secret": "a"}}}, "secret"),
    "a number as a text": ({"replicas": "3"}, "replicas"),
    "no replica": ({"replicas": 0}, "replicas"),
    "another mode": ({"mode": "daemonset"}, "mode"),
    "a budget that blocks": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable"),
    "a budget of no percent": ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "maxUnavailable"),
    "a variable that is a setting": (
        {"extraEnv": [{"name": "PATGATE_MODE", "value": "shadow"}]},
        "extraEnv",
    ),
    "a variable from a Secret": (
        {"extraEnv": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]},
        "valueFrom",
    ),
    "root": ({"podSecurityContext": {"runAsUser": 0}}, "runAsUser"),
    "perhaps root": ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
    "a table with another name": ({"apis": {"tables": {"own.json": "{}"}}}, "own.json"),
    "a key that leads elsewhere": ({"keyring": {"key": "../ring"}}, "key"),
    "three families": ({"network": {"ipFamilies": ["IPv4", "IPv6", "IPv4"]}}, "ipFamilies"),
}
