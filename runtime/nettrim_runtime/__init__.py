"""The Graph and the pure-NumPy runtime that executes it; needs NumPy and the standard library only."""
