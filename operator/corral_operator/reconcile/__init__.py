"""Reconciliation: plans for all Models, and makes each Model's objects match the plan."""
