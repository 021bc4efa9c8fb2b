"""A backend that cannot be imported: listing must not notice, and loading must refuse this name only."""

raise RuntimeError("this backend does not work on purpose")
