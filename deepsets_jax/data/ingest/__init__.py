"""A user's file becomes a table: reading, proposing what columns are, encoding."""
