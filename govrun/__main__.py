"""`python -m govrun` is `govrun`."""

from govrun.cli import main

main()
