"""Fake files of the data sets that a user brings, and the sets built of them."""
