"""The planner: how many replicas each Model gets, which node has room, and which idle Models are evicted."""
