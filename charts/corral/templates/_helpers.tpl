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

{{- /* Security contexts of every pod and container, for Pod Security "restricted". */ -}}
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

{{- /* Scheduling fields of the pods of a component: (dict "root" $ "part" "gateway"). */ -}}
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

{{- /* Name of the release's PriorityClass, unique in the cluster; empty if the release creates none. */ -}}
{{- define "corral.priorityClass" -}}
{{- if .root.Values.priorityClasses.create }}
{{- printf "%s-%s-%s" .root.Release.Namespace .root.Release.Name .kind }}
{{- end }}
{{- end }}

{{- /* Names of a list of references, separated by commas. */ -}}
{{- define "corral.names" -}}
{{- $names := list }}
{{- range . }}{{ $names = append $names .name }}{{ end }}
{{- join "," $names }}
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
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- if .Values.caBundle.secret }}
- {name: ca, secret: {secretName: {{ .Values.caBundle.secret }}, items: [{key: {{ .Values.caBundle.key }}, path: {{ .Values.caBundle.key }}}]}}
{{- else if .Values.caBundle.configMap }}
- {name: ca, configMap: {name: {{ .Values.caBundle.configMap }}, items: [{key: {{ .Values.caBundle.key }}, path: {{ .Values.caBundle.key }}}]}}
{{- end }}
{{- end }}

{{- /* Peers of the runners' NetworkPolicies, as JSON. Those policies are in the namespaces of the Models, so a peer with
only a podSelector gets the release's namespace, as in the other policies of the release. */ -}}
{{- define "corral.runnerClients" -}}
{{- $own := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace)) }}
{{- $parts := dict "key" "app.kubernetes.io/name" "operator" "In" "values" (list "corral-gateway" "corral-operator") }}
{{- $instance := dict "app.kubernetes.io/instance" .Release.Name }}
{{- $control := dict "podSelector" (dict "matchLabels" $instance "matchExpressions" (list $parts)) }}
{{- $peers := concat (list $control) .Values.networkPolicy.runnersFrom (ternary .Values.monitoring.from list .Values.monitoring.enabled) }}
{{- $clients := list }}
{{- range $peers }}
{{- $elsewhere := or (hasKey . "namespaceSelector") (hasKey . "ipBlock") }}
{{- $clients = append $clients (ternary . (merge (deepCopy .) $own) $elsewhere) }}
{{- end }}
{{- toJson $clients }}
{{- end }}

{{- /* Peers that may read the progress of pullers, as JSON: the operator. */ -}}
{{- define "corral.pullerClients" -}}
{{- $own := dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace) }}
{{- $pods := dict "matchLabels" (include "corral.selector" (dict "root" . "part" "operator") | fromYaml) }}
{{- list (dict "namespaceSelector" $own "podSelector" $pods) | toJson }}
{{- end }}

{{- /* Message of the admission policy: (dict "field" "spec.pod.image" "what" "images from" "names" list). */ -}}
{{- define "corral.policyMessage" -}}
{{- if .names }}{{ .field }}: this cluster allows only {{ .what }} {{ join ", " .names }}
{{- else }}{{ .field }} is not allowed in this cluster
{{- end }}; the administrator can change it (modelPolicy in the values of the Helm chart)
{{- end }}

{{- define "corral.operatorRules" -}}
- {apiGroups: [corral.dev], resources: [models], verbs: [list, watch]}
- {apiGroups: [corral.dev], resources: [models/status], verbs: [patch]}
- {apiGroups: [apps], resources: [deployments], verbs: [list, watch, create, patch]}
- {apiGroups: [""], resources: [services], verbs: [list, watch, create, patch]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch, create, delete]}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get, list, watch, create, patch]}
- {apiGroups: [resource.k8s.io], resources: [resourceclaimtemplates], verbs: [create, patch]}
- {apiGroups: [""], resources: [events], verbs: [create]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get]}
{{- end }}

{{- define "corral.gatewayRules" -}}
- {apiGroups: [corral.dev], resources: [models], verbs: [list, watch]}
- {apiGroups: [corral.dev], resources: [models/status], verbs: [patch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
{{- if .Values.gateway.apiKeys.namespaceSecret }}
- {apiGroups: [""], resources: [secrets], resourceNames: ["{{ .Values.gateway.apiKeys.namespaceSecret }}"], verbs: [list, watch]}
{{- end }}
{{- end }}

{{- /* What the gateways need to create, change and delete Models for clients. */ -}}
{{- define "corral.gatewayModelRules" -}}
- {apiGroups: [corral.dev], resources: [models], verbs: [get, create, update, delete]}
{{- end }}

{{- define "corral.hasKeys" -}}
{{- with .Values.gateway.apiKeys }}{{ if or .secret .namespaceSecret }}yes{{ end }}{{ end }}
{{- end }}

{{- /* Whether some client can create Models. */ -}}
{{- define "corral.createsModels" -}}
{{- $create := .Values.models.create }}
{{- if or (eq $create "Anyone") (and (eq $create "Keys") (include "corral.hasKeys" .)) }}yes{{- end }}
{{- end }}

{{- /* Namespace of the Models of clients whose key names none. */ -}}
{{- define "corral.modelNamespace" -}}
{{- $listed := first (concat .Values.models.namespaces .Values.sharedNamespaces .Values.watchNamespaces (list .Release.Namespace)) }}
{{- .Values.models.namespace | default $listed }}
{{- end }}

{{- /* Namespaces in which clients can create Models, as JSON; an empty list for all. */ -}}
{{- define "corral.modelNamespaces" -}}
{{- if include "corral.hasKeys" . }}{{ toJson (.Values.models.namespaces | default .Values.watchNamespaces) }}
{{- else }}{{ list (include "corral.modelNamespace" .) | toJson }}{{ end }}
{{- end }}

{{- /* Registry of the blobs of clients: host[:port]. */ -}}
{{- define "corral.blobRegistry" -}}
{{- .Values.models.blobs.repository | trimPrefix "https://" | trimPrefix "http://" | splitList "/" | first }}
{{- end }}

{{- /* Roles and bindings of an account: for the cluster, or in each of the namespaces. (dict "root" $ "part" "gateway"
"account" "gateway" "namespaces" list "rules" text) */ -}}
{{- define "corral.rbac" -}}
{{- $root := .root }}{{- $rules := .rules }}
{{- $name := printf "%s-%s" $root.Release.Name .part }}
{{- $account := printf "%s-%s" $root.Release.Name .account }}
{{- if .namespaces }}
{{- range .namespaces }}
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
  - {kind: ServiceAccount, name: {{ $account }}, namespace: {{ $root.Release.Namespace }}}
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
  - {kind: ServiceAccount, name: {{ $account }}, namespace: {{ $root.Release.Namespace }}}
{{- end }}
{{- end }}
