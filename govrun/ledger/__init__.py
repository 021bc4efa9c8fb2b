"""An append-only log of receipts: arithmetic, entries, checkpoints, stores."""
