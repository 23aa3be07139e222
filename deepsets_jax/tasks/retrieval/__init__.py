"""Retrieval: find the next items of a user among all items."""
