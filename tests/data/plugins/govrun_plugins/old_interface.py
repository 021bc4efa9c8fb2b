"""A backend made for another version of the interface."""

from govrun_plugins.echoing import Echoing


class OldInterface(Echoing):
    name = "old-interface"
    interface = 0


BACKEND = OldInterface()
