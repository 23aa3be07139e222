"""TF-IDF weights of the tokens of a bag: what makes their weighted sum its vector."""

from __future__ import annotations

import numpy as np

from deepsets_jax.ragged import Ragged, from_lengths


def inverse_frequency(frequency: np.ndarray, examples: int) -> np.ndarray:
  """The smoothed idf, log((1 + examples) / (1 + frequency)) + 1, `[v]` float64.

  As in scikit-learn; `frequency` are the examples that a token is in.
  """
  return np.log((1 + examples) / (1 + frequency)) + 1


def document_frequency(tokens: Ragged, size: int) -> np.ndarray:
  """In how many examples each of `size` tokens is: `[size]` int64."""
  pairs = np.unique(_rows(tokens) * size + tokens.values)
  return np.bincount(pairs % size, minlength=size)


def weigh(tokens: Ragged, idf: np.ndarray, *, keep_places: bool) -> Ragged:
  """The tokens with sublinear TF-IDF weights, of length 1 over an example.

  A token that stands `tf` times in an example weighs idf * (1 + log(tf)), over the norm
  of the example's weights.

  Args:
    tokens: Ids `[n]` int32.
    idf: Of each id, `[v]`.
    keep_places: Whether each place of a token stays, with 1/tf of its weight; else a
      token is one element, and an example's elements are in order of their ids.
  """
  rows, size = _rows(tokens), len(idf)
  pairs, inverse, count = np.unique(
    rows * size + tokens.values, return_inverse=True, return_counts=True
  )
  row, token = np.divmod(pairs, size)
  weight = (1 + np.log(count)) * idf[token]
  norm = np.sqrt(np.bincount(row, weight**2, minlength=tokens.num_examples))
  weight /= norm[row]
  if keep_places:
    return tokens.replace(weights=(weight / count)[inverse].astype(np.float32))
  bags = from_lengths(
    token.astype(np.int32), np.bincount(row, minlength=tokens.num_examples)
  )
  return bags.replace(weights=weight.astype(np.float32))


def _rows(ragged: Ragged) -> np.ndarray:
  """The example of each element: `[n]` int64."""
  return np.repeat(np.arange(ragged.num_examples), ragged.lengths)
