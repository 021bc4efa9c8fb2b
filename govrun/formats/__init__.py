"""A report in each form that people and programs read."""
