import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.models.mmt import frames, objective, weights
from deepsets_jax.models.mmt import model as mmt
from deepsets_jax.ragged import Ragged
from tests.models import mmt_golden

EXPERTS = {"face": 3, "s3d": 4, "vggish": 2}
# Four videos: more frames than become tokens, absent experts, an empty video.
LENGTHS = {"face": [2, 0, 1, 0], "s3d": [5, 1, 0, 0], "vggish": [0, 2, 4, 0]}
FEATURES, LAYERS, HEADS, HIDDEN, TEXT, TIMES = 6, 2, 2, 5, 4, 5
VIDEOS, CAPTIONS, MAX_FRAMES, WINDOW = 4, 2, 3, 2.0


def public_shapes():
  """The names and shapes of the public model, of small sizes, without its BERT."""
  shapes = {}

  def layer(name, outputs, inputs=None):
    shapes[f"{name}.weight"] = (outputs,) if inputs is None else (outputs, inputs)
    shapes[f"{name}.bias"] = (outputs,)

  for expert, width in EXPERTS.items():
    layer(f"video_dim_reduce.{expert}.fc", FEATURES, width)
    layer(f"text_GU.{expert}.fc", FEATURES, TEXT)
    layer(f"text_GU.{expert}.cg.fc", FEATURES, FEATURES)
    layer(f"text_GU.{expert}.cg.batch_norm", FEATURES)
    shapes[f"text_GU.{expert}.cg.batch_norm.running_mean"] = (FEATURES,)
    shapes[f"text_GU.{expert}.cg.batch_norm.running_var"] = (FEATURES,)
    layer(f"moe_fc_txt.{expert}", 1, TEXT)
  shapes["vid_bert.embeddings.position_embeddings.weight"] = (TIMES, FEATURES)
  shapes["vid_bert.embeddings.token_type_embeddings.weight"] = (19, FEATURES)
  layer("vid_bert.embeddings.layer_norm", FEATURES)
  for index in range(LAYERS):
    name = f"vid_bert.encoder.layer.{index}"
    for projection in ("query", "key", "value"):
      layer(f"{name}.attention.self.{projection}", FEATURES, FEATURES)
    layer(f"{name}.attention.output.dense", FEATURES, FEATURES)
    layer(f"{name}.attention.output.layer_norm", FEATURES)
    layer(f"{name}.intermediate.dense", HIDDEN, FEATURES)
    layer(f"{name}.output.dense", FEATURES, HIDDEN)
    layer(f"{name}.output.layer_norm", FEATURES)
  return shapes


def recipe():
  """Weights, frames, times and texts of the golden numbers, drawn in this order.

  Weights by sorted name, half a standard normal; scales of norms are 1 plus that, and
  variances 1 plus its absolute value. Then of each expert its frames, standard normal,
  and its times, uniform in [0, 10); of a face no time is known (-1, and none drawn).
  Then two texts a video.
  """
  rng = np.random.default_rng(0)
  state = {}
  for name, shape in sorted(public_shapes().items()):
    x = rng.normal(size=shape) * 0.5
    if name.endswith("norm.weight"):
      x = 1 + x
    if name.endswith("running_var"):
      x = 1 + np.abs(x)
    state[name] = x.astype(np.float32)
  values, times = {}, {}
  for expert, width in EXPERTS.items():
    n = sum(LENGTHS[expert])
    values[expert] = rng.normal(size=(n, width)).astype(np.float32)
    seconds = np.full(n, -1) if expert == "face" else rng.uniform(0, 10, size=n)
    times[expert] = seconds.astype(np.float32)
  text = rng.normal(size=(VIDEOS * CAPTIONS, TEXT)).astype(np.float32)
  return state, values, times, text


STATE, VALUES, SECONDS, TEXTS = recipe()
VARIABLES = weights.from_torch_state(STATE)
FIRST = TEXTS[::CAPTIONS]


def pack(padding=2, only=range(VIDEOS)):
  """The experts of the recipe, with the frames of some videos; the others are empty."""
  experts = {}
  for name, lengths in LENGTHS.items():
    owners = np.repeat(np.arange(VIDEOS), lengths)
    lengths = [n if i in only else 0 for i, n in enumerate(lengths)]
    rows = np.isin(owners, list(only))
    slots = len(rows) + padding
    values = np.zeros((slots, EXPERTS[name]), np.float32)
    values[: rows.sum()] = VALUES[name][rows]
    times = np.zeros(slots, np.float32)
    times[: rows.sum()] = SECONDS[name][rows]
    offsets = jnp.asarray(np.cumsum([0, *lengths]), jnp.int32)
    experts[name] = Ragged(jnp.asarray(values), offsets, times=jnp.asarray(times))
  return experts


def published_frames(experts):
  return {
    name: jnp.asarray(
      frames.keep_as_published(np.asarray(x.offsets), x.num_slots, MAX_FRAMES)
    )
    for name, x in experts.items()
  }


def build(keep_missing=True, experts=EXPERTS, dropout=0.1, **settings):
  video = mmt.VideoTower(
    experts,
    FEATURES,
    num_layers=LAYERS,
    num_heads=HEADS,
    hidden=HIDDEN,
    max_frames=MAX_FRAMES,
    num_times=TIMES,
    window=WINDOW,
    dropout=dropout,
    keep_missing_modalities=keep_missing,
    **settings,
  )
  text = mmt.TextTower(tuple(experts), FEATURES, dropout=dropout, **settings)
  return mmt.MMT(text, video)


@functools.cache
def compiled(keep_missing=True, names=tuple(EXPERTS), **settings):
  """(variables, texts, experts, frames to keep) -> the video, and similarities."""
  model = build(keep_missing, {name: EXPERTS[name] for name in names}, **settings)

  def outputs(model, text, experts, keep):
    video = model.video(experts, keep=keep, train=False)
    return video, objective.similarities(model.text(text, train=False), video)

  return jax.jit(lambda variables, *x: model.apply(variables, *x, method=outputs))


def similarities(experts, keep_missing=True, variables=VARIABLES, **settings):
  keep = published_frames(experts)
  return np.asarray(
    compiled(keep_missing, **settings)(variables, TEXTS, experts, keep)[1]
  )


def losses_and_gradients(keep_missing):
  """Both losses, and gradients of the margin loss by variables, text and frames."""
  model = build(keep_missing)

  def losses(variables, text, values, experts, keep):
    experts = {k: v.replace(values=values[k]) for k, v in experts.items()}
    found = model.apply(variables, text, experts, keep=keep, train=False)
    others = {
      "margin_diag": objective.max_margin_loss(found, diagonal=True),
      "nce": objective.info_nce_loss(found),
    }
    return objective.max_margin_loss(found), others

  experts = pack()
  values = {k: v.values for k, v in experts.items()}
  call = jax.jit(jax.value_and_grad(losses, (0, 1, 2), has_aux=True))
  (margin, others), gradients = call(
    VARIABLES, FIRST, values, experts, published_frames(experts)
  )
  return others | {"margin": margin}, gradients


@pytest.mark.parametrize("keep_missing", [True, False])
def test_weights_carried_over_give_the_public_models_numbers(keep_missing):
  want = mmt_golden.PUBLISHED[keep_missing]
  experts = pack()
  keep = published_frames(experts)
  video, found = compiled(keep_missing)(VARIABLES, TEXTS, experts, keep)
  np.testing.assert_allclose(found, want["similarities"], atol=1e-5)
  if keep_missing:
    np.testing.assert_allclose(video.embeddings, want["videos"], atol=1e-5)


@pytest.mark.parametrize("keep_missing", [True, False])
def test_losses_and_gradients_are_the_public_models(keep_missing):
  want = mmt_golden.PUBLISHED[keep_missing]
  losses, (variables, text, values) = losses_and_gradients(keep_missing)
  for name, loss in losses.items():
    np.testing.assert_allclose(loss, want[name], atol=1e-5)
  np.testing.assert_allclose(text, want["text_gradient"], atol=1e-6)
  for name, gradient in values.items():
    real = len(VALUES[name])
    np.testing.assert_allclose(gradient[:real], want[f"{name}_gradient"], atol=1e-6)
    assert not np.asarray(gradient[real:]).any()
  # One of the videos has no frames.
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
  for expert in EXPERTS:
    assert np.asarray(variables["params"]["video"][f"code_{expert}"]).any()


def test_in_training_texts_are_normalised_as_in_the_public_model():
  experts = pack()
  found, updated = jax.jit(
    lambda variables: build(dropout=0.0).apply(
      variables,
      FIRST,
      experts,
      keep=published_frames(experts),
      train=True,
      mutable=["batch_stats"],
    )
  )(VARIABLES)
  np.testing.assert_allclose(found, mmt_golden.TRAINING, atol=1e-5)
  statistics = updated["batch_stats"]["text"]["gate_norm_face"]
  np.testing.assert_allclose(statistics["mean"], mmt_golden.MEAN, atol=1e-6)
  np.testing.assert_allclose(statistics["var"], mmt_golden.VAR, atol=1e-6)


def test_an_absent_expert_equals_an_undeclared_one_if_missing_ones_are_not_kept():
  absent = {k: v for k, v in pack().items() if k != "vggish"}
  pruned = {
    collection: {
      tower: {k: v for k, v in tree.items() if not k.endswith("_vggish")}
      for tower, tree in towers.items()
    }
    for collection, towers in VARIABLES.items()
  }
  want = similarities(absent, False, pruned, names=("face", "s3d"))
  empty = jax.tree.map(jnp.zeros_like, pack()["vggish"])
  got = similarities(absent | {"vggish": empty}, False)
  np.testing.assert_allclose(got, want, atol=1e-6)
  assert not want[:, 3].any()  # A video of nothing is similar to no text.


def test_an_expert_outside_the_dictionary_equals_one_without_frames():
  experts = pack()
  absent = {k: v for k, v in experts.items() if k != "face"}
  empty = jax.tree.map(jnp.zeros_like, experts["face"])
  want = similarities(experts | {"face": empty})
  np.testing.assert_allclose(similarities(absent), want, atol=1e-6)
  assert not np.allclose(want, similarities(experts), atol=1e-3)


def test_order_of_experts_slots_and_batch_mates_do_not_matter():
  want = similarities(pack())
  reversed_order = tuple(reversed(EXPERTS))
  got = similarities(pack(padding=9), names=reversed_order)
  np.testing.assert_allclose(got, want, atol=1e-6)
  got = similarities(pack(only=[2]))
  np.testing.assert_allclose(got[:, 2], want[:, 2], atol=1e-6)


def test_the_aggregated_token_uses_all_frames_and_only_some_become_tokens():
  experts = pack()
  s3d = experts["s3d"]

  def embedded(experts, keep):
    return np.asarray(compiled(False)(VARIABLES, TEXTS, experts, keep)[0].embeddings)

  none = {k: jnp.zeros(v.num_slots, bool) for k, v in experts.items()}
  want = embedded(experts, none)  # Without a frame token.
  later = experts | {"s3d": s3d.replace(times=s3d.times + 5)}
  np.testing.assert_array_equal(embedded(later, none), want)
  values = s3d.values.at[4, 0].set(9.0)
  changed = experts | {"s3d": s3d.replace(values=values)}
  assert not np.allclose(embedded(changed, none)[0], want[0], atol=1e-3)
  # By default, evenly spread ones are tokens.
  keep = {k: frames.keep_evenly(v, MAX_FRAMES) for k, v in experts.items()}
  got = embedded(experts, None)
  np.testing.assert_allclose(got, embedded(experts, keep), atol=1e-6)
  assert not np.allclose(got, want, atol=1e-3)


def test_training_uses_dropout_and_random_frames():
  model = build()

  @jax.jit
  def train(key):
    return model.apply(
      VARIABLES, FIRST, pack(), train=True, mutable="batch_stats", rngs={"dropout": key}
    )[0]

  first, second, again = (np.asarray(train(jax.random.key(i))) for i in (0, 1, 0))
  assert np.isfinite(first).all() and not np.allclose(first, second, atol=1e-4)
  np.testing.assert_array_equal(first, again)


def test_new_variables_are_those_of_the_public_model():
  experts = {"s3d": pack()["s3d"]}  # Whatever is in the batch.
  init = functools.partial(build().init, train=False)
  variables = jax.eval_shape(init, jax.random.key(0), TEXTS, experts)

  def arrays(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

  assert arrays(variables) == arrays(VARIABLES)


def test_bfloat16_is_close():
  got = similarities(pack(), dtype=jnp.bfloat16)
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, similarities(pack()), atol=0.03)


def test_from_torch_state_converts_saved_weights_and_refuses_unknown_names():
  saved = {f"module.{name}": array for name, array in STATE.items()}
  saved["module.txt_bert.embeddings.LayerNorm.weight"] = np.ones(3)
  saved["module.vid_bert.pooler.dense.bias"] = np.ones(3)
  saved["module.text_GU.face.cg.batch_norm.num_batches_tracked"] = np.array(1)
  jax.tree.map(
    np.testing.assert_array_equal, weights.from_torch_state(saved), VARIABLES
  )
  with pytest.raises(ValueError, match="'moe_fc_vid.face.weight' is not of"):
    weights.from_torch_state(STATE | {"moe_fc_vid.face.weight": np.ones((1, 6))})
  with pytest.raises(ValueError, match="no token type of 's3d'"):
    weights.from_torch_state(STATE, token_types={"face": 3})
  name = "vid_bert.embeddings.position_embeddings.weight"
  with pytest.raises(ValueError, match=f"no '{name}'"):
    weights.from_torch_state({k: v for k, v in STATE.items() if k != name})


def test_bad_input_is_refused():
  def call(model, text=TEXTS, experts=None, train=False):
    experts = pack() if experts is None else experts
    init = functools.partial(model.init, train=train)
    keys = {name: jax.random.key(0) for name in ("params", "dropout")}
    jax.eval_shape(init, keys, text, experts)

  with pytest.raises(ValueError, match="without any modality"):
    call(build(), experts={})
  with pytest.raises(ValueError, match="unknown expert 'audio'"):
    call(build(), experts={"audio": pack()["face"]})
  with pytest.raises(ValueError, match="s3d: 3 features, expected 4"):
    call(build(), experts={"s3d": pack()["face"]})
  with pytest.raises(ValueError, match="a single text"):
    call(build(), text=TEXTS[:1], train=True)
  with pytest.raises(ValueError, match="4 heads do not divide 6"):
    call(build().clone(video=build().video.clone(num_heads=4)))
  with pytest.raises(ValueError, match="experts of the text \\['face'\\]"):
    call(build().clone(text=mmt.TextTower(("face",), FEATURES)))
