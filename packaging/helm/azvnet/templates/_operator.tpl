{{- /* Anything at all where the operator is to run; says why it can't. */}}
{{- define "azvnet.withOperator" -}}
{{- if and (eq .Values.agent.provision.mode "operator") (not .Values.uninstall.enabled) -}}
{{- if not (semverCompare ">=1.32.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "agent.provision.mode=operator needs Kubernetes 1.32 or newer, this is %s: before, tokens do not say on which node an agent is, so none could be held to its own node. Use agent.provision.mode=node" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- with .Values.operator.arm -}}
{{- if and (eq .credential "workload-identity") (not (and .clientId .tenantId)) -}}
{{- fail "operator.arm.credential=workload-identity needs operator.arm.clientId and operator.arm.tenantId" -}}
{{- end -}}
{{- end -}}
true
{{- end -}}
{{- end }}

{{- define "azvnet.operator.fullname" -}}
{{ include "azvnet.fullname" . | trunc 54 | trimSuffix "-" }}-operator
{{- end }}

{{- define "azvnet.operator.serviceAccount" -}}
{{- default (include "azvnet.operator.fullname" .) .Values.operator.serviceAccount.name }}
{{- end }}

{{- define "azvnet.operator.selector" -}}
app.kubernetes.io/name: {{ include "azvnet.name" . | trunc 54 | trimSuffix "-" }}-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "azvnet.operator.labels" -}}
{{ include "azvnet.operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "azvnet.operator.image" -}}
{{- with .Values.operator.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "azvnet.operator.settings" -}}
{{- with .Values.operator -}}
{
  "arm": {
    "credential": {{ toJson .arm.credential }},
    "client_id": {{ toJson .arm.clientId }},
    "base_url": {{ toJson .arm.baseUrl }},
    "ca_file": {{ toJson .arm.caFile }}
  },
  "budget": {
    "share": {{ toJson .budget.share }},
    "first_poll_seconds": {{ toJson .budget.firstPollSeconds }}
  },
  "lease": {
    "name": {{ include "azvnet.operator.fullname" $ | toJson }},
    "seconds": {{ toJson .leaseSeconds }}
  },
  "workers": {{ int .workers }},
  "resource_groups": {{ toJson .resourceGroups }},
  "grace_seconds": {{ toJson .graceSeconds }},
  "metrics_address": {{ printf "%s:%d" (ternary "0.0.0.0" "127.0.0.1" .metrics.enabled) (int .port) | toJson }},
  "log_level": {{ toJson .logLevel }}
}
{{- end -}}
{{- end }}
