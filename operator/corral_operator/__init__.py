"""The Kubernetes operator: observes Models, plans with corral_core, applies the plan."""
