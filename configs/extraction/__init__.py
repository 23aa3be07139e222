"""Configs of `experiments.extract`; `base.py` has every setting and its default."""
