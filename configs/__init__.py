"""Configs: `base` holds every setting; an experiment imports it and changes it."""
