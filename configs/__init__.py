"""Configs of runs: a module here has `get_config`, which changes a task's defaults.

The defaults, with a comment for each setting, are in `deepsets_jax.tasks.defaults`. A
part of a path after a colon, as in `configs/debian_programs.py:concat,1`, is the
argument of `get_config`.
"""
