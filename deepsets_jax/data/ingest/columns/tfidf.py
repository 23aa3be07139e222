"""TF-IDF weights of tokens, whose weighted sum is the TF-IDF vector of a bag."""

from __future__ import annotations

import numpy as np

from deepsets_jax.ragged import Ragged, from_lengths


def inverse_frequency(frequency: np.ndarray, examples: int) -> np.ndarray:
  """Return the smoothed idf, log((1 + examples) / (1 + frequency)) + 1.

  This is the definition of scikit-learn.

  Args:
    frequency: Number of examples with each token, `[v]`.
    examples: Number of all examples.

  Returns:
    `[v]` float64.
  """
  return np.log((1 + examples) / (1 + frequency)) + 1


def document_frequency(tokens: Ragged, size: int) -> np.ndarray:
  """Return the number of examples with each of `size` tokens: `[size]` int64."""
  pairs = np.unique(_rows(tokens) * size + tokens.values)
  return np.bincount(pairs % size, minlength=size)


def weigh(tokens: Ragged, idf: np.ndarray, *, keep_places: bool) -> Ragged:
  """Return tokens with sublinear TF-IDF weights of norm 1 per example.

  A token with count `tf` in an example weighs idf * (1 + log(tf)), divided by the norm
  of the example's weights.

  Args:
    tokens: Ids, `[n]` int32.
    idf: Inverse document frequency of each id, `[v]`.
    keep_places: Whether to keep each occurrence of a token, with 1/tf of its weight. If
      not, each token is one element, and elements are ordered by id.
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
  """Return the example of each element: `[n]` int64."""
  return np.repeat(np.arange(ragged.num_examples), ragged.lengths)
