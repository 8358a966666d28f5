{{- define "patgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Leaves room for the suffixes of the other names: 63 characters is the limit of a Service. */}}
{{- define "patgate.fullname" -}}
{{- $name := include "patgate.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selectors hold. Kubernetes cannot change them, so a release of the chart must not either. */}}
{{- define "patgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "patgate.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end -}}

{{- define "patgate.labels" -}}
{{- with omit .root.Values.commonLabels "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" "patgate/service" -}}
{{- toYaml . }}
{{ end -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "patgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
{{- end -}}

{{/* Without the chart's version, so that a new chart restarts no pod by its labels alone. */}}
{{- define "patgate.podLabels" -}}
{{- with omit (merge (dict) .root.Values.podLabels .root.Values.commonLabels) "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- toYaml . }}
{{ end -}}
{{ include "patgate.selectorLabels" . }}
{{- end -}}

{{/* The API server refuses the one with the other. */}}
{{- define "patgate.strategy" -}}
{{- if eq .Values.strategy.type "Recreate" -}}
type: Recreate
{{- else -}}
{{- toYaml .Values.strategy -}}
{{- end -}}
{{- end -}}

{{/* The pods that run `patgate serve`. */}}
{{- define "patgate.serveComponent" -}}
{{- if eq .Values.mode "sidecar" -}}gateway{{- else -}}serve{{- end -}}
{{- end -}}

{{- define "patgate.workloadName" -}}
{{- include "patgate.fullname" . -}}{{- if eq .Values.mode "sidecar" -}}-gateway{{- end -}}
{{- end -}}

{{- define "patgate.envoyProxyMode" -}}
{{- if and (eq .Values.mode "sidecar") (eq .Values.sidecar.attach "EnvoyProxy") -}}true{{- end -}}
{{- end -}}

{{- define "patgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "patgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Hooks run before the chart's own service account exists. */}}
{{- define "patgate.hookServiceAccountName" -}}
{{- if .Values.serviceAccount.create -}}default{{- else -}}{{- include "patgate.serviceAccountName" . -}}{{- end -}}
{{- end -}}

{{- define "patgate.image" -}}
{{- $image := .image -}}
{{- $registry := default $image.registry .root.Values.imageRegistry -}}
{{- with $registry -}}{{- trimSuffix "/" . -}}/{{- end -}}
{{- $image.repository -}}
{{- if $image.digest -}}@{{ $image.digest }}{{- else -}}:{{ default .root.Chart.AppVersion $image.tag }}{{- end -}}
{{- end -}}

{{- define "patgate.job" -}}
{{- default (include "patgate.fullname" .) .Values.metrics.job -}}
{{- end -}}

{{- define "patgate.adminHost" -}}
{{- regexFind "//[^/:]+" .Values.admin.url | trimPrefix "//" -}}
{{- end -}}

{{- define "patgate.listen" -}}
{{- $network := .Values.network -}}
{{- if $network.listenAddress -}}
{{- $network.listenAddress -}}
{{- else if or (has "IPv6" $network.ipFamilies) (hasSuffix "DualStack" $network.ipFamilyPolicy) -}}
[::]
{{- else -}}
0.0.0.0
{{- end -}}
{{- end -}}

{{- define "patgate.ipFamilies" -}}
{{- with .Values.network.ipFamilyPolicy }}
ipFamilyPolicy: {{ . | quote }}
{{- end }}
{{- with .Values.network.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
