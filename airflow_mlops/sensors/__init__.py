"""Waiting for data, labels and the champion, on the worker or off it."""
