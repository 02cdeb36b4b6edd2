"""What waits off the worker, in the triggerer."""
