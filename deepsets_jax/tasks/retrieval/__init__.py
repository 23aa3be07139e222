"""Recall: of all items those that a user comes to next."""
