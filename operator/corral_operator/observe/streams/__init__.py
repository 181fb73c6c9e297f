"""HTTP streams of pods: statuses of runners, progress of pullers."""
