{{- define "chart.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | replace "." "-" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "chart.headlessName" -}}
{{- include "chart.fullname" . | trunc 54 | trimSuffix "-" -}}-headless
{{- end -}}

{{- define "chart.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "chart.labels" -}}
{{ include "chart.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "chart.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "chart.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "chart.daemonImage" -}}
{{- $image := .Values.daemon.image -}}
{{- $repository := required "daemon.image.repository is empty: set it to the image of your daemon, for example --set daemon.image.repository=redis" $image.repository -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag }}
{{- end -}}
{{- end -}}

{{- /* The user's security context, without what the kernel's rule for signals decides. */ -}}
{{- define "chart.podSecurityContext" -}}
{{- $user := int .Values.runAsUser -}}
{{- $ours := dict "runAsUser" $user "runAsGroup" (int (toString .Values.runAsGroup | default $user)) "fsGroup" (int (toString .Values.fsGroup | default $user)) "runAsNonRoot" (ne $user 0) -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.podSecurityContext) $ours) -}}
{{- end -}}

{{- define "chart.servicePorts" -}}
{{- range .Values.daemon.ports }}
- name: {{ .name }}
  port: {{ .containerPort }}
  targetPort: {{ .containerPort }}
  protocol: {{ .protocol | default "TCP" }}
{{- end }}
- name: podnotify
  port: {{ .Values.podnotify.port }}
  targetPort: {{ .Values.podnotify.port }}
{{- end -}}
