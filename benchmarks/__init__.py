"""What govrun costs, each figure as a ratio to a peer or to a floor that runs in the same loop."""
