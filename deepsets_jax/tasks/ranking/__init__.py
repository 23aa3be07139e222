"""Ranking: the candidates of a user in the order it would have them."""
