"""The audit pipeline and its rules."""
