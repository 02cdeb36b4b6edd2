"""Operators: thin shells around the steps. Templates in, a record out."""
