"""Faults on purpose: in every system call, in the power, and in govrun's own code. `make faults` runs all of it."""
