"""The training loop and what it needs; it knows no task, file format or data set."""
