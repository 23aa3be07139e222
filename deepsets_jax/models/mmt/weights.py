"""Conversion of the weights of the public MMT model to the variables of `MMT`.

The model is the one published with Gabeur et al., "Multi-modal Transformer for Video
Retrieval" (2020), in the configuration of its experiments.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from deepsets_jax.foundation.errors import ConfigError

# The row of each expert in the public table of token types; row 0 is the [CLS] token's.
# These are the rows of the experiments on features that the authors extracted.
TOKEN_TYPES: Mapping[str, int] = {
  "s3d": 1,
  "vggish": 2,
  "face": 3,
  "audio": 4,
  "rgb": 5,
  "speech": 6,
  "ocr": 7,
  "flow": 8,
  "scene": 9,
}

# BERT for texts, a pooler that nothing reads, and counters of batches.
_LEFT_BEHIND = r"txt_bert\..*|vid_bert\.pooler\..*|.*\.num_batches_tracked"
_ENCODER = r"vid_bert\.encoder\.layer\.(\d+)"
_LINEAR = {
  r"video_dim_reduce\.([^.]+)\.fc": r"video/reduce_\1",
  _ENCODER + r"\.attention\.self\.(query|key|value)": r"video/layer_\1/\2",
  _ENCODER + r"\.attention\.output\.dense": r"video/layer_\1/attention_output",
  _ENCODER + r"\.intermediate\.dense": r"video/layer_\1/hidden",
  _ENCODER + r"\.output\.dense": r"video/layer_\1/output",
  r"text_GU\.([^.]+)\.fc": r"text/project_\1",
  r"text_GU\.([^.]+)\.cg\.fc": r"text/gate_\1",
  r"moe_fc_txt\.([^.]+)": r"text/weight_\1",
}
_NORM = {
  r"vid_bert\.embeddings\.layer_norm": r"video/norm",
  _ENCODER + r"\.attention\.output\.layer_norm": r"video/layer_\1/attention_norm",
  _ENCODER + r"\.output\.layer_norm": r"video/layer_\1/output_norm",
  r"text_GU\.([^.]+)\.cg\.batch_norm": r"text/gate_norm_\1",
}
_TYPES = "vid_bert.embeddings.token_type_embeddings.weight"
_POSITIONS = "vid_bert.embeddings.position_embeddings.weight"


def from_torch_state(
  state: Mapping[str, np.ndarray], *, token_types: Mapping[str, int] = TOKEN_TYPES
) -> dict[str, Any]:
  """Converts the state of the public PyTorch model to the variables of an `MMT`.

  BERT for texts, the unused pooler and the counters of batches are not converted.

  Args:
    state: The arrays of the public model by name, `{name: tensor.numpy()}`. The prefix
      "module.", which parallel training adds to names, may be there or not.
    token_types: The row of each expert in the table of token types.

  Returns:
    "params" and "batch_stats" of an `MMT` with the same experts and sizes.

  Raises:
    ConfigError: A name is not in the published configuration, a table is missing, or an
      expert has no token type.
  """
  state = {name.removeprefix("module."): np.asarray(x) for name, x in state.items()}
  variables: dict[str, Any] = {}
  for name, array in state.items():
    if re.fullmatch(_LEFT_BEHIND, name) or name in (_TYPES, _POSITIONS):
      continue
    path = _renamed(name)
    _put(variables, path, array.T if path.endswith("/kernel") else array)
  for name in (_TYPES, _POSITIONS):
    if name not in state:
      raise ConfigError(f"no {name!r} in the state of the model")
  _put(variables, "params/video/time_codes", state[_POSITIONS])
  _put(variables, "params/video/code_cls", state[_TYPES][0])
  for path in list(variables["params"]["video"]):
    if path.startswith("reduce_"):
      expert = path.removeprefix("reduce_")
      if expert not in token_types:
        raise ConfigError(
          f"no token type of {expert!r}; add it to token_types, which has"
          f" {sorted(token_types)}"
        )
      code = state[_TYPES][token_types[expert]]
      _put(variables, f"params/video/code_{expert}", code)
  return variables


def _renamed(name: str) -> str:
  """The path in the variables of a parameter of the public model."""
  for pattern, path in (_LINEAR | _NORM).items():
    leaves = {
      "weight": ("params", "kernel" if pattern in _LINEAR else "scale"),
      "bias": ("params", "bias"),
      "running_mean": ("batch_stats", "mean"),
      "running_var": ("batch_stats", "var"),
    }
    match = re.fullmatch(rf"(?:{pattern})\.({'|'.join(leaves)})", name)
    if match:
      collection, leaf = leaves[name.rpartition(".")[2]]
      return f"{collection}/{match.expand(path)}/{leaf}"
  raise ConfigError(f"{name!r} is not of the published configuration of the model")


def _put(variables: dict[str, Any], path: str, array: np.ndarray) -> None:
  *parents, leaf = path.split("/")
  node = functools.reduce(lambda x, key: x.setdefault(key, {}), parents, variables)
  node[leaf] = array
