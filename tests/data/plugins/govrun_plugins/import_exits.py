"""A backend whose import ends the program, as if all had gone well."""

import sys

sys.exit(0)
