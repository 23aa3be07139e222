"""Whole models: the set model, the two towers, the scorer of pairs, and MMT."""
