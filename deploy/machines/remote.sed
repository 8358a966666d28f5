# Changes /etc/envoy/envoy.yaml: patgate is on other machines, and both sides have certificates.
# Write your addresses in place of 10.20.0.11, one block `- endpoint` for each machine.
s|pipe: { path: /run/patgate/authz.sock }|socket_address: { address: 10.20.0.11, port_value: 9191 }|
/^    - name: patgate$/a\
      transport_socket:\
        name: envoy.transport_sockets.tls\
        typed_config:\
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\
          sni: patgate\
          common_tls_context:\
            alpn_protocols: [h2]\
            tls_certificate_sds_secret_configs:\
              - name: patgate-client\
                sds_config:\
                  resource_api_version: V3\
                  path_config_source:\
                    path: /etc/envoy/patgate/client.yaml\
                    watched_directory: { path: /etc/envoy/patgate }\
            validation_context:\
              trusted_ca: { filename: /etc/envoy/patgate/ca.crt }\
              match_typed_subject_alt_names:\
                - { san_type: DNS, matcher: { exact: patgate } }
