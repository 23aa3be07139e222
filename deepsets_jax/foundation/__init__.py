"""What every room may use: the errors that users see, and how files are written."""
