"""Users, items and the events between them, for retrieval and ranking."""
