# Makes /etc/envoy/envoy.yaml of envoy/envoy.yaml: listeners and clusters of backends are in files
# that Envoy watches, and patgate is behind a Unix socket.
/^node:/a\
\
# Replace these files by `mv`: Envoy takes them up without a restart, and keeps what it has if they\
# have an error.\
dynamic_resources:\
  lds_config:\
    resource_api_version: V3\
    path_config_source:\
      path: /etc/envoy/listeners/listeners.yaml\
      watched_directory: { path: /etc/envoy/listeners }\
  # Written by patgate sync.\
  cds_config:\
    resource_api_version: V3\
    path_config_source:\
      path: /etc/envoy/routes/clusters.yaml\
      watched_directory: { path: /etc/envoy/routes }
/^  listeners:/,/^  clusters:/{
  /^  clusters:/!d
}
s|socket_address: { address: 127.0.0.1, port_value: 9191 }|pipe: { path: /run/patgate/authz.sock }|
/# As a sidecar, over a Unix socket instead:/d
/# pipe: /d
/# One cluster per backend/,$d
