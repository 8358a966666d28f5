{{/*
Each process of patgate has "parts": the settings for its configuration file, environment variables,
which only name files, and what is mounted. The templates here fill them and return them as YAML.
*/}}

{{/* Writes the leaves of nested settings under dotted keys, as strings: YAML would print 1000000 as 1e+06. */}}
{{- define "patgate.flatten" -}}
{{- $out := .out -}}
{{- $prefix := .prefix -}}
{{- range $key, $value := .settings -}}
{{- $name := printf "%s%s" $prefix $key -}}
{{- if kindIs "map" $value -}}
{{- include "patgate.flatten" (dict "out" $out "prefix" (printf "%s." $name) "settings" $value) -}}
{{- else if kindIs "float64" $value -}}
{{- $_ := set $out $name (ternary (int64 $value | toString) (toString $value) (eq (floor $value) $value)) -}}
{{- else -}}
{{- $_ := set $out $name (toString $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A file of a Secret. Whole directories are mounted: Kubernetes never updates a `subPath`. */}}
{{- define "patgate.mountSecret" -}}
{{- $_ := set .out.mounts .name (dict "secret" .secret "path" (printf "/etc/patgate/%s" .name)) -}}
{{- end -}}

{{/* A login: the URL from the values or from a Secret, and perhaps a file with the password. */}}
{{- define "patgate.addLogin" -}}
{{- $login := .login -}}
{{- if $login.existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" .out "name" .name "secret" $login.existingSecret) -}}
{{- if get $login "passwordKey" -}}
{{- $_ := set .out.settings (printf "%s.password_file" .setting) (printf "/etc/patgate/%s/%s" .name $login.passwordKey) -}}
{{- end -}}
{{- end -}}
{{- if $login.url -}}
{{- $_ := set .out.settings (printf "%s.url" .setting) $login.url -}}
{{- else if $login.existingSecret -}}
{{- $variable := printf "PATGATE_%s_URL_FILE" (.setting | replace "." "_" | upper) -}}
{{- $_ := set .out.env $variable (printf "/etc/patgate/%s/%s" .name $login.urlKey) -}}
{{- end -}}
{{- end -}}

{{/* What `patgate serve` and `patgate admin` share, after the settings of the values. */}}
{{- define "patgate.addShared" -}}
{{- $values := .root.Values -}}
{{- $out := .out -}}
{{- $fullname := include "patgate.fullname" .root -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "keyring" "secret" $values.keyring.existingSecret) -}}
{{- $_ := set $out.settings "keyring_file" (printf "/etc/patgate/keyring/%s" $values.keyring.key) -}}
{{- if include "patgate.apiTables" .root -}}
{{- $_ := set $out.settings "apis" "/etc/patgate/apis" -}}
{{- $tables := default (printf "%s-apis" $fullname) $values.apis.existingConfigMap -}}
{{- $_ := set $out.mounts "apis" (dict "configMap" $tables "path" "/etc/patgate/apis") -}}
{{- end -}}
{{- $_ := set $out.settings "log.filter_file" "/etc/patgate/log/filter" -}}
{{- $_ := set $out.mounts "log" (dict "configMap" (printf "%s-log" $fullname) "path" "/etc/patgate/log") -}}
{{- include "patgate.addTrust" (dict "root" .root "out" $out) -}}
{{- with $values.redis.sentinel.existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "redis-sentinel" "secret" .) -}}
{{- $_ := set $out.settings "redis.sentinel.password_file" (printf "/etc/patgate/redis-sentinel/%s" $values.redis.sentinel.passwordKey) -}}
{{- end -}}
{{- with $values.redis.tls -}}
{{- if .existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "redis-tls" "secret" .existingSecret) -}}
{{- if .caKey -}}{{- $_ := set $out.settings "redis.tls.ca_file" (printf "/etc/patgate/redis-tls/%s" .caKey) -}}{{- end -}}
{{- if .certificateKey -}}
{{- $_ := set $out.settings "redis.tls.certificate_file" (printf "/etc/patgate/redis-tls/%s" .certificateKey) -}}
{{- $_ := set $out.settings "redis.tls.private_key_file" (printf "/etc/patgate/redis-tls/%s" .privateKeyKey) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $out.mounts "config" (dict "configMap" .config "path" "/etc/patgate/config") -}}
{{- $_ := set $out.env "PATGATE_CONFIG" "/etc/patgate/config/patgate.yaml" -}}
{{- end -}}

{{- define "patgate.addTrust" -}}
{{- $trust := .root.Values.trust -}}
{{- if $trust.existingConfigMap -}}
{{- $_ := set .out.mounts "trust" (dict "configMap" $trust.existingConfigMap "path" "/etc/patgate/trust") -}}
{{- else if $trust.existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" .out "name" "trust" "secret" $trust.existingSecret) -}}
{{- end -}}
{{- if or $trust.existingConfigMap $trust.existingSecret -}}
{{- $_ := set .out.env "SSL_CERT_FILE" (printf "/etc/patgate/trust/%s" $trust.key) -}}
{{- end -}}
{{- end -}}

{{- define "patgate.apiTables" -}}
{{- with .Values.apis -}}
{{- if or .shipped .tables .existingConfigMap -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the certificate of the gRPC port; empty = no TLS. */}}
{{- define "patgate.grpcTlsSecret" -}}
{{- $tls := .Values.grpc.tls -}}
{{- if $tls.certManager.enabled -}}
{{- include "patgate.fullname" . -}}-grpc-tls
{{- else -}}
{{- $tls.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "patgate.serveParts" -}}
{{- $values := .Values -}}
{{- $out := dict "settings" (dict) "env" (dict) "mounts" (dict) -}}
{{- $fullname := include "patgate.fullname" . -}}
{{- $listen := include "patgate.listen" . -}}
{{- include "patgate.flatten" (dict "out" $out.settings "prefix" "" "settings" (omit $values.settings "web")) -}}
{{- include "patgate.addShared" (dict "root" . "out" $out "config" (printf "%s-config" $fullname)) -}}
{{- include "patgate.addLogin" (dict "out" $out "name" "postgres" "setting" "postgres" "login" $values.postgres) -}}
{{- if $values.feed.usePostgres -}}
{{- if $values.postgres.url -}}
{{- $_ := set $out.settings "feed.url" $values.postgres.url -}}
{{- else -}}
{{- $_ := set $out.env "PATGATE_FEED_URL_FILE" (printf "/etc/patgate/postgres/%s" $values.postgres.urlKey) -}}
{{- end -}}
{{- else -}}
{{- include "patgate.addLogin" (dict "out" $out "name" "feed" "setting" "feed" "login" $values.feed) -}}
{{- end -}}
{{- include "patgate.addLogin" (dict "out" $out "name" "redis" "setting" "redis" "login" $values.redis) -}}
{{- with $values.telemetry.headers -}}
{{- if .existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "telemetry-headers" "secret" .existingSecret) -}}
{{- $_ := set $out.env "PATGATE_TELEMETRY_OTLP_HEADERS_FILE" (printf "/etc/patgate/telemetry-headers/%s" .key) -}}
{{- end -}}
{{- end -}}
{{- with $values.telemetry.ca -}}
{{- if .existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "telemetry-ca" "secret" .existingSecret) -}}
{{- $_ := set $out.settings "telemetry.otlp.ca_file" (printf "/etc/patgate/telemetry-ca/%s" .key) -}}
{{- end -}}
{{- end -}}
{{- with $values.grpc.secret -}}
{{- if .existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "grpc-secret" "secret" .existingSecret) -}}
{{- $_ := set $out.env "PATGATE_GRPC_SECRET_FILE" (printf "/etc/patgate/grpc-secret/%s" .key) -}}
{{- end -}}
{{- end -}}
{{- with include "patgate.grpcTlsSecret" . -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "grpc-tls" "secret" .) -}}
{{- $_ := set $out.settings "grpc.tls.certificate_file" "/etc/patgate/grpc-tls/tls.crt" -}}
{{- $_ := set $out.settings "grpc.tls.private_key_file" "/etc/patgate/grpc-tls/tls.key" -}}
{{- if $values.grpc.tls.clientNames -}}
{{- $ca := $values.grpc.tls.clientCa -}}
{{- if $ca.existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "grpc-client-ca" "secret" $ca.existingSecret) -}}
{{- end -}}
{{- $_ := set $out.settings "grpc.tls.client_ca_file" (printf "/etc/patgate/%s/%s" (ternary "grpc-client-ca" "grpc-tls" (not (empty $ca.existingSecret))) $ca.key) -}}
{{- $_ := set $out.settings "grpc.tls.client_names" (join "," $values.grpc.tls.clientNames) -}}
{{- end -}}
{{- end -}}
{{- with $values.http.tls.existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "http-tls" "secret" .) -}}
{{- $_ := set $out.settings "http.tls.certificate_file" "/etc/patgate/http-tls/tls.crt" -}}
{{- $_ := set $out.settings "http.tls.private_key_file" "/etc/patgate/http-tls/tls.key" -}}
{{- end -}}
{{- $_ := set $out.settings "drain.delay" (include "patgate.drainDelay" .) -}}
{{- $_ := set $out.settings "listen.http" (printf "%s:%d" $listen (int $values.http.port)) -}}
{{- if eq $values.mode "sidecar" -}}
{{- $_ := set $out.settings "listen.grpc" "" -}}
{{- $_ := set $out.settings "listen.uds" $values.sidecar.socket -}}
{{- $_ := set $out.mounts "socket" (dict "emptyDir" "Memory" "path" (dir $values.sidecar.socket)) -}}
{{- else -}}
{{- $_ := set $out.settings "listen.grpc" (printf "%s:%d" $listen (int $values.grpc.port)) -}}
{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{/* `patgate admin` has the settings that are about more than checks, and those of `web`. */}}
{{- define "patgate.adminParts" -}}
{{- $values := .Values -}}
{{- $out := dict "settings" (dict) "env" (dict) "mounts" (dict) -}}
{{- $shared := pick $values.settings "model" "redis" "token" "max_staleness" "negative_ttl" "deadline" "drain" "log" "web" "routes" -}}
{{- include "patgate.flatten" (dict "out" $out.settings "prefix" "" "settings" $shared) -}}
{{- include "patgate.addShared" (dict "root" . "out" $out "config" (printf "%s-admin-config" (include "patgate.fullname" .))) -}}
{{- include "patgate.addLogin" (dict "out" $out "name" "web-postgres" "setting" "web.postgres" "login" $values.admin.postgres) -}}
{{- $own := or $values.admin.redis.url $values.admin.redis.existingSecret -}}
{{- include "patgate.addLogin" (dict "out" $out "name" "redis" "setting" "redis" "login" (ternary $values.admin.redis $values.redis (not (empty $own)))) -}}
{{- with $values.admin.oidc -}}
{{- if .existingSecret -}}
{{- include "patgate.mountSecret" (dict "out" $out "name" "oidc" "secret" .existingSecret) -}}
{{- if .clientSecretKey -}}{{- $_ := set $out.settings "web.oidc.client_secret_file" (printf "/etc/patgate/oidc/%s" .clientSecretKey) -}}{{- end -}}
{{- if .caKey -}}{{- $_ := set $out.settings "web.oidc.ca_file" (printf "/etc/patgate/oidc/%s" .caKey) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $out.settings "web.listen" (printf "%s:%d" (include "patgate.listen" .) (int $values.admin.port)) -}}
{{- $_ := set $out.settings "web.metrics.listen" (printf "%s:%d" (include "patgate.listen" .) (int $values.admin.metricsPort)) -}}
{{- $_ := set $out.settings "web.url" $values.admin.url -}}
{{- $_ := set $out.settings "drain.delay" (include "patgate.adminDrainDelay" .) -}}
{{- $_ := set $out.settings "web.proxies" (include "patgate.adminProxies" .) -}}
{{- toYaml $out -}}
{{- end -}}

{{- define "patgate.adminProxies" -}}
{{- $admin := .Values.admin -}}
{{- if kindIs "invalid" $admin.proxies -}}
{{- ternary 1 0 (or $admin.ingress.enabled $admin.httpRoute.enabled) -}}
{{- else -}}
{{- int $admin.proxies -}}
{{- end -}}
{{- end -}}

{{/* The migration has no configuration file: as a hook, it runs before there is one. */}}
{{- define "patgate.migrationParts" -}}
{{- $out := dict "settings" (dict) "env" (dict) "mounts" (dict) -}}
{{- include "patgate.addLogin" (dict "out" $out "name" "migration-postgres" "setting" "postgres" "login" .Values.migration.postgres) -}}
{{- with get $out.settings "postgres.password_file" -}}{{- $_ := set $out.env "PATGATE_POSTGRES_PASSWORD_FILE" . -}}{{- end -}}
{{- with get $out.settings "postgres.url" -}}{{- $_ := set $out.env "PATGATE_POSTGRES_URL" . -}}{{- end -}}
{{- include "patgate.addTrust" (dict "root" . "out" $out) -}}
{{- toYaml $out -}}
{{- end -}}

{{- define "patgate.configFile" -}}
# Written by Helm. Secrets are in files of their own.
{{- range $key, $value := .settings }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "patgate.drainDelay" -}}
{{- $drain := default (dict) .Values.settings.drain -}}
{{- $default := ternary "0s" .Values.drain.delay (eq .Values.mode "sidecar") -}}
{{- default $default $drain.delay -}}
{{- end -}}

{{- define "patgate.adminDrainDelay" -}}
{{- $drain := default (dict) .Values.settings.drain -}}
{{- default .Values.drain.delay $drain.delay -}}
{{- end -}}

{{- define "patgate.drainGrace" -}}
{{- $drain := default (dict) .Values.settings.drain -}}
{{- default "30s" $drain.grace -}}
{{- end -}}

{{/* A duration of patgate in whole seconds, rounded up. */}}
{{- define "patgate.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{- div (add $number 999) 1000 -}}
{{- else if eq $unit "s" -}}{{- $number -}}
{{- else if eq $unit "m" -}}{{- mul $number 60 -}}
{{- else if eq $unit "h" -}}{{- mul $number 3600 -}}
{{- else -}}0{{- end -}}
{{- end -}}

{{/* After delay and grace, patgate writes what is queued, for four seconds at most. */}}
{{- define "patgate.terminationSeconds" -}}
{{- $delay := include "patgate.drainDelay" . | include "patgate.seconds" | int -}}
{{- $grace := include "patgate.drainGrace" . | include "patgate.seconds" | int -}}
{{- $envoy := ternary (int .Values.sidecar.envoy.preStopSeconds) 0 (eq .Values.mode "sidecar") -}}
{{- add $envoy $delay $grace 5 -}}
{{- end -}}
