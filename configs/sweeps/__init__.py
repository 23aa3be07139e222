"""Sweeps: functions that yield dictionaries of dotted overrides of a config."""
