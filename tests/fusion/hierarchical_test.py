import functools

import jax
import numpy as np

from deepsets_jax import encoders, fusion
from deepsets_jax.models import set_model
from tests.fusion.reference.hierarchical import modality_vectors
from tests.fusion.reference.mil import mil_weights
from tests.sets import FEATURES, NAMES, pack

RNG = np.random.default_rng(0)
SIZES = {"image": (3, 0, 1, 0), "text": (2, 4, 0, 0), "words": (0, 0, 0, 0)}
SETS = {
  name: [RNG.normal(size=(n, FEATURES)).astype(np.float32) for n in sizes]
  for name, sizes in SIZES.items()
}
MODALITIES = {name: pack(lists, 9) for name, lists in SETS.items()}
MODULE = fusion.HierarchicalFusion(NAMES, FEATURES)


@functools.cache
def fused():
  """Parameters, the result and the importances."""
  params = MODULE.init(jax.random.key(0), MODALITIES, train=False)["params"]
  apply = jax.jit(
    lambda params: MODULE.apply(
      {"params": params}, MODALITIES, train=False, mutable=["importance"]
    )
  )
  return jax.device_get((params, *apply(params)))


def test_importances_add_up_to_one_over_present_elements_and_modalities():
  _, _, sown = fused()
  elements, modalities = (
    sown["importance"]["elements"],
    sown["importance"]["modalities"],
  )
  for name, sizes in SIZES.items():
    parts = np.split(elements[name], np.cumsum(sizes))
    assert not np.any(parts[-1])  # Padding.
    totals = [part.sum() for part in parts[:-1]]
    np.testing.assert_allclose(totals, np.sign(sizes), 1e-6)
    assert not np.any(modalities[name][np.equal(sizes, 0)])
  np.testing.assert_allclose(sum(modalities.values()), [1, 1, 1, 0], 1e-6)


def test_importances_agree_with_a_loop_over_examples():
  params, _, sown = fused()
  codes = {name: params[f"code_{name}"] for name in NAMES}
  for name, lists in SETS.items():
    want = [
      mil_weights(params["element_scores"], values + codes[name])
      for values in lists
      if len(values)
    ]
    want = np.concatenate([*want, np.zeros(9 - sum(SIZES[name]))])
    np.testing.assert_allclose(sown["importance"]["elements"][name], want, 1e-5, 1e-6)
  vectors = modality_vectors(params, {k: v[0] for k, v in SETS.items()})
  want = mil_weights(params["modality_scores"], np.stack(list(vectors.values())))
  got = [sown["importance"]["modalities"][name][0] for name in vectors]
  np.testing.assert_allclose(got, want, 1e-5, 1e-6)


def test_the_result_is_the_sum_of_elements_weighted_by_both_importances():
  params, result, sown = fused()
  weights = jax.tree.map(np.asarray, sown["importance"])
  total = np.zeros(FEATURES)
  for name in ("image", "text"):  # Of the first example, whose slots come first.
    n = SIZES[name][0]
    of_elements = (weights["elements"][name][:n] + 1 / n) / 2
    of_modality = (weights["modalities"][name][0] + 1 / 2) / 2
    total += of_modality * (of_elements @ (SETS[name][0] + params[f"code_{name}"]))
  np.testing.assert_allclose(result[0], total, 1e-5, 1e-6)


def test_gradients_are_finite_and_come_only_from_what_is_present():
  params, _, _ = fused()

  @jax.jit
  def gradient(example):
    def one(params):
      return MODULE.apply({"params": params}, MODALITIES, train=False)[example, 0]

    return jax.grad(one)(params)

  assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient(3)))
  of_both = gradient(0)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_both))
  assert np.any(of_both["modality_scores"]["hidden"]["kernel"])
  assert np.any(of_both["element_scores"]["hidden"]["kernel"])
  assert not np.any(of_both["code_words"])


def test_in_a_model_importances_have_the_documented_names():
  model = set_model.SetModel(
    encoders={name: encoders.DenseEncoder(FEATURES) for name in NAMES},
    fusion=MODULE,
    head=set_model.Head((0.0,)),
  )
  variables = model.init(jax.random.key(0), MODALITIES)
  _, sown = model.apply(
    {"params": variables["params"]}, MODALITIES, mutable=["importance"]
  )
  of_fusion = sown["importance"]["fusion"]
  assert of_fusion["elements"]["text"].shape == (9,)
  assert of_fusion["modalities"]["text"].shape == (4,)
