"""Keys, the DSSE envelope, and signed notes."""
