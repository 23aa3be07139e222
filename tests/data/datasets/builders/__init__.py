"""Fake source files of data sets, and tests of the data sets built from them."""
