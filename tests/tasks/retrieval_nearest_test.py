import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from deepsets_jax.ragged import from_lists
from deepsets_jax.tasks.retrieval.nearest import nearest

# Few shapes: neither number is a multiple of its block.
USERS, ITEMS, WIDTH = 11, 37, 3
BLOCKS = {"user_block": 8, "item_block": 10}


def nearest_loop(scores, k, seen):
  """Best items, the lower row first among ties; then -inf and -1."""
  found = []
  for row, out in zip(scores, seen, strict=True):
    left = sorted((-score, i) for i, score in enumerate(row) if i not in out)[:k]
    left += [(np.inf, -1)] * (k - len(left))
    found.append([(-score, i) for score, i in left])
  found = np.array(found)
  return found[:, :, 0], found[:, :, 1]


def check(got, want):
  for a, b in zip(got, want, strict=True):
    np.testing.assert_array_equal(a, b)


@st.composite
def cases(draw):
  """Vectors of small integers, whose products are exact and often tie; seen items."""
  rng = np.random.default_rng(draw(st.integers(0, 2**16)))
  users = rng.integers(-2, 3, (USERS, WIDTH)).astype(np.float32)
  items = rng.integers(-2, 3, (ITEMS, WIDTH)).astype(np.float32)
  # Of some users nearly everything is seen, of others nothing.
  seen = [rng.integers(0, ITEMS, n) for n in rng.choice([0, 4, 150], USERS)]
  return users, items, seen


# One in a block, fewer and more than a block has, and all there are.
@pytest.mark.parametrize("k", [1, 4, 12, ITEMS])
@hypothesis.given(case=cases())
def test_the_best_items_equal_a_loop(k, case):
  users, items, seen = case
  got = nearest(users, items, k, from_lists(seen, dtype=np.int32), **BLOCKS)
  assert got[0].dtype == np.float32 and got[1].dtype == np.int32
  check(got, nearest_loop(users @ items.T, k, seen))


def test_chunks_of_many_items_lose_nothing():
  # 512 in a block are four chunks, of which three are looked at; with many ties.
  rng = np.random.default_rng(0)
  users = rng.integers(-2, 3, (USERS, WIDTH)).astype(np.float32)
  items = rng.integers(-4, 5, (1200, WIDTH)).astype(np.float32)
  seen = [rng.integers(0, 1200, 50) for _ in range(USERS)]
  got = nearest(users, items, 3, from_lists(seen, dtype=np.int32), item_block=512)
  check(got, nearest_loop(users @ items.T, 3, seen))


def test_equal_vectors_come_in_the_order_of_their_rows():
  rng = np.random.default_rng(1)
  items = np.tile(rng.normal(size=(1, 64)).astype(np.float32), (301, 1))
  # One user after the other, too: a product of one row is another kernel.
  for users in [1] * 10 + [9]:
    vectors = rng.normal(size=(users, 64)).astype(np.float32)
    _, rows = nearest(vectors, items, 20, item_block=101)
    np.testing.assert_array_equal(rows, np.tile(np.arange(20), (users, 1)))


def test_blocks_do_not_matter():
  rng = np.random.default_rng(2)
  users, items = rng.normal(size=(USERS, WIDTH)), rng.normal(size=(ITEMS, WIDTH))
  seen = from_lists([rng.integers(0, ITEMS, 5) for _ in range(USERS)], dtype=np.int32)
  want = nearest(users, items, 5, seen)
  for blocks in (BLOCKS, {"user_block": 1, "item_block": 1}):
    scores, rows = nearest(users, items, 5, seen, **blocks)
    np.testing.assert_array_equal(rows, want[1])
    np.testing.assert_allclose(scores, want[0], rtol=1e-6)


@pytest.mark.parametrize("recall_target", [0.5, 0.95])
def test_the_approximate_search_reaches_its_recall_target(recall_target):
  # On a CPU it is exact; what this proves for a TPU is its signature.
  rng = np.random.default_rng(3)
  users, items = rng.normal(size=(64, 8)), rng.normal(size=(1000, 8))
  seen = [rng.integers(0, 1000, 30) for _ in range(64)]
  lists = from_lists(seen, dtype=np.int32)
  best, exact = nearest(users, items, 10, lists)
  scores, rows = nearest(
    users,
    items,
    10,
    lists,
    approximate=True,
    recall_target=recall_target,
    item_block=300,
  )
  hits = [len(set(a) & set(b)) for a, b in zip(exact, rows, strict=True)]
  assert np.mean(hits) >= 10 * recall_target
  assert not any(set(a) & set(b) for a, b in zip(rows, seen, strict=True))
  products = np.take_along_axis(users @ items.T, rows, axis=1)
  np.testing.assert_allclose(scores, products, rtol=1e-5)
  assert (scores <= best + 1e-5).all()


def test_no_users_have_empty_lists():
  scores, rows = nearest(np.ones((0, WIDTH)), np.ones((5, WIDTH)), 2)
  assert scores.shape == rows.shape == (0, 2)


def test_bad_input_is_named():
  users, items = np.ones((2, WIDTH)), np.ones((5, WIDTH))
  bad = items.copy()
  bad[4, 0] = np.inf
  for error, args, settings in (
    ("k is 0: expected 1 to 5", (users, items, 0), {}),
    ("k is 6: expected 1 to 5", (users, items, 6), {}),
    ("of the same tower width", (users[:, 1:], items, 1), {}),
    ("item row 4 has a vector of length inf", (users, bad, 1), {}),
    ("no items", (users, items[:0], 1), {}),
    ("recall_target is 0", (users, items, 1), {"recall_target": 0}),
    ("user_block is 0", (users, items, 1), {"user_block": 0}),
    (
      "seen has 1 lists for 2 users",
      (users, items, 1, from_lists([[]], dtype=int)),
      {},
    ),
  ):
    with pytest.raises(ValueError, match=error):
      nearest(*args, **settings)
