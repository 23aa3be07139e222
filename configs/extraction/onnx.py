"""A network of your own as an extractor: any ONNX file that takes pictures.

python -m experiments.extract --config=configs/extraction/onnx.py \
  --config.onnx.path=network.onnx --input=photos --output=photos.parquet
"""

import ml_collections

from configs.extraction import base


def get_config() -> ml_collections.ConfigDict:
  """Return a config with this extractor alone; its settings are `onnx` in `base.py`."""
  config = base.get_config()
  config.extractors = ("onnx",)
  return config
