{{- define "sluice.labels" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "sluice.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag }}{{ end }}
{{- end }}

{{- define "sluice.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "sluice.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "sluice.database" -}}
postgresql://{{ .user }}@{{ .root.Values.database.host }}:{{ .root.Values.database.port }}/{{ .name }}?sslmode={{ .root.Values.database.sslmode }}&sslrootcert={{ if .root.Values.database.ca }}/run/secrets/service/postgres-ca.pem{{ else }}/etc/ssl/certs/ca-certificates.crt{{ end }}
{{- end }}

{{- define "sluice.environment" -}}
- { name: SLUICE_DATA_DIR, value: /var/lib/sluice }
- { name: SLUICE_LOG_FORMAT, value: json }
- { name: SLUICE_TEMPORAL_ADDRESS, value: {{ .root.Values.temporal.address | quote }} }
- { name: SLUICE_TEMPORAL_NAMESPACE, value: {{ .root.Values.temporal.namespace | quote }} }
- { name: SLUICE_TEMPORAL_TLS, value: {{ .root.Values.temporal.tls | quote }} }
{{- if .root.Values.temporal.ca }}
- { name: SLUICE_TEMPORAL_TLS_CA_FILE, value: /run/secrets/temporal/ca.crt }
{{- end }}
{{- if eq .root.Values.temporal.credentials "api-key" }}
- { name: SLUICE_TEMPORAL_API_KEY_FILE, value: /run/secrets/temporal/api.key }
{{- else if eq .root.Values.temporal.credentials "certificate" }}
- { name: SLUICE_TEMPORAL_TLS_CERT_FILE, value: /run/secrets/temporal/tls.crt }
- { name: SLUICE_TEMPORAL_TLS_KEY_FILE, value: /run/secrets/temporal/tls.key }
{{- end }}
{{- if ne .role "notices" }}
- { name: SLUICE_CODEC_KEYS_FILE, value: /run/secrets/service/codec.keys }
{{- end }}
- { name: SLUICE_STORE_URI, value: {{ .root.Values.store.uri | quote }} }
{{- if .root.Values.store.endpointUrl }}
- { name: SLUICE_S3_ENDPOINT_URL, value: {{ .root.Values.store.endpointUrl | quote }} }
{{- end }}
- { name: AWS_DEFAULT_REGION, value: {{ .root.Values.store.region | quote }} }
- { name: AWS_SHARED_CREDENTIALS_FILE, value: /run/secrets/service/s3.credentials }
- { name: SLUICE_CUSTODY_PUBLIC_FILE, value: {{ if eq .role "custody" }}/var/lib/sluice/public/custody-public.json{{ else }}/run/public/custody-public.json{{ end }} }
- { name: SLUICE_MONITOR_PUBLIC_FILE, value: {{ if eq .role "leaks" }}/var/lib/sluice/public/monitor-public.json{{ else }}/run/public/monitor-public.json{{ end }} }
- { name: SLUICE_HEALTH_HOST, value: 0.0.0.0 }
- { name: SLUICE_HEALTH_PORT, value: "9100" }
- { name: SLUICE_TEMPORAL_METRICS_PORT, value: "9101" }
{{- if .root.Values.tracing.otlpEndpoint }}
- { name: SLUICE_OTLP_ENDPOINT, value: {{ .root.Values.tracing.otlpEndpoint | quote }} }
- { name: SLUICE_TRACE_SHARE, value: {{ .root.Values.tracing.share | quote }} }
{{- end }}
{{- end }}

{{- define "sluice.probes" -}}
startupProbe: { httpGet: { path: /readyz, port: health }, periodSeconds: 3, failureThreshold: 60 }
readinessProbe: { httpGet: { path: /readyz, port: health }, periodSeconds: 10, timeoutSeconds: 6 }
livenessProbe: { httpGet: { path: /healthz, port: health }, periodSeconds: 20, failureThreshold: 6 }
{{- end }}

{{- /* The optional secrets of a role: name → Secret, mounted at /run/secrets/NAME. */}}
{{- define "sluice.optional" -}}
{{- $all := .root.Values.secrets }}
{{- $found := dict }}
{{- if $all.temporal }}{{ $_ := set $found "temporal" $all.temporal }}{{ end }}
{{- if and $all.signIn (eq .role "api") }}{{ $_ := set $found "sign-in" $all.signIn }}{{ end }}
{{- if and $all.monitors (eq .role "api") }}{{ $_ := set $found "monitors" $all.monitors }}{{ end }}
{{- if and $all.mail (eq .role "notices") }}{{ $_ := set $found "mail" $all.mail }}{{ end }}
{{- if and $all.hub (has .role (list "transfer" "leaks")) }}{{ $_ := set $found "hub" $all.hub }}{{ end }}
{{- if and $all.leaks (eq .role "leaks") }}{{ $_ := set $found "leaks" $all.leaks }}{{ end }}
{{- toYaml $found }}
{{- end }}

{{- /* The keys of secrets.service that a role reads; the others are not in its pod. */}}
{{- define "sluice.serviceKeys" -}}
{{- $keys := list }}
{{- if ne .role "notices" }}{{ $keys = append $keys "codec.keys" }}{{ end }}
{{- if ne .role "custody" }}{{ $keys = append $keys "postgres-records.password" }}{{ end }}
{{- if has .role (list "api" "transfer" "custody" "leaks") }}{{ $keys = append $keys "s3.credentials" }}{{ end }}
{{- if eq .role "api" }}{{ $keys = append $keys "document.keys" }}{{ end }}
{{- if has .role (list "api" "leaks") }}{{ $keys = append $keys "verdict.keys" }}{{ end }}
{{- if has .role (list "api" "notices") }}{{ $keys = append $keys "webhook.keys" }}{{ end }}
{{- if .root.Values.database.ca }}{{ $keys = append $keys "postgres-ca.pem" }}{{ end }}
{{- range $keys }}
- { key: {{ . }}, path: {{ . }} }
{{- end }}
{{- end }}
