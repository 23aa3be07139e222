"""Measurements of time and memory, each against its alternatives in one run."""
