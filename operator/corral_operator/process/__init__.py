"""The operator process: start and end, leader election, health and metrics."""
