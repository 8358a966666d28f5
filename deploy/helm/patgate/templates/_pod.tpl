{{/* The variables of a container of patgate: names of files, and what `extraEnv` adds. */}}
{{- define "patgate.env" -}}
{{- range $name, $value := .parts.env }}
- name: {{ $name | quote }}
  value: {{ $value | quote }}
{{- end }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "patgate.volumeMounts" -}}
{{- range $name, $mount := .parts.mounts }}
- name: {{ $name | quote }}
  mountPath: {{ $mount.path | quote }}
  {{- if not (hasKey $mount "emptyDir") }}
  readOnly: true
  {{- end }}
{{- end }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The user can read the files of Secrets through `fsGroup`; other users cannot. */}}
{{- define "patgate.volumes" -}}
{{- range $name, $mount := .mounts }}
- name: {{ $name | quote }}
  {{- if hasKey $mount "secret" }}
  secret:
    secretName: {{ $mount.secret | quote }}
    defaultMode: 0440
  {{- else if hasKey $mount "configMap" }}
  configMap:
    name: {{ $mount.configMap | quote }}
    defaultMode: 0444
  {{- else }}
  emptyDir:
    medium: {{ $mount.emptyDir | quote }}
    sizeLimit: 1Mi
  {{- end }}
{{- end }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "patgate.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop:
    - ALL
readOnlyRootFilesystem: true
{{- end -}}

{{/* What all pods have in common. The token of the service account is never mounted. */}}
{{- define "patgate.podCommon" -}}
serviceAccountName: {{ .serviceAccountName | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "patgate.topologySpread" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- with $root.Values.topologySpread }}
{{- if and .enabled .topologyKeys }}
topologySpreadConstraints:
  {{- $spread := . }}
  {{- range .topologyKeys }}
  - topologyKey: {{ . | quote }}
    maxSkew: {{ int $spread.maxSkew }}
    whenUnsatisfiable: {{ $spread.whenUnsatisfiable | quote }}
    labelSelector:
      matchLabels:
        {{- include "patgate.selectorLabels" (dict "root" $root "component" $component) | nindent 8 }}
    # Each rollout counts its own pods.
    matchLabelKeys:
      - pod-template-hash
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A container that runs `patgate serve`, in a pod of its own or beside Envoy. */}}
{{- define "patgate.serveContainer" -}}
{{- $parts := include "patgate.serveParts" . | fromYaml -}}
{{- $sidecar := eq .Values.mode "sidecar" -}}
{{- $scheme := ternary "HTTPS" "HTTP" (not (empty .Values.http.tls.existingSecret)) -}}
name: patgate
image: {{ include "patgate.image" (dict "root" . "image" .Values.image) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
args:
  - serve
{{- if $sidecar }}
# A native sidecar: it starts before Envoy, and ends after it.
restartPolicy: Always
{{- end }}
env:
  {{- include "patgate.env" (dict "parts" $parts "extra" .Values.extraEnv) | trim | nindent 2 }}
ports:
  {{- if not $sidecar }}
  - name: grpc
    containerPort: {{ int .Values.grpc.port }}
    protocol: TCP
  {{- end }}
  - name: http-metrics
    containerPort: {{ int .Values.http.port }}
    protocol: TCP
{{- if $sidecar }}
# Envoy starts once this has passed. It asks no store.
startupProbe:
  httpGet:
    path: /livez
    port: http-metrics
    scheme: {{ $scheme | quote }}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 60
{{- end }}
# Restarts a process that hangs. No store counts.
livenessProbe:
  httpGet:
    path: /livez
    port: http-metrics
    scheme: {{ $scheme | quote }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: http-metrics
    scheme: {{ $scheme | quote }}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 1
securityContext:
  {{- include "patgate.securityContext" . | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  {{- include "patgate.volumeMounts" (dict "parts" $parts "extra" .Values.extraVolumeMounts) | trim | nindent 2 }}
{{- end -}}

{{- define "patgate.migrationContainer" -}}
{{- $parts := include "patgate.migrationParts" . | fromYaml -}}
name: migrate
image: {{ include "patgate.image" (dict "root" . "image" .Values.image) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
args:
  - migrate
env:
  {{- include "patgate.env" (dict "parts" $parts "extra" (list)) | trim | nindent 2 }}
securityContext:
  {{- include "patgate.securityContext" . | nindent 2 }}
resources:
  {{- toYaml .Values.migration.resources | nindent 2 }}
{{- with include "patgate.volumeMounts" (dict "parts" $parts "extra" (list)) | trim }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The volumes of the pods that serve, with those of the migration if it runs there. */}}
{{- define "patgate.serveVolumes" -}}
{{- $mounts := (include "patgate.serveParts" . | fromYaml).mounts -}}
{{- if eq .Values.migration.mode "initContainer" -}}
{{- $mounts = merge $mounts (include "patgate.migrationParts" . | fromYaml).mounts -}}
{{- end -}}
{{- include "patgate.volumes" (dict "mounts" $mounts "extra" .Values.extraVolumes) -}}
{{- end -}}

{{/* Restarts the pods when settings change that patgate reads only at startup. */}}
{{- define "patgate.podAnnotations" -}}
{{- with omit .root.Values.podAnnotations "checksum/config" -}}
{{- toYaml . }}
{{ end -}}
checksum/config: {{ include "patgate.configFile" .parts | sha256sum | quote }}
{{- end -}}
