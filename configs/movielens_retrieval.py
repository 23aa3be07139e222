"""Two-tower retrieval of the next film of a user of MovieLens 100K.

  python -m experiments.main --config=configs/movielens_retrieval.py
  python -m experiments.main --config=configs/movielens_retrieval.py:two_stage,1

The argument has a variant (one of `VARIANTS`) and a seed. The data are downloaded once,
with pip. A run takes a minute or two on two cores, and a few more with transformers.
"""

from typing import Any, NamedTuple

import ml_collections

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models.config import set_fusion
from deepsets_jax.tasks import defaults

_USER_FIELDS = ("age", "gender", "occupation")
_TEXT = ("title", "year", "genres")
_GRAPH = (*_TEXT, "triples")


class Variant(NamedTuple):
  """The modalities of users and items, and the structure of the user tower.

  Attributes:
    user_fields: Fields of users that are modalities.
    item_fields: Fields of items that are modalities.
    ids: Whether items have id vectors.
    fusion: Fusion of the user tower.
    settings: Settings of this fusion.
    fading: Whether the elements of a history fade with the number of later elements.
    ages: Whether the elements of a history encode the ages of their events.
    attends: Whether the history has a transformer, with positions by order.
    max_history: Number of latest events of a history that are kept.
    width: Width of the elements, and of the vectors of users and items.
    cold_items: Share of the items whose events are left out of training.
    retrieval: Changes of `config.retrieval`.
  """

  user_fields: tuple[str, ...] = ()
  item_fields: tuple[str, ...] = ()
  ids: bool = True
  fusion: str = "set_pool"
  settings: dict[str, Any] = {"pools": ("sum",)}  # noqa: RUF012
  fading: bool = True
  ages: bool = False
  attends: bool = False
  max_history: int = 50
  width: int = 128
  cold_items: float = 0.0
  retrieval: dict[str, Any] = {}  # noqa: RUF012


_BLOCK = dict(hidden=64, dropout=0.2)
_MEAN = dict(pools=("mean",))
VARIANTS = {
  "history": Variant(),
  "users": Variant(_USER_FIELDS),
  "text": Variant(_USER_FIELDS, _TEXT),
  "graph": Variant(_USER_FIELDS, _GRAPH),
  "ages": Variant(ages=True),
  "unordered": Variant(fading=False, settings=_MEAN),
  "transformer": Variant(attends=True, max_history=10, width=64),
  "set_pool": Variant(_USER_FIELDS, max_history=10, width=64),
  "two_stage": Variant(
    _USER_FIELDS,
    fusion="two_stage",
    settings=dict(pool="sum", readout=("mean",), **_BLOCK),
    attends=True,
    max_history=10,
    width=64,
  ),
  "single_stream": Variant(
    _USER_FIELDS,
    fusion="single_stream",
    settings=dict(fused=None, readout="all", pools=("mean",), **_BLOCK),
    max_history=10,
    width=64,
  ),
  "own_embeddings": Variant(retrieval=dict(tie_item_tower=False)),
  "seen_as_negatives": Variant(retrieval=dict(mask_seen=False)),
  "in_batch_only": Variant(retrieval=dict(num_uniform_negatives=0)),
  "full_softmax": Variant(retrieval=dict(in_batch=False, num_uniform_negatives=1682)),
  "cosine": Variant(retrieval=dict(normalize=True, temperature=0.07)),
  "cold": Variant(item_fields=_GRAPH, cold_items=0.1),
  "cold_ids": Variant(cold_items=0.1),
}


def get_config(argument: str = "history,0") -> ml_collections.ConfigDict:
  """Return the config of a variant.

  Args:
    argument: `VARIANT` or `VARIANT,SEED`.

  Raises:
    ConfigError: There is no such variant.
  """
  name, _, seed = argument.partition(",")
  if name not in VARIANTS:
    raise ConfigError(f"unknown variant {name!r}; one of {sorted(VARIANTS)}")
  variant = VARIANTS[name]
  config = defaults.retrieval()
  config.seed = int(seed or 0)
  config.total_steps = 1750
  config.data.batch_size = 512
  config.data.histories.update(
    max_history=variant.max_history,
    user_fields=variant.user_fields,
    item_fields=variant.item_fields,
    id_events=1 if variant.ids else None,
    cold_items=variant.cold_items,
  )
  config.model.features = variant.width
  set_fusion(config.model, variant.fusion, **variant.settings)
  config.model.head.update(input_dropout=0.5, project=False)
  if variant.fading:
    config.model.fading = ("history",)
  if variant.attends:
    config.model.sequence.update(modalities=("history",), **_BLOCK)
  if variant.attends or variant.fusion == "single_stream":
    config.model.positions.history = "recency"
  elif variant.ages:
    config.model.positions.history = "sinusoidal"
  config.item_model.update(features=variant.width)
  config.item_model.set_pool.pools = ("sum",)
  config.item_model.head.project = False
  config.retrieval.update(dimensions=variant.width, num_uniform_negatives=1024)
  config.retrieval.update(variant.retrieval)
  config.optim.update(learning_rate=3e-3, weight_decay=0.01, warmup_steps=100)
  config.train.update(eval_every=250, log_every=50)
  return config
