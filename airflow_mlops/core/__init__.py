"""Records, keys, windows, gate rules and the promotion ledger: pure values and decisions."""
