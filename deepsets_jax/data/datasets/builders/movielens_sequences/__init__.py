"""MovieLens 100K: users with their sequences of events, and films."""
