"""Corral on one machine: the same planner and gateway, with runners as child processes."""
