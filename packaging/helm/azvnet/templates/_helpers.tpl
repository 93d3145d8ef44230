{{- define "azvnet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "azvnet.fullname" -}}
{{- $name := include "azvnet.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "azvnet.serviceAccount" -}}
{{- default (include "azvnet.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "azvnet.selector" -}}
app.kubernetes.io/name: {{ include "azvnet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "azvnet.labels" -}}
{{ include "azvnet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: cni
{{- end }}

{{- define "azvnet.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "azvnet.conflist" -}}
{{- if .Values.network.conflist -}}
{{ toPrettyJson .Values.network.conflist }}
{{- else -}}
{{- with .Values.network -}}
{
  "cniVersion": "1.0.0",
  "name": {{ toJson .name }},
  "plugins": [
    {
      "type": "azvnet",
      "mode": "transparent",
      {{- with .master }}
      "master": {{ toJson . }},
      {{- end }}
      {{- with .mtu }}
      "mtu": {{ toJson . }},
      {{- end }}
      "ipam": {
        "type": "azvnet-ipam",
        "environment": {{ toJson .source }},
        {{- if eq .source "file" }}
        "file": {{ toJson .file }},
        {{- end }}
        "cooldown": {{ toJson .cooldown }}
      }
    }
    {{- if .portmap }},
    {
      "type": "portmap",
      "capabilities": { "portMappings": true },
      "snat": true
    }
    {{- end }}
    {{- range .plugins }},
    {{ toJson . }}
    {{- end }}
  ]
}
{{- end -}}
{{- end -}}
{{- end }}
