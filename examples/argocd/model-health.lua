-- Health of Models in Argo CD: resource.customizations.health.corral.dev_Model in the ConfigMap argocd-cm.
-- Argo CD's results are Healthy, Progressing, Degraded and Suspended. See docs/reference/status.md.
local health = { status = "Progressing", message = "the operator has not processed this Model yet" }
if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not processed the present spec yet"
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local ready, stalled, reconciling = conditions.Ready, conditions.Stalled, conditions.Reconciling

if stalled ~= nil and stalled.status == "True" then
  health.status, health.message = "Degraded", stalled.message
elseif ready ~= nil and (ready.reason == "Suspended" or ready.reason == "ScaledToZero") then
  health.status, health.message = "Suspended", ready.message
elseif reconciling ~= nil and reconciling.status == "True" then
  health.status, health.message = "Progressing", reconciling.message
elseif ready ~= nil and ready.reason == "NotAccelerated" then
  health.status, health.message = "Degraded", ready.message
elseif ready ~= nil and ready.status == "True" then
  health.status, health.message = "Healthy", ready.message
elseif ready ~= nil then
  health.message = ready.message
end
return health
