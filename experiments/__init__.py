"""The commands, one module each: `python -m experiments.NAME --help` lists its flags.

`experiments.results` has the programs that write the tables of RESULTS.md.
"""
