"""Sweeps: each module has `overrides`, which yields {setting: value} of each run."""
