{{- define "patgate.egress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{ toYaml .Values.networkPolicy.egress }}
{{- end -}}

{{/* For pods that no client connects to. */}}
{{- define "patgate.egressOnly" -}}
policyTypes:
  - Ingress
  {{- if .Values.networkPolicy.egress }}
  - Egress
egress:
  {{- include "patgate.egress" . | nindent 2 }}
  {{- end }}
{{- end -}}
