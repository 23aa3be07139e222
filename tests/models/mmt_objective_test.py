import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.models.mmt import objective

NAMES = (
  *("r1", "r5", "r10", "r50", "geometric_mean"),
  *("median_rank", "mean_rank"),
)


@st.composite
def cases(draw):
  """Similarities of which many tie, captions per video, and a mask."""
  videos, captions = draw(st.integers(1, 7)), draw(st.integers(1, 3))
  rng = np.random.default_rng(draw(st.integers(0, 2**16)))
  similarities = rng.integers(-2, 3, (videos * captions, videos)).astype(np.float32)
  mask = rng.uniform(size=(videos, captions)) < 0.7
  mask[rng.integers(videos), 0] = True
  return similarities, captions, mask


def rank_loop(value, others):
  """The mean rank, from 0, of all values that tie with this one."""
  return np.mean([i for i, x in enumerate(sorted(others, reverse=True)) if x == value])


def metrics_loop(ranks):
  found = {
    "r1": sum(rank == 0 for rank in ranks),
    **{f"r{k}": sum(rank < k for rank in ranks) for k in (5, 10, 50)},
  }
  found = {k: 100 * v / len(ranks) for k, v in found.items()}
  found["geometric_mean"] = (found["r1"] * found["r5"] * found["r10"]) ** (1 / 3)
  ordered = sorted(ranks)
  middle = [ordered[(len(ranks) - 1) // 2], ordered[len(ranks) // 2]]
  found["median_rank"] = sum(middle) / 2 + 1
  found["mean_rank"] = sum(ranks) / len(ranks) + 1
  return found


@hypothesis.given(cases())
def test_metrics_are_those_of_a_loop(case):
  similarities, captions, mask = case
  texts, videos = [], []
  for video in range(len(mask)):
    column = similarities[:, video].reshape(mask.shape)
    own = []
    for caption in range(captions):
      if mask[video, caption]:
        row = similarities[video * captions + caption]
        texts.append(rank_loop(row[video], row))
        own.append(rank_loop(column[video, caption], column[mask]))
    if own:
      videos.append(min(own))
  for ranks, metrics in (
    (texts, objective.text_to_video),
    (videos, objective.video_to_text),
  ):
    for form in (mask, mask.ravel()):
      got = metrics(similarities, form)
      assert got == pytest.approx(metrics_loop(ranks))
      assert tuple(got) == NAMES


def golden_cases():
  rng = np.random.default_rng(1)
  right = np.repeat(np.eye(8), 3, 0)
  plain = np.round(rng.normal(size=(12, 12)), 1)
  captions, masked = (np.round(rng.normal(size=(24, 8)) + right, 1) for _ in range(2))
  mask = rng.uniform(size=(8, 3)) < 0.7
  mask[:, 0] = True
  return [(plain, None), (captions, None), (masked, mask), (np.zeros((70, 70)), None)]


# Of the metrics of gabeur/mmt, commit 8f53717, for `golden_cases`.
PUBLISHED = {
  objective.text_to_video: [
    [8.33333333, 41.66666667, 100, 100, 32.62389701, 6, 5.41666667],
    [50, 91.66666667, 100, 100, 77.10108349, 1.5, 2.29166667],
    [41.17647059, 100, 100, 100, 74.39602064, 2, 2.35294118],
    [0, 0, 0, 100, 0, 35.5, 35.5],
  ],
  objective.video_to_text: [
    [8.33333333, 58.33333333, 100, 100, 36.49599283, 5.5, 5.54166667],
    [37.5, 100, 100, 100, 72.11247852, 2, 1.8125],
    [25, 100, 100, 100, 62.99605249, 2, 2.25],
    [0, 0, 0, 100, 0, 35.5, 35.5],
  ],
}


@pytest.mark.parametrize("metrics", PUBLISHED)
def test_metrics_are_the_published_ones(metrics):
  for case, want in zip(golden_cases(), PUBLISHED[metrics], strict=True):
    np.testing.assert_allclose(list(metrics(*case).values()), want, 1e-7)


def test_masked_captions_do_not_matter():
  similarities, mask = golden_cases()[2]
  changed = np.where(mask.reshape(-1, 1), similarities, np.nan)
  for metrics in PUBLISHED:
    assert metrics(changed, mask) == metrics(similarities, mask)


def embedded(rng, b, e=3, d=4):
  vectors = rng.normal(size=(b, e, d)).astype(np.float32)
  weights = rng.uniform(size=(b, e)).astype(np.float32)
  return objective.Embedded(jnp.asarray(vectors), jnp.asarray(weights))


def test_similarities_are_means_over_the_experts_that_a_video_has():
  rng = np.random.default_rng(0)
  text, video = embedded(rng, 5), embedded(rng, 3)
  weights = video.weights.at[1, 0].set(0).at[2].set(0)
  got = objective.similarities(text, video._replace(weights=weights))
  for q in range(5):
    for b in range(3):
      pair = np.asarray(text.weights[q] * weights[b])
      products = np.sum(np.asarray(text.embeddings[q] * video.embeddings[b]), axis=-1)
      want = pair @ products / pair.sum() if pair.any() else 0.0
      np.testing.assert_allclose(got[q, b], want, 1e-5)


SQUARE = np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32) / 10


@pytest.mark.parametrize("diagonal", [False, True])
def test_max_margin_is_the_mean_over_wrong_pairs(diagonal):
  terms = []
  for i in range(4):
    for j in range(4):
      if i != j or diagonal:
        terms.append(max(0, 0.2 - SQUARE[i, i] + SQUARE[i, j]))
        terms.append(max(0, 0.2 - SQUARE[i, i] + SQUARE[j, i]))
  got = objective.max_margin_loss(SQUARE, margin=0.2, diagonal=diagonal)
  np.testing.assert_allclose(got, np.mean(terms), 1e-6)
  assert 0 < sum(term > 0 for term in terms) < len(terms)  # Some pairs are apart.


def test_info_nce_is_the_cross_entropy_in_both_directions():
  want = 0
  for matrix in (SQUARE, SQUARE.T):
    odds = np.exp(matrix)
    want -= np.mean(np.log(np.diag(odds) / odds.sum(1)))
  np.testing.assert_allclose(objective.info_nce_loss(SQUARE), want, 1e-6)
  # It stays finite where the exponentials overflow.
  assert np.isfinite(objective.info_nce_loss(SQUARE * 1e5))


def test_max_margin_moves_right_pairs_up_and_violating_ones_down():
  similarities = jnp.array([[0.5, 0.48, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5]])
  gradient = jax.grad(objective.max_margin_loss)(similarities)
  # Text 0 finds video 1 too similar, and video 1 text 0; 12 terms in all.
  want = np.array([[-1, 2, 0], [0, -1, 0], [0, 0, 0]]) / 12
  np.testing.assert_allclose(gradient, want, atol=1e-7)


def test_bad_input_is_refused():
  for loss in (objective.max_margin_loss, objective.info_nce_loss):
    with pytest.raises(ValueError, match="a single pair"):
      loss(jnp.zeros((1, 1)))
    with pytest.raises(ValueError, match="one text per video"):
      loss(jnp.zeros((4, 2)))
  for metrics in PUBLISHED:
    with pytest.raises(ValueError, match="5 captions of 2 videos"):
      metrics(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="a mask of 3 captions: there are 4"):
      metrics(np.zeros((4, 2)), np.ones(3, bool))
    with pytest.raises(ValueError, match="the mask leaves no caption"):
      metrics(np.zeros((4, 2)), np.zeros(4, bool))
    with pytest.raises(ValueError, match="not finite"):
      metrics(np.full((4, 2), np.nan))
