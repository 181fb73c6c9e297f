{{- define "corral.labels" -}}
app.kubernetes.io/part-of: corral
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "corral.selector" -}}
app.kubernetes.io/name: corral-{{ .part }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- /* What every pod of ours has to pass Pod Security "restricted". */ -}}
{{- define "corral.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "corral.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Where the pods of one part go: (dict "root" $ "part" "gateway"). */ -}}
{{- define "corral.scheduling" -}}
{{- $root := .root }}{{- $part := .part }}
{{- with index .root.Values .part }}
{{- with .topologySpreadConstraints }}
{{- $own := dict "labelSelector" (dict "matchLabels" (include "corral.selector" (dict "root" $root "part" $part) | fromYaml)) }}
topologySpreadConstraints:
  {{- range . }}
  - {{- merge (deepCopy .) $own | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName | default (include "corral.priorityClass" (dict "root" $root "kind" "control")) }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The name of the release's own PriorityClass, which the whole cluster sees; empty: it has none. */ -}}
{{- define "corral.priorityClass" -}}
{{- if .root.Values.priorityClasses.create }}
{{- printf "%s-%s-%s" .root.Release.Namespace .root.Release.Name .kind }}
{{- end }}
{{- end }}

{{- define "corral.hasCA" -}}
{{- if or .Values.caBundle.configMap .Values.caBundle.secret }}yes{{- end }}
{{- end }}

{{- define "corral.caEnvironment" -}}
{{- if include "corral.hasCA" . }}
- {name: SSL_CERT_FILE, value: /etc/corral/ca/{{ .Values.caBundle.key }}}
- {name: REQUESTS_CA_BUNDLE, value: /etc/corral/ca/{{ .Values.caBundle.key }}}
{{- end }}
{{- end }}

{{- define "corral.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if include "corral.hasCA" . }}
- {name: ca, mountPath: /etc/corral/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "corral.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- if .Values.caBundle.secret }}
- {name: ca, secret: {secretName: {{ .Values.caBundle.secret }}, items: [{key: {{ .Values.caBundle.key }}, path: {{ .Values.caBundle.key }}}]}}
{{- else if .Values.caBundle.configMap }}
- {name: ca, configMap: {name: {{ .Values.caBundle.configMap }}, items: [{key: {{ .Values.caBundle.key }}, path: {{ .Values.caBundle.key }}}]}}
{{- end }}
{{- end }}

{{- define "corral.operatorRules" -}}
- {apiGroups: [corral.dev], resources: [models], verbs: [list, watch]}
- {apiGroups: [corral.dev], resources: [models/status], verbs: [patch]}
- {apiGroups: [apps], resources: [deployments], verbs: [list, watch, create, patch]}
- {apiGroups: [""], resources: [services], verbs: [list, watch, create, patch]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch, create, delete]}
- {apiGroups: [""], resources: [events], verbs: [create]}
{{- end }}

{{- define "corral.gatewayRules" -}}
- {apiGroups: [corral.dev], resources: [models], verbs: [list, watch]}
- {apiGroups: [corral.dev], resources: [models/status], verbs: [patch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
{{- end }}

{{- /* The rules for one part: cluster-wide, or in each watched namespace. */ -}}
{{- define "corral.rbac" -}}
{{- $root := .root }}{{- $part := .part }}{{- $rules := .rules }}
{{- $name := printf "%s-%s" $root.Release.Name $part }}
{{- if $root.Values.watchNamespaces }}
{{- range $root.Values.watchNamespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ . }}
  labels: {{- include "corral.labels" $root | nindent 4 }}
rules:
  {{- $rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ . }}
  labels: {{- include "corral.labels" $root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $root.Release.Namespace }}}
{{- end }}
{{- else }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $root.Release.Namespace }}-{{ $name }}
  labels: {{- include "corral.labels" $root | nindent 4 }}
rules:
  {{- $rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $root.Release.Namespace }}-{{ $name }}
  labels: {{- include "corral.labels" $root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $root.Release.Namespace }}-{{ $name }}}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $root.Release.Namespace }}}
{{- end }}
{{- end }}
