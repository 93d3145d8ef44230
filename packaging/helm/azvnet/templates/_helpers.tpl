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

{{- /* Not empty if the agent uses the API server: for pods that are bound to its node, or for its AzvnetNode. */}}
{{- define "azvnet.asksApi" -}}
{{- if and (ne .Values.agent.provision.mode "off") (not .Values.uninstall.enabled) -}}
true
{{- end -}}
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
{{- $ours := false -}}
{{- range .Values.network.conflist.plugins -}}
{{- if or (eq .type "azvnet") (eq (dig "ipam" "type" "" .) "azvnet-ipam") }}{{ $ours = true }}{{ end -}}
{{- end -}}
{{- if not $ours }}{{ fail "network.conflist: none of its plugins is azvnet, and none has ipam.type azvnet-ipam" }}{{ end -}}
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
      "capabilities": { "portMappings": true },
      {{- if not .ipMasq }}
      "ipMasq": false,
      {{- end }}
      {{- with .master }}
      "master": {{ toJson . }},
      {{- end }}
      {{- with .mtu }}
      "mtu": {{ toJson . }},
      {{- end }}
      "ipam": {
        "type": "azvnet-ipam",
        "environment": {{ toJson .source }},
        "file": {{ ternary .file "" (eq .source "file") | toJson }},
        {{- if and .families (ne (join "," .families) "IPv4") }}
        "families": {{ toJson .families }},
        {{- end }}
        {{- with .subnet }}
        "subnet": {{ toJson . }},
        {{- end }}
        {{- with .nic }}
        "nic": {{ toJson . }},
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

{{- /* What every pod on a node has in common: it works on the node itself. */}}
{{- define "azvnet.pod" -}}
# It configures the node's own network, and before that there is no other.
hostNetwork: true
dnsPolicy: Default
priorityClassName: {{ .Values.priorityClassName }}
serviceAccountName: {{ include "azvnet.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
nodeSelector:
  kubernetes.io/os: linux
  {{- with .Values.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  seccompProfile:
    type: RuntimeDefault
  {{- with .Values.seLinuxOptions }}
  seLinuxOptions:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* How a PodMonitor asks for metrics. */}}
{{- define "azvnet.scrape" -}}
port: metrics
path: /metrics
interval: {{ .Values.podMonitor.interval }}
scrapeTimeout: {{ .Values.podMonitor.scrapeTimeout }}
{{- with .Values.podMonitor.relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podMonitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
