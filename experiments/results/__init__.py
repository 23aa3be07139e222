"""The parts of RESULTS.md: the runs behind each, and its tables."""
