"""Debian programs: seven modalities, most often missing, and 74 labels."""
