"""What `experiments.extract` does, each a file: `base.py` holds every setting."""
