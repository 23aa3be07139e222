"""Ranking: order the candidates that are offered to a user."""
