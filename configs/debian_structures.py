"""Every fusion structure on debian_programs, at about four million parameters.

  python -m experiments.main --config=configs/debian_structures.py:two_stage
  python -m experiments.main --config=configs/debian_structures.py:set_pool,1,sentences

The argument has a structure (one of `STRUCTURES`), a seed, and the form of the text:
"bag", "words" or "sentences". The default form is that of the structure; "sentences"
needs the file that tools.encode_sentences writes. All other settings are those of
debian_programs.py. A run takes under a minute on two cores, and a few minutes if all
elements attend to each other.
"""

from typing import Any, NamedTuple

import ml_collections

from configs import debian_programs
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models.config import set_fusion

SENTENCES = "runs/debian_sentences.parquet"
_ORDERED = ("summary", "description")
_BOTH = ("sum", "max")


class Structure(NamedTuple):
  """A structure, with its best settings in configs/sweeps/debian_structures.py.

  Attributes:
    fusion: Name of the fusion.
    features: Width of the common space, chosen so that the parameters match.
    settings: Settings of the fusion.
    sequence: Modalities with a transformer of their own.
    positions: Encoding of the positions in ordered modalities; None for none.
    text: Form of the text: "bag" or "words".
    learning_rate: Peak learning rate of the embeddings.
    dropout: Dropout probability of the fused vector.
    norm: Whether a LayerNorm is applied to the fused vector.
    factor: Multiplies the learning rate of the fusion, or of the transformers if there
      are any.
    warmup: Steps to the peak learning rate. Attention over all elements at once does
      not learn without a warmup.
  """

  fusion: str
  features: int
  settings: dict[str, Any]
  sequence: tuple[str, ...] = ()
  positions: str | None = None
  text: str = "bag"
  learning_rate: float = 2e-2
  dropout: float = 0.5
  norm: bool = False
  factor: float = 0.1
  warmup: int = 14


_BLOCK = dict(hidden=128, dropout=0.2)
STRUCTURES = {
  "concat": Structure("concat", 124, dict(pools=_BOTH)),
  "set_pool": Structure("set_pool", 128, dict(pools=_BOTH)),
  "set_pool_max": Structure("set_pool", 128, dict(pools=("max",))),
  "set_pool_mean": Structure("set_pool", 128, dict(pools=("mean",)), norm=True),
  "set_pool_sum": Structure("set_pool", 128, dict(pools=("sum",))),
  "set_pool_words": Structure(
    "set_pool", 120, dict(pools=_BOTH), _ORDERED, "rotary", "words", norm=True
  ),
  "two_stage": Structure(
    "two_stage",
    112,
    dict(pool="sum", readout=_BOTH, **_BLOCK),
    debian_programs.MODALITIES,
    "rotary",
    "words",
    norm=True,
  ),
  "single_stream": Structure(
    "single_stream",
    128,
    dict(fused="max", readout="all", pools=_BOTH, **_BLOCK),
    (),
    "sinusoidal",
    "words",
    norm=True,
  ),
  "torchmultimodal": Structure(
    "torchmultimodal",
    128,
    dict(element_pool="sum", pool="sum", apply_attention=True, auto_mapping=True),
    norm=True,
  ),
  "set_transformer": Structure(
    "set_transformer",
    120,
    dict(inducing=16, seeds=2, **_BLOCK),
    norm=True,
    factor=0.03,
    warmup=60,
  ),
  "bottleneck": Structure("bottleneck", 100, dict(pool="sum", **_BLOCK), norm=True),
  "gated": Structure("gated", 108, dict(pool="sum"), norm=True),
  "hierarchical": Structure("hierarchical", 128, {}, norm=True),
  "mil": Structure("mil", 128, dict(gated=True), norm=True),
  "low_rank": Structure("low_rank", 120, dict(pool="sum", rank=4), norm=True),
}


def get_config(argument: str = "two_stage,0") -> ml_collections.ConfigDict:
  """Return the config of a structure, at matched parameters.

  Args:
    argument: `STRUCTURE,SEED` or `STRUCTURE,SEED,TEXT`; the seed may be left out.

  Raises:
    ConfigError: There is no such structure.
  """
  name, seed, text = (*argument.split(","), "", "")[:3]
  if name not in STRUCTURES:
    raise ConfigError(f"unknown structure {name!r}; one of {sorted(STRUCTURES)}")
  structure = STRUCTURES[name]
  config = debian_programs.get_config(f"set_pool,{seed}")
  config.data.debian_programs.text = text or structure.text
  ordered = _ORDERED
  if text == "sentences":
    ordered = ("sentences",)
    config.data.debian_programs.sentences = SENTENCES
    # A package with all of TeX has 1,600 sentences, far more than any other, so its
    # last ones are left out.
    config.data.update(overflow="first")
    config.data.budgets.sentences = 1024
  elif config.data.debian_programs.text != "words":
    ordered = ()
  config.model.features = structure.features
  set_fusion(config.model, structure.fusion, **structure.settings)
  sequence = structure.sequence
  if text == "sentences" and sequence:
    sequence = ("sentences", *sequence[2:])
  config.model.sequence.update(modalities=sequence, **_BLOCK)
  if structure.positions:
    for modality in ordered:
      config.model.positions[modality] = structure.positions
  config.model.head.update(input_dropout=structure.dropout, input_norm=structure.norm)
  config.optim.update(
    learning_rate=structure.learning_rate, warmup_steps=structure.warmup
  )
  if sequence or structure.fusion == "single_stream":
    config.optim.factors.transformer = structure.factor
  elif structure.fusion not in ("concat", "set_pool"):
    config.optim.factors.fusion = structure.factor
  return config
