"""Configs of runs: a module here has `get_config`, which changes a task's defaults.

The defaults are in `deepsets_jax.tasks.defaults`, with a comment for each setting. The
text after a colon, as in `configs/debian_programs.py:concat,1`, is the argument of
`get_config`.
"""
