"""The machine below a process: cgroups, memory, cores, files."""
