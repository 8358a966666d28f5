{{/* Fails with all errors of the values at once. The schema finds misspelled keys and wrong types. */}}
{{- define "patgate.validate" -}}
{{- $values := .Values -}}
{{- $errors := list -}}
{{- $sidecar := eq $values.mode "sidecar" -}}
{{- $envoyProxy := include "patgate.envoyProxyMode" . -}}

{{- if not (or $values.imageRegistry $values.image.registry) -}}
{{- $errors = append $errors "image.registry is not set: name the registry to which you pushed the image, or localhost for an image that was loaded into the nodes" -}}
{{- end -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" (include "patgate.fullname" .)) -}}
{{- $errors = append $errors (printf "the release %q makes objects called %q, and a Service must begin with a letter and have no dot: choose another name, or set fullnameOverride" .Release.Name (include "patgate.fullname" .)) -}}
{{- end -}}
{{- range $name, $login := dict "postgres" $values.postgres "feed" $values.feed "redis" $values.redis "migration.postgres" $values.migration.postgres "admin.postgres" $values.admin.postgres "admin.redis" $values.admin.redis -}}
{{- if regexMatch "://[^/?]*:[^?]*@|[?&]password=" $login.url -}}
{{- $errors = append $errors (printf "%s.url holds a password: put it into a Secret, and name that in %s.existingSecret" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if not (or $values.postgres.existingSecret $values.postgres.url) -}}
{{- $errors = append $errors "postgres.existingSecret is not set: name the Secret with the login of patgate serve" -}}
{{- end -}}
{{- if not $values.keyring.existingSecret -}}
{{- $errors = append $errors "keyring.existingSecret is not set: name the Secret with the key ring" -}}
{{- end -}}
{{- if and $values.feed.usePostgres (or $values.feed.url $values.feed.existingSecret) -}}
{{- $errors = append $errors "feed.usePostgres excludes feed.url and feed.existingSecret" -}}
{{- end -}}
{{- $settings := $values.settings -}}
{{- $flat := dict -}}
{{- include "patgate.flatten" (dict "out" $flat "prefix" "settings." "settings" $settings) -}}
{{- range $name, $value := $flat -}}
{{- if regexMatch "://[^/?#]*@" $value -}}
{{- $errors = append $errors (printf "%s holds a login, which everybody who may read ConfigMaps would see: remove what is before the @" $name) -}}
{{- end -}}
{{- end -}}
{{- $feedSettings := default (dict) $settings.feed -}}
{{- if eq (default "off" $feedSettings.relay) "redis" -}}
{{- if not (or $values.feed.usePostgres $values.feed.url $values.feed.existingSecret) -}}
{{- $errors = append $errors "settings.feed.relay needs a direct connection: set feed.usePostgres, feed.url or feed.existingSecret" -}}
{{- end -}}
{{- if not (or $values.redis.url $values.redis.existingSecret) -}}
{{- $errors = append $errors "settings.feed.relay needs Redis: set redis.existingSecret or redis.url" -}}
{{- end -}}
{{- end -}}
{{- if and $values.apis.existingConfigMap (or $values.apis.shipped $values.apis.tables) -}}
{{- $errors = append $errors "apis.existingConfigMap excludes apis.shipped and apis.tables" -}}
{{- end -}}
{{- range $name := $values.apis.shipped -}}
{{- if hasKey $values.apis.tables (printf "%s.yaml" $name) -}}
{{- $errors = append $errors (printf "apis.tables and apis.shipped both have %s.yaml" $name) -}}
{{- end -}}
{{- end -}}
{{- if and $values.trust.existingConfigMap $values.trust.existingSecret -}}
{{- $errors = append $errors "trust.existingConfigMap excludes trust.existingSecret" -}}
{{- end -}}
{{- range $name, $duration := dict "drain.delay" .Values.drain.delay "settings.drain.delay" (include "patgate.drainDelay" .) "settings.drain.grace" (include "patgate.drainGrace" .) -}}
{{- if not (regexMatch "^[0-9]+(ms|s|m|h)$" $duration) -}}
{{- $errors = append $errors (printf "%s is %q: expected a whole number and a unit, such as 15s" $name $duration) -}}
{{- else if or (not (regexMatch "^[0-9]{1,7}[a-z]+$" $duration)) (gt (include "patgate.seconds" $duration | int) 3600) -}}
{{- $errors = append $errors (printf "%s is %q: expected an hour at most" $name $duration) -}}
{{- end -}}
{{- end -}}

{{- with $values.grpc.tls -}}
{{- if and .existingSecret .certManager.enabled -}}
{{- $errors = append $errors "grpc.tls.existingSecret excludes grpc.tls.certManager.enabled" -}}
{{- end -}}
{{- if and .certManager.enabled (not .certManager.issuerRef.name) -}}
{{- $errors = append $errors "grpc.tls.certManager.issuerRef.name is not set" -}}
{{- end -}}
{{- if and .clientNames (not (or .existingSecret .certManager.enabled)) -}}
{{- $errors = append $errors "grpc.tls.clientNames needs TLS: set grpc.tls.existingSecret or grpc.tls.certManager.enabled" -}}
{{- end -}}
{{- if and .clientCa.existingSecret (not .clientNames) -}}
{{- $errors = append $errors "grpc.tls.clientCa needs grpc.tls.clientNames: without names, every certificate of these authorities could connect" -}}
{{- end -}}
{{- if and $sidecar (or .existingSecret .certManager.enabled) -}}
{{- $errors = append $errors "grpc.tls has no effect with mode sidecar, in which Envoy asks over a Unix socket" -}}
{{- end -}}
{{- end -}}

{{- $ports := list (int $values.http.port) -}}
{{- $portNames := list "http-metrics" -}}
{{- if not $sidecar -}}
{{- $ports = append $ports (int $values.grpc.port) -}}
{{- else if not $envoyProxy -}}
{{- range $values.sidecar.envoy.ports -}}
{{- $ports = append $ports (int .containerPort) -}}
{{- $portNames = append $portNames .name -}}
{{- end -}}
{{- end -}}
{{- if or (ne (len $ports) (len (uniq $ports))) (ne (len $portNames) (len (uniq $portNames))) -}}
{{- $errors = append $errors (ternary "sidecar.envoy.ports and http.port: two ports of a pod have one number or one name, of which http-metrics is taken" "grpc.port and http.port are the same" $sidecar) -}}
{{- end -}}
{{- $mounts := (include "patgate.serveParts" . | fromYaml).mounts -}}
{{- $taken := keys $mounts -}}
{{- if eq $values.migration.mode "initContainer" -}}
{{- $taken = append $taken "migration-postgres" -}}
{{- end -}}
{{- if $sidecar -}}
{{- $taken = concat $taken (list "envoy" "envoy-tls") -}}
{{- end -}}
{{- $extra := list -}}
{{- range $values.extraVolumes -}}
{{- if has .name $taken -}}
{{- $errors = append $errors (printf "extraVolumes: %q is the name of one of the chart's volumes, choose another" .name) -}}
{{- end -}}
{{- $extra = append $extra .name -}}
{{- end -}}
{{- $paths := list -}}
{{- range $mounts -}}
{{- $paths = append $paths .path -}}
{{- end -}}
{{- range $values.extraVolumeMounts -}}
{{- if not (has .name (concat $extra (keys $mounts))) -}}
{{- $errors = append $errors (printf "extraVolumeMounts: extraVolumes has no %q" .name) -}}
{{- end -}}
{{- if has (clean (toString .mountPath)) (concat $paths (list "/" "/usr" "/usr/local" "/usr/local/bin")) -}}
{{- $errors = append $errors (printf "extraVolumeMounts: %s is taken, choose another mountPath" .mountPath) -}}
{{- end -}}
{{- end -}}
{{- range $values.extraEnv -}}
{{- if regexMatch "://[^/?#]*@" .value -}}
{{- $errors = append $errors (printf "extraEnv: %s holds a login, which everybody who may read pods would see" .name) -}}
{{- end -}}
{{- end -}}

{{- if $sidecar -}}
{{- if and (not $envoyProxy) (not $values.sidecar.envoy.existingConfigMap) -}}
{{- $errors = append $errors "sidecar.envoy.existingConfigMap is not set: name the ConfigMap with Envoy's configuration" -}}
{{- end -}}
{{- if and (not $envoyProxy) $values.sidecar.envoy.preStopSeconds (semverCompare "<1.30-0" .Capabilities.KubeVersion.Version) -}}
{{- $errors = append $errors "sidecar.envoy.preStopSeconds needs Kubernetes 1.30: set it to 0" -}}
{{- end -}}
{{- if $values.service.clusterIP -}}
{{- $errors = append $errors "service.clusterIP has no effect with mode sidecar" -}}
{{- end -}}
{{- end -}}
{{- if $envoyProxy -}}
{{- if $values.autoscaling.enabled -}}
{{- $errors = append $errors "autoscaling.enabled has no effect with sidecar.attach EnvoyProxy: Envoy Gateway scales its pods" -}}
{{- end -}}
{{- if $values.networkPolicy.enabled -}}
{{- $errors = append $errors "networkPolicy.enabled is refused with sidecar.attach EnvoyProxy: it would cut off Envoy's own connections" -}}
{{- end -}}
{{- end -}}

{{- if $values.autoscaling.enabled -}}
{{- if gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas) -}}
{{- $errors = append $errors "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- $requests := default (dict) $values.resources.requests -}}
{{- if not $requests.cpu -}}
{{- $errors = append $errors "autoscaling.enabled needs resources.requests.cpu, of which it measures a share" -}}
{{- end -}}
{{- end -}}
{{- with $values.strategy.rollingUpdate -}}
{{- if and (has (toString .maxSurge) (list "0" "0%")) (has (toString .maxUnavailable) (list "0" "0%")) -}}
{{- $errors = append $errors "strategy.rollingUpdate: maxSurge and maxUnavailable cannot both be 0" -}}
{{- end -}}
{{- end -}}

{{- if and (ne $values.migration.mode "none") (not (or $values.migration.postgres.existingSecret $values.migration.postgres.url)) -}}
{{- $errors = append $errors "migration.postgres.existingSecret is not set: name the Secret with the login that migrates, or set migration.mode to none and run patgate migrate yourself" -}}
{{- end -}}

{{- if $values.admin.enabled -}}
{{- if not (regexMatch "^(https://[-.a-zA-Z0-9]+|http://(localhost|127[.]0[.]0[.]1|[[]::1[]]))(:[0-9]+)?/?$" $values.admin.url) -}}
{{- $errors = append $errors "admin.url is not set to a URL such as https://tokens.example.org, without a path; http:// is only for localhost" -}}
{{- end -}}
{{- if eq (int $values.admin.port) (int $values.admin.metricsPort) -}}
{{- $errors = append $errors "admin.port and admin.metricsPort are the same" -}}
{{- end -}}
{{- if not (or $values.admin.postgres.existingSecret $values.admin.postgres.url) -}}
{{- $errors = append $errors "admin.postgres.existingSecret is not set: name the Secret with the login of self-service" -}}
{{- end -}}
{{- if and $values.admin.httpRoute.enabled (not $values.admin.httpRoute.parentRefs) -}}
{{- $errors = append $errors "admin.httpRoute.parentRefs is empty: name the Gateway" -}}
{{- end -}}
{{- else if or $values.admin.ingress.enabled $values.admin.httpRoute.enabled -}}
{{- $errors = append $errors "admin.ingress and admin.httpRoute need admin.enabled" -}}
{{- end -}}

{{- with $values.tests.check -}}
{{- if and .tokenSecret (not .operatorSecret) -}}
{{- $errors = append $errors "tests.check.tokenSecret needs tests.check.operatorSecret, with whose login the answer is compared" -}}
{{- end -}}
{{- if and .tokenSecret $sidecar -}}
{{- $errors = append $errors "tests.check.tokenSecret has no effect with mode sidecar: only Envoy reaches the socket" -}}
{{- end -}}
{{- if and .tokenSecret $values.grpc.tls.clientNames -}}
{{- $errors = append $errors "tests.check.tokenSecret has no certificate to show, which grpc.tls.clientNames asks for" -}}
{{- end -}}
{{- end -}}

{{- if $errors -}}
{{- fail (printf "\n\nThe values of patgate have errors:\n- %s\n" (join "\n- " $errors)) -}}
{{- end -}}
{{- end -}}
