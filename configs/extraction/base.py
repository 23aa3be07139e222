"""Every setting of `experiments.extract`, its meaning, and its default."""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The defaults; a config of one's own imports this one and changes it."""
  config = ml_collections.ConfigDict()
  # Names, see `deepsets_jax.extraction.EXTRACTORS`; --extractors goes before it.
  config.extractors = ("image", "faces", "lines", "sentences")
  # Rows that are worked on together, and inputs that an extractor gets at once.
  config.batch_size = 32
  # Pixels: a picture that is wider or higher is made smaller. More finds smaller faces
  # and letters, and takes longer.
  config.max_side = 1024
  # Processes, each with all extractors; None for as many as there are cores. With one,
  # an accelerator is used if JAX has one.
  config.workers = config_dict.placeholder(int)
  # Rows of a file that a Beam pipeline writes.
  config.shard_rows = 1000
  config.regions = config_dict.create(
    # The least probability of a region's class.
    score=0.4,
    # Intersection over union with a better region, above which one goes.
    overlap=0.2,
    # Regions of a picture, at most.
    count=16,
  )
  config.faces = config_dict.create(
    # The least of the detector; below 0.25 are many that are none.
    score=0.25,
    # How often a picture is doubled before the search, for smaller faces.
    upsample=1,
  )
  config.lines = config_dict.create(
    # The least confidence of a reading.
    score=0.6,
    # Of a line's text: "sentences" or "static_words".
    encoder="sentences",
    # Of ONNX Runtime; None for a worker's share of the cores.
    threads=config_dict.placeholder(int),
  )
  config.onnx = config_dict.create(
    # An ONNX file.
    path=config_dict.placeholder(str),
    # Of the column.
    name="onnx",
    # Height and width of its input, where the file leaves them open.
    size=config_dict.placeholder(tuple),
    # Of its input, where the file leaves it open: "NCHW" or "NHWC".
    layout=config_dict.placeholder(str),
    # Of red, green and blue, as shares of 255: is taken from the pixels.
    mean=(0.485, 0.456, 0.406),
    # They are then divided by it.
    std=(0.229, 0.224, 0.225),
    # Name of its output, where there are several.
    output=config_dict.placeholder(str),
    # Of its weights, for the record.
    licence=config_dict.placeholder(str),
    # Of ONNX Runtime; None for a worker's share of the cores.
    threads=config_dict.placeholder(int),
  )
  return config
