{{- /*
The templates of podnotify. All take the chart's root context, with podnotify-lib's values under .Values.podnotify.

In the pod's spec:
  shareProcessNamespace          {{ include "podnotify.shareProcessNamespace" . }}
  terminationGracePeriodSeconds  {{ include "podnotify.terminationGracePeriodSeconds" (list . .Values.terminationGracePeriodSeconds) }}
  initContainers, at the end     {{ include "podnotify.initContainers" . | nindent 4 }}
  volumes                        {{ include "podnotify.volumes" . | nindent 4 }}
In the daemon's container, which is called {{ include "podnotify.name" . }}:
  env, volumeMounts, ports       {{ include "podnotify.env" . }} and so on; each may be empty
  the probes                     {{ include "podnotify.probes" . }}
  command, in mode run           {{ include "podnotify.command" . }}
*/ -}}

{{- /* The service and the daemon's container. */ -}}
{{- define "podnotify.name" -}}
{{- .Values.podnotify.name | default (.Release.Name | replace "." "-" | trunc 63 | trimAll "-") -}}
{{- end -}}

{{- define "podnotify.image" -}}
{{- $image := .Values.podnotify.image -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else if $image.tag }}:{{ $image.tag }}{{ end -}}
{{- end -}}

{{- /* A duration in milliseconds. */ -}}
{{- define "podnotify.milliseconds" -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" (toString .) -1 -}}
{{- $unit := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (regexFind "[a-z]+$" .) -}}
{{- $total = add $total (mul (regexFind "^[0-9]+" . | atoi) $unit) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{- define "podnotify.seconds" -}}
{{- div (add (include "podnotify.milliseconds" . | atoi) 999) 1000 -}}
{{- end -}}

{{- /* Whether the daemon's container needs podnotify's programs. */ -}}
{{- define "podnotify.needsBinary" -}}
{{- $live := .Values.podnotify.probes.liveness -}}
{{- if or (eq .Values.podnotify.mode "run") (and $live.enabled (eq $live.handler "exec")) -}}true{{- end -}}
{{- end -}}

{{- /* Values that contradict each other, each with the cure. */ -}}
{{- define "podnotify.check" -}}
{{- $p := .Values.podnotify -}}
{{- $respawn := $p.config.respawn.mode -}}
{{- if has (include "podnotify.name" .) (list "control" "lock" "state") -}}
  {{- fail (printf "the service would be called %s, as a file of podnotify's own is: set podnotify.name" (include "podnotify.name" .)) -}}
{{- end -}}
{{- if eq $p.mode "run" -}}
  {{- if eq $respawn "pod" -}}
    {{- fail "podnotify.config.respawn.mode is \"pod\": the exit code of podnotify run is the daemon's own, so it cannot ask for that; set podnotify.mode to sidecar, or respawn.mode to exec" -}}
  {{- end -}}
{{- else -}}
  {{- if eq (include "podnotify.name" .) "podnotify" -}}
    {{- fail "the daemon's container would be called podnotify, as podnotify's own is: set podnotify.name" -}}
  {{- end -}}
  {{- if has $p.config.expect (list "fork" "daemon") -}}
    {{- fail (printf "podnotify.config.expect is %q: only a parent sees forks; set podnotify.mode to run" $p.config.expect) -}}
  {{- end -}}
  {{- if eq $respawn "exec" -}}
    {{- fail "podnotify.config.respawn.mode is \"exec\": only a parent starts the daemon again; set podnotify.mode to run, or respawn.mode to signal" -}}
  {{- end -}}
  {{- if $p.config.fdstore.max -}}
    {{- fail "podnotify.config.fdstore.max is set: only a parent hands descriptors back; set podnotify.mode to run, or leave it out" -}}
  {{- end -}}
{{- end -}}
{{- if and (eq $p.config.expect "pidfile") (not $p.config.select.pidfile) -}}
  {{- fail "podnotify.config.expect is \"pidfile\": name the file in podnotify.config.select.pidfile" -}}
{{- end -}}
{{- /* The same language as podnotify's: what is none ends the rendering, with the reason. */ -}}
{{- $_ := mustRegexMatch ($p.config.select.process | default "") "" -}}
{{- if and (eq $p.config.policy.unknown "reload") (not $p.config.signals.reload) -}}
  {{- fail "podnotify.config.policy.unknown is \"reload\": set podnotify.config.signals.reload; HUP ends some daemons" -}}
{{- end -}}
{{- if and (eq $p.config.policy.unknown "restart") (eq "0" (include "podnotify.milliseconds" $p.config.timeouts.start)) -}}
  {{- fail "podnotify.config.policy.unknown is \"restart\": that is after podnotify.config.timeouts.start, and 0 is never; set podnotify.config.timeouts.start" -}}
{{- end -}}
{{- if eq $respawn "pod" -}}
  {{- if semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version -}}
    {{- fail (printf "podnotify.config.respawn.mode is \"pod\": RestartAllContainers is on by default from Kubernetes 1.36, this is %s; set it to signal" .Capabilities.KubeVersion.Version) -}}
  {{- end -}}
{{- end -}}
{{- if and (include "podnotify.needsBinary" .) (eq $p.binaryFrom "imageVolume") (semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version) -}}
  {{- fail (printf "podnotify.binaryFrom is \"imageVolume\": Kubernetes has them from 1.31 by feature gate and from 1.35 by default, this is %s; set it to initContainer" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- with $p.probes.startup -}}
  {{- if and .enabled .budgetSeconds (le (int .budgetSeconds) (include "podnotify.seconds" $p.config.timeouts.start | int)) -}}
    {{- fail (printf "podnotify.probes.startup.budgetSeconds is %d, and podnotify.config.timeouts.start is %s: kubelet would end a start that podnotify still waits for; set the budget to more, or to 0" (int .budgetSeconds) $p.config.timeouts.start) -}}
  {{- end -}}
  {{- if and .enabled (not .budgetSeconds) (eq "0" (include "podnotify.seconds" $p.config.timeouts.start)) -}}
    {{- fail "podnotify.probes.startup is on, and podnotify.config.timeouts.start is 0, which is no limit: set podnotify.probes.startup.budgetSeconds" -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "podnotify.shareProcessNamespace" -}}
{{- ne .Values.podnotify.mode "run" -}}
{{- end -}}

{{- /* Takes a list: the context, and the value that the user gave, if any. */ -}}
{{- define "podnotify.terminationGracePeriodSeconds" -}}
{{- $stop := (index . 0).Values.podnotify.config.timeouts.stop -}}
{{- $given := "" -}}
{{- if not (kindIs "invalid" (index . 1)) -}}{{- $given = toString (index . 1) -}}{{- end -}}
{{- $seconds := include "podnotify.seconds" $stop | int -}}
{{- if and (not $seconds) (not $given) -}}
  {{- fail "podnotify.config.timeouts.stop is 0, which is no limit: set terminationGracePeriodSeconds" -}}
{{- end -}}
{{- if and $given (lt (int $given) (add $seconds 5 | int)) -}}
  {{- fail (printf "terminationGracePeriodSeconds is %s, and podnotify.config.timeouts.stop is %s: kubelet would kill a daemon that is still allowed to stop; set at least %d, or a shorter timeouts.stop" $given (toString $stop) (add $seconds 5)) -}}
{{- end -}}
{{- $given | default (add $seconds 5) -}}
{{- end -}}

{{- /* The flags of podnotify sidecar and podnotify run: each key that is set. */ -}}
{{- define "podnotify.args" -}}
{{- $p := .Values.podnotify -}}
- --service={{ include "podnotify.name" . }}
- --listen=:{{ $p.port }}
{{- with $p.logLevel }}
- --log-level={{ . }}
{{- end }}
{{- range $key, $value := $p.config }}
{{- $section := $value }}
{{- if not (kindIs "map" $value) }}{{ $section = dict "" $value }}{{ end }}
{{- range $sub, $v := $section }}
{{- if kindIs "slice" $v }}{{ $v = join "," $v }}{{ end }}
{{- if kindIs "float64" $v }}{{ $v = int64 $v }}{{ end }}
{{- /* kubelet takes $(NAME) and $$ in arguments for its own; what else has a $ is a regular expression. */ -}}
{{- if eq $sub "process" }}{{ $v = replace "$" "$$" $v }}{{ end }}
{{- if ne (toString $v) "" }}
- {{ printf "--%s=%v" (list $key $sub | compact | join "-") $v | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Mode run: in front of the daemon's command. */ -}}
{{- define "podnotify.command" -}}
{{- if eq .Values.podnotify.mode "run" -}}
- /podnotify-bin/podnotify
- run
{{ include "podnotify.args" . }}
- --
{{- end -}}
{{- end -}}

{{- define "podnotify.initContainers" -}}
{{- include "podnotify.check" . -}}
{{- $p := .Values.podnotify -}}
{{- if and (include "podnotify.needsBinary" .) (eq $p.binaryFrom "initContainer") }}
- name: podnotify-install
  image: {{ include "podnotify.image" . | quote }}
  imagePullPolicy: {{ $p.image.pullPolicy }}
  args: [install, /podnotify-bin]
  resources: {{- toYaml ($p.resources | default dict) | nindent 4 }}
  securityContext: {{- toYaml ($p.securityContext | default dict) | nindent 4 }}
  volumeMounts:
    - {name: podnotify-bin, mountPath: /podnotify-bin}
{{- end }}
{{- if eq $p.mode "sidecar" }}
- name: podnotify
  image: {{ include "podnotify.image" . | quote }}
  imagePullPolicy: {{ $p.image.pullPolicy }}
  # A native sidecar: there before the daemon starts, and until after it has ended.
  restartPolicy: Always
  {{- if eq $p.config.respawn.mode "pod" }}
  # podnotify exits with 79 when the daemon is to be started again with all the pod has.
  restartPolicyRules:
    - action: RestartAllContainers
      exitCodes: {operator: In, values: [79]}
  {{- end }}
  args:
    - sidecar
    {{- include "podnotify.args" . | nindent 4 }}
    - --select-container={{ include "podnotify.name" . }}
  env:
    - {name: PODNOTIFY_RUN_DIR, value: /run/podnotify}
    - {name: PODNOTIFY_ADDRESS, value: "http://127.0.0.1:{{ $p.port }}"} # for podnotify status
    {{- with $p.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: podnotify, containerPort: {{ $p.port }}}
  # These are about podnotify, never about the daemon. The daemon is started when the
  # first one has succeeded: then its socket is there.
  startupProbe:
    httpGet: {path: /healthz, port: {{ $p.port }}}
    periodSeconds: 1
    timeoutSeconds: 3
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /healthz, port: {{ $p.port }}}
    periodSeconds: 10
    timeoutSeconds: 3
  lifecycle:
    # The pod goes down: not ready from now on, and a stopped daemon is continued, or the
    # signal to end would not reach it.
    preStop:
      exec: {command: [/podnotify, prestop]}
  resources: {{- toYaml ($p.resources | default dict) | nindent 4 }}
  securityContext: {{- toYaml ($p.securityContext | default dict) | nindent 4 }}
  volumeMounts:
    - {name: podnotify-run, mountPath: /run/podnotify}
    {{- with $p.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "podnotify.volumes" -}}
{{- $p := .Values.podnotify -}}
- name: podnotify-run
  emptyDir: {medium: Memory, sizeLimit: 4Mi}
{{- if include "podnotify.needsBinary" . }}
- name: podnotify-bin
  {{- if eq $p.binaryFrom "imageVolume" }}
  image: {reference: {{ include "podnotify.image" . | quote }}, pullPolicy: {{ $p.image.pullPolicy }}}
  {{- else }}
  emptyDir: {sizeLimit: 64Mi}
  {{- end }}
{{- end }}
{{- if $p.sdBooted }}
- name: podnotify-booted
  emptyDir: {medium: Memory, sizeLimit: 64Ki}
{{- end }}
{{- end -}}

{{- /* What the daemon's container mounts: its own socket, and nothing of what podnotify keeps. */ -}}
{{- define "podnotify.volumeMounts" -}}
{{- $p := .Values.podnotify -}}
{{- if eq $p.mode "run" }}
- {name: podnotify-run, mountPath: /run/podnotify}
{{- else }}
- {name: podnotify-run, mountPath: /run/podnotify/{{ include "podnotify.name" . }}, subPath: {{ include "podnotify.name" . | quote }}, readOnly: true}
{{- end }}
{{- if include "podnotify.needsBinary" . }}
- {name: podnotify-bin, mountPath: /podnotify-bin, readOnly: true}
{{- end }}
{{- if $p.sdBooted }}
- {name: podnotify-booted, mountPath: /run/systemd/system, readOnly: true}
{{- end }}
{{- end -}}

{{- /* What the daemon finds in its environment. podnotify run sets that itself, and needs its own directory. */ -}}
{{- define "podnotify.env" -}}
{{- $p := .Values.podnotify -}}
{{- $expect := $p.config.expect -}}
{{- if eq $p.mode "run" }}
- {name: PODNOTIFY_RUN_DIR, value: /run/podnotify}
- {name: PODNOTIFY_ADDRESS, value: "http://127.0.0.1:{{ $p.port }}"} # for podnotify status
{{- with $p.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- else }}
{{- if has $expect (list "auto" "notify") }}
- {name: NOTIFY_SOCKET, value: /run/podnotify/{{ include "podnotify.name" . }}/notify}
{{- end }}
{{- if or (eq $expect "stop") (and (eq $expect "auto") $p.config.job) }}
- {name: UPSTART_JOB, value: {{ $p.config.job | default (include "podnotify.name" .) | quote }}}
{{- end }}
{{- $watchdog := include "podnotify.milliseconds" $p.config.watchdog.interval }}
{{- if ne $watchdog "0" }}
- {name: WATCHDOG_USEC, value: {{ mul $watchdog 1000 | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- /* In mode run podnotify's port is one of the daemon's container. */ -}}
{{- define "podnotify.ports" -}}
{{- if eq .Values.podnotify.mode "run" }}
- {name: podnotify, containerPort: {{ .Values.podnotify.port }}}
{{- end }}
{{- end -}}

{{- define "podnotify.probes" -}}
{{- $p := .Values.podnotify -}}
{{- $name := include "podnotify.name" . -}}
{{- with $p.probes.startup -}}
{{- if .enabled }}
{{- $budget := .budgetSeconds | default (add 30 (include "podnotify.seconds" $p.config.timeouts.start)) }}
startupProbe:
  httpGet: {path: /startupz/{{ $name }}, port: {{ $p.port }}}
  periodSeconds: {{ .periodSeconds }}
  timeoutSeconds: {{ .timeoutSeconds }}
  failureThreshold: {{ div (sub (add $budget .periodSeconds) 1) .periodSeconds }}
{{- end }}
{{- end }}
{{- with $p.probes.readiness }}
{{- if .enabled }}
readinessProbe:
  httpGet: {path: /readyz/{{ $name }}, port: {{ $p.port }}}
  periodSeconds: {{ .periodSeconds }}
  timeoutSeconds: {{ .timeoutSeconds }}
  failureThreshold: {{ .failureThreshold }}
{{- end }}
{{- end }}
{{- with $p.probes.liveness }}
{{- if .enabled }}
livenessProbe:
{{- if eq .handler "exec" }}
  # No answer is a yes: podnotify's own trouble is not the daemon's.
  exec:
    command: [/podnotify-bin/podnotify-healthcheck, live, --fail-open, --service={{ $name }}, --address=http://127.0.0.1:{{ $p.port }}]
  periodSeconds: {{ .exec.periodSeconds }}
  timeoutSeconds: {{ .exec.timeoutSeconds }}
  failureThreshold: {{ .exec.failureThreshold }}
{{- else }}
  # Slow on purpose: podnotify in crash back-off, up to 5 minutes, must not end the daemon.
  httpGet: {path: /livez/{{ $name }}, port: {{ $p.port }}}
  periodSeconds: {{ .httpGet.periodSeconds }}
  timeoutSeconds: {{ .httpGet.timeoutSeconds }}
  # The first no may come at once: n of them take n-1 periods.
  failureThreshold: {{ add 1 (div (sub (add .httpGet.budgetSeconds .httpGet.periodSeconds) 1) .httpGet.periodSeconds) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
