# Turns the EnvoyFilters and the DestinationRule of the gateway into those of a sidecar: see "At a
# sidecar" in README.md. Replace `models` and `app: model-acme` as in sidecar.yaml.
s/istio-ingress/models/
s/istio: patgate-gateway/app: model-acme/
s/context: GATEWAY/context: SIDECAR_INBOUND/
/applyTo: CLUSTER/,$ s/SIDECAR_INBOUND/SIDECAR_OUTBOUND/
# The only route of an inbound listener, which must hold the bodies that are shown.
s/route: { name: undecided, action: ROUTE }/route: { name: default }/
# At a sidecar, Istio makes a cluster of a headless Service that no filter can ask.
s/|patgate\./|patgate-clusterip./
s/\(service\|host\): patgate\./\1: patgate-clusterip./
# A sidecar may not read Secrets; a ConfigMap it may.
s/credentialName: patgate-ca/credentialName: configmap:\/\/models\/patgate-ca/
