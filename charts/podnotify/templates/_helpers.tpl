{{- /* A StatefulSet's pods have a label with its name, a hyphen and 10 characters more. */ -}}
{{- define "chart.fullname" -}}
{{- $length := ternary 52 63 (eq .Values.kind "StatefulSet") -}}
{{- .Values.fullnameOverride | default .Release.Name | replace "." "-" | trunc $length | trimAll "-" -}}
{{- end -}}

{{- define "chart.headlessName" -}}
{{- include "chart.fullname" . | trunc 54 | trimAll "-" -}}-headless
{{- end -}}

{{- define "chart.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "chart.labels" -}}
{{ include "chart.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- include "chart.ownLabels" (list "commonLabels" .Values.commonLabels) }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Without the versions: an upgrade of the chart that changes nothing else restarts no daemon. */ -}}
{{- define "chart.podLabels" -}}
{{ include "chart.selectorLabels" . }}
{{- include "chart.ownLabels" (list "commonLabels" .Values.commonLabels) }}
{{- include "chart.ownLabels" (list "podLabels" .Values.podLabels) }}
{{- with mergeOverwrite (dict) (.Values.commonLabels | default dict) (.Values.podLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Refuses the labels that the chart sets. Takes the name of a value, and the value. */ -}}
{{- define "chart.ownLabels" -}}
{{- $value := index . 0 -}}
{{- range $label, $_ := index . 1 -}}
{{- if has $label (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart") -}}
{{- fail (printf "%s has %s, which the chart sets: leave it out; for app.kubernetes.io/name, set nameOverride" $value $label) -}}
{{- end -}}
{{- end -}}
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
{{- $repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else if $image.tag }}:{{ $image.tag }}{{ end -}}
{{- end -}}

{{- /* Takes an id that may be "", none at all, or 0, and the one in place of the former two. */ -}}
{{- define "chart.id" -}}
{{- $id := index . 0 -}}
{{- if or (kindIs "invalid" $id) (eq (toString $id) "") -}}{{- $id = index . 1 -}}{{- end -}}
{{- int64 $id -}}
{{- end -}}

{{- /* The user's security context, without what the kernel's rule for signals decides. */ -}}
{{- define "chart.podSecurityContext" -}}
{{- $user := int .Values.runAsUser -}}
{{- $ours := dict "runAsUser" $user "runAsGroup" (include "chart.id" (list .Values.runAsGroup $user) | int) "fsGroup" (include "chart.id" (list .Values.fsGroup $user) | int) "runAsNonRoot" (ne $user 0) -}}
{{- toYaml (mergeOverwrite (deepCopy (.Values.podSecurityContext | default dict)) $ours) -}}
{{- end -}}

{{- /* Takes the root and the type of a Service. podnotify's answers are for inside the cluster. */ -}}
{{- define "chart.servicePorts" -}}
{{- $type := index . 1 -}}
{{- $values := (index . 0).Values -}}
{{- range $values.daemon.ports }}
{{- if and (eq (int .containerPort) (int $values.podnotify.port)) (eq (.protocol | default "TCP") "TCP") }}
{{- fail (printf "daemon.ports has %d, where podnotify answers: containers of a pod share their ports; set podnotify.port to another" (int .containerPort)) }}
{{- end }}
- name: {{ .name | quote }}
  port: {{ .containerPort }}
  targetPort: {{ .containerPort }}
  protocol: {{ .protocol | default "TCP" }}
{{- end }}
{{- if eq $type "ClusterIP" }}
- name: podnotify
  port: {{ $values.podnotify.port }}
  targetPort: {{ $values.podnotify.port }}
{{- else if not $values.daemon.ports }}
{{- fail (printf "service.type is %s, and there is nothing to publish: podnotify's answers stay inside the cluster; list daemon.ports, or set service.type to ClusterIP" $type) }}
{{- end }}
{{- end -}}
