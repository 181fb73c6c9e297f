{{- /* Name of the chart in labels and names. */ -}}
{{- define "corral.name" -}}
{{- .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{- /* First part of the names of all objects, and the name of the Service. As in Helm's own scaffold, the name of the
release is enough if it contains the name of the chart. */ -}}
{{- define "corral.fullname" -}}
{{- $name := include "corral.name" . }}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $release | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- /* Image reference: (dict "root" $ "path" "runner.image"). Without a repository there is none, and the text is empty. */ -}}
{{- define "corral.image" -}}
{{- $common := .root.Values.image }}
{{- $image := .root.Values }}
{{- range splitList "." .path }}{{ $image = index $image . }}{{ end }}
{{- if $image.repository }}
{{- $registry := $image.registry | default $common.registry }}
{{- if not $registry }}
{{- $other := printf ", or %s.registry for this image alone" .path }}
{{- if hasPrefix "runner.images." .path }}{{ $other = printf "%s, or %s.repository to \"\" if there is no such image" $other .path }}{{ end }}
{{- fail (printf "\n\nNo registry is set for the image %s. Set image.registry to the registry that has Corral's images%s. Example:\n\n  --set image.registry=registry.example\n" $image.repository $other) }}
{{- end }}
{{- $name := printf "%s/%s" (trimSuffix "/" $registry) $image.repository }}
{{- if $image.digest }}{{ printf "%s@%s" $name $image.digest }}
{{- else }}{{ printf "%s:%s" $name ($image.tag | default $common.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Name of the ServiceAccount of a component: (dict "root" $ "part" "gateway"). */ -}}
{{- define "corral.account" -}}
{{- $account := (index .root.Values .part).serviceAccount }}
{{- if not (or $account.create $account.name) }}
{{- fail (printf "%[1]s.serviceAccount.name must name an existing ServiceAccount if %[1]s.serviceAccount.create is false" .part) }}
{{- end }}
{{- $account.name | default (printf "%s-%s" (include "corral.fullname" .root) .part) }}
{{- end }}

{{- define "corral.labels" -}}
app.kubernetes.io/part-of: corral
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "corral.selector" -}}
app.kubernetes.io/name: {{ include "corral.name" .root }}-{{ .part }}
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
{{- printf "%s-%s-%s" .root.Release.Namespace (include "corral.fullname" .root) .kind }}
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

{{- /* Mounts of the container of a component: (dict "root" $ "part" "gateway"). */ -}}
{{- define "corral.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if include "corral.hasCA" .root }}
- {name: ca, mountPath: /etc/corral/ca, readOnly: true}
{{- end }}
{{- with (index .root.Values .part).extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Volumes of the pods of a component, as above. */ -}}
{{- define "corral.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- with .root.Values.caBundle }}
{{- if .secret }}
- {name: ca, secret: {secretName: {{ .secret }}, items: [{key: {{ .key }}, path: {{ .key }}}]}}
{{- else if .configMap }}
- {name: ca, configMap: {name: {{ .configMap }}, items: [{key: {{ .key }}, path: {{ .key }}}]}}
{{- end }}
{{- end }}
{{- with (index .root.Values .part).extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Peers of the runners' NetworkPolicies, as JSON. Those policies are in the namespaces of the Models, so a peer with
only a podSelector gets the release's namespace, as in the other policies of the release. */ -}}
{{- define "corral.runnerClients" -}}
{{- $own := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace)) }}
{{- $name := include "corral.name" . }}
{{- $parts := dict "key" "app.kubernetes.io/name" "operator" "In" "values" (list (printf "%s-gateway" $name) (printf "%s-operator" $name)) }}
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
- {apiGroups: [""], resources: [events], verbs: [create, patch]}
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
{{- $name := printf "%s-%s" (include "corral.fullname" $root) .part }}
{{- $account := include "corral.account" (dict "root" $root "part" .account) }}
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
