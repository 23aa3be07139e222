"""Measurements of speed, each against its peers in one run."""
