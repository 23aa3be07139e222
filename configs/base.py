"""Every setting, its meaning, and its default."""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The defaults; an experiment's config imports this one and changes it."""
  config = ml_collections.ConfigDict()
  # Of the splits, the initial parameters, the order of examples and all that is
  # random in training.
  config.seed = 0
  # Optimizer steps.
  config.total_steps = 1000
  config.data = _data()
  config.model = _model()
  config.loss = config_dict.create(
    # Of a regression: "absolute" or "squared" error.
    regression="absolute",
    # Moves the targets 0 and 1 this far towards the middle.
    label_smoothing=0.0,
    # Of multi-label: a positive of a label rarer than the mean label weighs
    # (mean frequency / its frequency) to this power.
    balance=0.0,
  )
  config.optim = config_dict.create(
    # Peak learning rate of AdamW.
    learning_rate=1e-3,
    # Steps of linear warm-up from 0.
    warmup_steps=50,
    # After it: "cosine" to 0, or "constant".
    schedule="cosine",
    beta1=0.9,
    beta2=0.999,
    # Decoupled, on matrices only.
    weight_decay=0.0,
    # Largest norm of the gradient; None for no clipping.
    clip_norm=1.0,
    # Of a moving average of the parameters, which is then what is evaluated and kept;
    # None for no average.
    ema_decay=config_dict.placeholder(float),
  )
  config.train = config_dict.create(
    # Steps between two evaluations on validation; each saves a checkpoint.
    eval_every=100,
    # Steps between two lines of training metrics.
    log_every=10,
    # Of validation, and whether a checkpoint is the best: any metric of the task.
    metric="f1_micro",
    # Evaluations without a better value after which training ends; None for never.
    patience=config_dict.placeholder(int),
  )
  return config


def _data() -> ml_collections.ConfigDict:
  return config_dict.create(
    # "debian_programs", "digits", or "tables" for a folder of your own.
    name="debian_programs",
    # Examples of a step, over all shards.
    batch_size=128,
    # Parts of a batch, each with its own slots; a multiple of the devices. A device
    # takes its shards one after the other, so more shards than devices is gradient
    # accumulation. None for one per device.
    shards=config_dict.placeholder(int),
    # Slots of a shard by modality; {} for the proposal of a scan of the data.
    budgets=ml_collections.ConfigDict(),
    # An example over budget: "error", or keep its "first" elements or a "random"
    # subset (by seed).
    overflow="error",
    # In training, chance of a modality of an example to be left out; one always stays.
    modality_dropout=0.0,
    # In training, chance of each element to be left out.
    element_dropout=0.0,
    debian_programs=dict(
      # Programs of the training part that a token must be in to be in the vocabulary.
      min_document_frequency=2,
      # "words" of summary and description in their order, or a "bag" of the distinct
      # ones, each with its whole weight.
      text="bag",
    ),
    digits=dict(
      # "sum", "max", "unique", "contains_nine" or "multimodal".
      task="sum",
      # Number of training sets.
      train_examples=20_000,
      # Largest training set.
      max_size=10,
      # Sizes of the further test splits of unseen images.
      test_sizes=(10, 20, 50, 100),
    ),
    # Folder of one folder per split, each written by `Table.write`.
    tables=dict(path=config_dict.placeholder(str)),
  )


def _model() -> ml_collections.ConfigDict:
  mlp = dict(
    # Widths of the hidden layers.
    hidden=(),
    # Whether a LayerNorm stands before each activation.
    norm=False,
    # Rate of dropout after each activation.
    dropout=0.0,
    # "relu", "gelu", "silu" or "tanh".
    activation="relu",
  )
  return config_dict.create(
    # Width of the space that all elements are encoded into.
    features=256,
    # Of the computation: "float32" or "bfloat16". Parameters, pools and losses are
    # float32.
    dtype="float32",
    # Encoder of token modalities: an embedding, then these layers.
    token=dict(mlp),
    # Encoder of vector modalities.
    dense=dict(mlp),
    # "set_pool" or "concat".
    fusion="set_pool",
    set_pool=dict(
      # Any of sum, mean, max, min, logsumexp, softmax, var, std; side by side.
      pools=("max",),
      # Whether each encoded element is scaled to length 1.
      normalize=False,
      # Whether log(1 + number of elements) is one more feature.
      use_size=False,
    ),
    concat=dict(
      # Of each modality's slot, as above but softmax.
      pools=("mean",),
      # What fills the slot of an absent modality: "zeros" or "learned".
      placeholder="zeros",
    ),
    # From the fused vector to the logits.
    head=dict(
      mlp,
      # Whether a LayerNorm stands before all else.
      input_norm=False,
      # An activation of the fused vector, None for none.
      input_activation=config_dict.placeholder(str),
      # Rate of dropout on the fused vector.
      input_dropout=0.0,
    ),
  )
