{{- define "dispatcher.fullname" -}}
{{- if contains "dispatcher" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-dispatcher" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "dispatcher.image" -}}
{{- with .Values.image }}{{ if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{/* The label `name` is the job in Prometheus, which the alert rules expect to be `dispatcher`. */}}
{{- define "dispatcher.selector" -}}
app.kubernetes.io/name: dispatcher
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dispatcher.labels" -}}
{{ include "dispatcher.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Of every pod. No token of the cluster: the program calls no API of it. No service links: their variables would begin with
DISPATCHER_, like settings. */}}
{{- define "dispatcher.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Of every container. */}}
{{- define "dispatcher.container" -}}
image: {{ include "dispatcher.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "dispatcher.env" -}}
- {name: DISPATCHER_SECRETS, value: /run/secrets/dispatcher}
- {name: DISPATCHER_PUBLIC_URL, value: {{ .Values.publicUrl | quote }}}
- {name: DISPATCHER_METRICS_HOST, value: 0.0.0.0}
{{- if .Values.sandbox.enabled }}
- {name: DISPATCHER_SANDBOX_URL, value: "http://{{ include "dispatcher.fullname" . }}:8025"}
{{- end }}
{{- if .Values.canaries.enabled }}
- {name: DISPATCHER_CANARIES, value: "on"}
- {name: DISPATCHER_CANARY_WEB_URL, value: "http://{{ include "dispatcher.fullname" . }}"}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "dispatcher.mounts" -}}
- {name: home, mountPath: /var/lib/dispatcher}
- {name: tmp, mountPath: /tmp}
- {name: secrets, mountPath: /run/secrets/dispatcher, readOnly: true}
{{- if .Values.shared.claim }}
- {name: shared, mountPath: /var/lib/dispatcher/audiences, subPath: audiences}
{{- if .Values.sandbox.enabled }}
- {name: shared, mountPath: /var/lib/dispatcher/sandbox, subPath: sandbox}
{{- end }}
{{- end }}
{{- end }}

{{/* A list: the root, and the name of the Secret. */}}
{{- define "dispatcher.volumes" -}}
{{- $root := index . 0 -}}
- {name: home, emptyDir: {}}
- {name: tmp, emptyDir: {}}
- {name: secrets, secret: {secretName: {{ index . 1 | default $root.Values.secrets.name }}, defaultMode: 0440}}
{{- if $root.Values.shared.claim }}
- {name: shared, persistentVolumeClaim: {claimName: {{ $root.Values.shared.claim }}}}
{{- end }}
{{- end }}

{{/* A worker's parent answers here while it lives. Whether its lane makes progress is for alerts, not for restarts: a restart would
not mend a database that is away. */}}
{{- define "dispatcher.metricsProbes" -}}
startupProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 3
{{- end }}
