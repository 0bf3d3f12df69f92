{{- /* A pod template; Deployment, StatefulSet and DaemonSet have the same. */ -}}
{{- define "chart.pod" -}}
{{- $d := .Values.daemon -}}
metadata:
  labels:
    {{- include "chart.podLabels" . | trim | nindent 4 }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if eq (include "podnotify.shareProcessNamespace" .) "true" }}
  # podnotify sees the daemon's processes, and the daemon is not process 1, which cannot stop itself.
  shareProcessNamespace: true
  {{- end }}
  terminationGracePeriodSeconds: {{ include "podnotify.terminationGracePeriodSeconds" (list . .Values.terminationGracePeriodSeconds) }}
  serviceAccountName: {{ include "chart.serviceAccountName" . | quote }}
  automountServiceAccountToken: false
  # One user for the daemon and podnotify: the kernel permits signals within a user.
  securityContext: {{- include "chart.podSecurityContext" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $init := include "podnotify.initContainers" . | trim }}
  {{- if or .Values.initContainers $init }}
  initContainers:
    {{- with .Values.initContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $init }}
    {{- . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    {{- range concat (.Values.initContainers | default list) (.Values.extraContainers | default list) }}
    {{- if has .name (list (include "podnotify.name" $) "podnotify" "podnotify-install") }}
    {{- fail (printf "initContainers or extraContainers has %s, which the chart has already: call it something else" .name) }}
    {{- end }}
    {{- end }}
    - name: {{ include "podnotify.name" . | quote }} # like the service: so podnotify knows which container it is
      image: {{ include "chart.daemonImage" . | quote }}
      imagePullPolicy: {{ $d.image.pullPolicy }}
      {{- if eq .Values.podnotify.mode "run" }}
      {{- if not $d.command }}
      {{- fail "podnotify.mode is \"run\": podnotify stands in front of the daemon's command, and cannot see the image's; set daemon.command" }}
      {{- end }}
      command:
        {{- include "podnotify.command" . | nindent 8 }}
        {{- toYaml $d.command | nindent 8 }}
      {{- else if $d.command }}
      command: {{- toYaml $d.command | nindent 8 }}
      {{- end }}
      {{- with $d.args }}
      args: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $d.workingDir }}
      workingDir: {{ . | quote }}
      {{- end }}
      {{- $env := include "podnotify.env" . | trim }}
      {{- range $own := $env | fromYamlArray }}
      {{- range $d.env }}
      {{- if eq .name $own.name }}
      {{- fail (printf "daemon.env has %s, and %s is podnotify's to set: leave it out" .name .name) }}
      {{- end }}
      {{- end }}
      {{- end }}
      {{- if or $env $d.env }}
      env:
        {{- with $env }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $d.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- with $d.envFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- $ports := include "podnotify.ports" . | trim }}
      {{- if or $ports $d.ports }}
      ports:
        {{- with $ports }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $d.ports }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      # Answered by podnotify: the containers of a pod share its address.
      {{- include "podnotify.probes" . | trim | nindent 6 }}
      {{- with $d.lifecycle }}
      lifecycle: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $d.resources }}
      resources: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $d.securityContext }}
      securityContext: {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        {{- include "podnotify.volumeMounts" . | trim | nindent 8 }}
        {{- with $d.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "podnotify.volumes" . | trim | nindent 4 }}
    {{- with .Values.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
{{- end -}}
