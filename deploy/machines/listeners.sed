#n
# Makes /etc/envoy/listeners/listeners.yaml of envoy/envoy.yaml: HTTPS on port 443, and plain HTTP for
# this machine only.
/^  listeners:/,/^  clusters:/{
  /^  clusters:/d
  s|^  listeners:|resources:|
  s|^    - name: |    - "@type": type.googleapis.com/envoy.config.listener.v3.Listener\
      name: |
  s|port_value: 8443|port_value: 443|
  s|path: envoy/certificate.yaml|path: /etc/envoy/certificate.yaml|
  p
}
