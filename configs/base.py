"""Every setting, its meaning, and its default."""

from typing import Any

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The defaults; an experiment's config imports this one and changes it."""
  config = ml_collections.ConfigDict()
  # Of the splits, the initial parameters, the order of examples and all that is
  # random in training.
  config.seed = 0
  # What is asked: "labels" of examples, "recall" of the items that users come to,
  # or "ranking" of some.
  config.task = "supervised"
  # Optimizer steps.
  config.total_steps = 1000
  config.data = _data()
  # Of the examples; in recall, of the users.
  config.model = _model()
  # In recall, of the items.
  config.item_model = _model()
  config.loss = config_dict.create(
    # Of a regression: "absolute" or "squared" error.
    regression="absolute",
    # Moves the targets 0 and 1 this far towards the middle.
    label_smoothing=0.0,
    # Multi-label: a positive of a label rarer than the mean label weighs
    # (mean frequency / its frequency) to this power; of binary and multi-class, so
    # does an example of a rare class.
    balance=0.0,
  )
  config.retrieval = config_dict.create(
    # Width of the space of users and items.
    dimensions=64,
    # Whether a history is made of the item tower's vectors of its items; else users
    # have embeddings of items of their own.
    tie_item_tower=True,
    # Whether users and items are scaled to length 1.
    normalize=False,
    # Divides the products of users and items in the loss.
    temperature=1.0,
    # Whether the items of a shard's other users are negatives.
    in_batch=True,
    # Whether the items in a user's history are none of its negatives: right where
    # nobody comes to an item twice.
    mask_seen=True,
    # Negatives of a shard drawn uniformly from all items, all different; of fewer
    # items all.
    num_uniform_negatives=256,
    # Whether the negatives of all shards are those of each, gathered from all devices.
    cross_device_negatives=False,
    # Places of a list at which it is measured.
    cutoffs=(10,),
  )
  # Besides, of recall: dimensions, shared and normalize.
  config.ranking = config_dict.create(
    # Where lists come from: "ratings", runs of a user's events by how it rated them;
    # or "clicks", the item of an event among random ones.
    lists="ratings",
    # Of "ratings", events of a list to train on.
    list_size=20,
    # Of "clicks", random items of a list.
    negatives=20,
    # "softmax", "pairwise" or "pointwise".
    loss="softmax",
    # Widths of the hidden layers on the vectors of a user and an item.
    hidden=(64,),
    # Rate of dropout after each of them.
    dropout=0.0,
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
    # What multiplies it in parts of the model, by the part's name in the parameters:
    # embeddings may want more than transformers.
    factors=ml_collections.ConfigDict(),
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
    # Of validation, and whether a checkpoint is the best: any metric of the task; None
    # for its usual one.
    metric=config_dict.placeholder(str),
    # Evaluations without a better value after which training ends; None for never.
    patience=config_dict.placeholder(int),
  )
  return config


def _data() -> ml_collections.ConfigDict:
  return config_dict.create(
    # "debian_programs", "digits" or "multiple_features"; "table" for a file of your
    # own, "tables" for a folder of tables written by `Table.write`. Of users, items
    # and events, "movielens", or "clicks" for a folder of your own.
    name="debian_programs",
    # Of "table", a Parquet, Arrow, JSON lines or CSV file, a folder or a pattern of
    # such, or tfds:NAME; of "tables", the folder of one folder per split; of "clicks",
    # the folder of events, and perhaps items and users.
    path=config_dict.placeholder(str),
    # Of "table", what its columns are, as experiments.describe writes it; {} for the
    # file of that name beside it.
    columns=ml_collections.ConfigDict(),
    # Examples of a step, over all shards.
    batch_size=128,
    # Parts of a batch, each with its own slots; a multiple of the devices. A device
    # takes its shards one after the other, so more shards than devices is gradient
    # accumulation. None for one per device, or more of a table of many columns, whose
    # cells take memory.
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
    # Of recall: users, items and the events between them.
    histories=dict(
      # "prefixes": every training event is an example of every epoch, with the history
      # before it; or "users": one event of each user, drawn anew in each epoch.
      examples="prefixes",
      # Of a longer history the latest so many events.
      max_history=50,
      # Events of each user held out for validation, and as many for test.
      held_out=1,
      # Share of the items, by seed, whose events are left out, so that nothing is
      # trained on them, and asked for in a split "cold".
      cold_items=0.0,
      # Fields of users that are modalities; None for all there are.
      user_fields=config_dict.placeholder(tuple),
      # The same of items.
      item_fields=config_dict.placeholder(tuple),
      # Training events below which an item has no id of its own, but its fields; None
      # for no ids at all.
      id_events=config_dict.placeholder(int),
    ),
    # Of "clicks", the columns of the events.
    clicks=dict(
      # Of the user's id; also in the file of users, if there is one.
      user="user",
      # Of the item's id; also in the file of items.
      item="item",
      # Of the time: dates, timestamps, or seconds since 1970.
      time="time",
      # Of the rating, a number. Without such a column events are clicks.
      rating="rating",
    ),
    debian_programs=dict(
      # Programs of the training part that a token must be in to be in the vocabulary.
      min_document_frequency=2,
      # "words" of summary and description in their order, or a "bag" of the distinct
      # ones, each with its whole weight; or the vectors of their "sentences".
      text="bag",
      # Of "sentences", the file that tools.encode_sentences wrote.
      sentences=config_dict.placeholder(str),
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
      # Of "multimodal", chance of the character reader to read a wrong digit.
      misread_rate=0.1,
    ),
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
  transformer = dict(
    # Number of blocks.
    layers=1,
    # They divide the width.
    heads=4,
    # Width of the feed-forward layers; None for four times `features`.
    hidden=config_dict.placeholder(int),
    # Rate of dropout on what each half of a block adds.
    dropout=0.0,
  )
  return config_dict.create(
    # Width of the space that all elements are encoded into.
    features=256,
    # Of the computation: "float32" or "bfloat16". Parameters, pools and losses are
    # float32.
    dtype="float32",
    # Encoder of token modalities: an embedding, then these layers. For cells of many
    # columns (kind "fields") a vector of the column and one of its value are the first
    # of the layers.
    token=dict(mlp),
    # Encoder of vector modalities.
    dense=dict(mlp),
    # Transformers within modalities, before they meet.
    sequence=dict(
      transformer,
      # The modalities that have one; () for none.
      modalities=(),
      # Whether the backward pass computes each block again, to save memory.
      remat=False,
      # Rows of the table of learned positions.
      max_positions=512,
    ),
    # How the place (or the time) of an element is told, by modality, of those that
    # are ordered: "rotary" (which needs a transformer), "sinusoidal" or "learned".
    positions=ml_collections.ConfigDict(),
    # The ordered modalities whose elements fade: each feature is multiplied by a
    # learned factor of how many elements come after.
    fading=(),
    # A key of `fusion.FUSIONS`; its settings are below, under the same name.
    fusion="set_pool",
    **_fusions(mlp, transformer),
    # From the fused vector to the logits.
    head=dict(
      mlp,
      # Whether a LayerNorm stands before all else.
      input_norm=False,
      # An activation of the fused vector, None for none.
      input_activation=config_dict.placeholder(str),
      # Rate of dropout on the fused vector.
      input_dropout=0.0,
      # Whether a dense layer makes what comes out; else the vector itself, as wide.
      project=True,
    ),
  )


def _fusions(mlp: dict[str, Any], transformer: dict[str, Any]) -> dict[str, Any]:
  """The settings of every fusion, by its name."""
  return dict(
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
    # Its first stage is `sequence` above, its second this transformer.
    two_stage=dict(
      transformer,
      # Of a modality's elements to its vector.
      pool="mean",
      # Of the modalities' vectors to the global one; side by side.
      readout=("mean",),
    ),
    single_stream=dict(
      transformer,
      # The pool that makes a modality's fused token; None for no such tokens.
      fused=config_dict.placeholder(str),
      # What is read at the end: "fused" tokens, "elements", or "all".
      readout="all",
      # Of what is read; side by side.
      pools=("mean",),
      # Whether the backward pass computes each block again, to save memory.
      remat=False,
    ),
    torchmultimodal=dict(
      mlp,
      # "deepset", "deepset_transformer", "attention" or "concat".
      kind="deepset",
      # From a modality's elements to its vector: as pool.
      element_pool="mean",
      # From the modalities' vectors to one: a pool of set_pool.pools, or "median".
      pool="mean",
      # Whether the deepsets weigh each modality by a learned softmax.
      apply_attention=False,
      # Hidden width of its scores; None for half of model.features.
      attention_dim=config_dict.placeholder(int),
      # Whether the deepsets scale vectors to length 1 feature by feature along the
      # modalities; else each vector by itself.
      modality_normalize=False,
      # Of the p-norm that measures a length.
      norm_factor=2.0,
      # Whether a dense layer of each modality comes before the deepsets.
      auto_mapping=False,
      # Width of the projections of "attention", None for model.features, and of
      # "concat", None for none.
      projection_dim=config_dict.placeholder(int),
      # Of the transformer; must divide model.features.
      heads=8,
      # Number of the transformer's layers.
      layers=1,
      # Width of a transformer layer's hidden layer.
      ffn=2048,
      # Rate of dropout in the transformer.
      transformer_dropout=0.1,
      # Whether to give the original's numbers, defects included; each modality must
      # then have one element.
      parity=False,
    ),
    gated=dict(
      # Of a modality's elements to its vector.
      pool="mean",
    ),
    low_rank=dict(
      # Number of rank-one terms.
      rank=4,
      # Of a modality's elements to its vector.
      pool="mean",
    ),
    mil=dict(
      # Width of the hidden layer of the elements' scores.
      hidden=128,
      # Whether a sigmoid gate multiplies it.
      gated=False,
    ),
    # `layers` are the encoder's.
    set_transformer=dict(
      transformer,
      # Learned points through which elements see each other; None for blocks in
      # which each sees each.
      inducing=config_dict.placeholder(int),
      # Learned queries that read the set; the result is so many times as wide.
      seeds=1,
      # Blocks over the seeds, where there are several.
      decoder_layers=1,
    ),
    bottleneck=dict(
      transformer,
      # Fusion layers, at least two for modalities to learn of each other.
      layers=2,
      # Tokens that the modalities share.
      bottlenecks=4,
      # None reads a class token of each modality; else a pool of its elements.
      pool=config_dict.placeholder(str),
    ),
    hierarchical=dict(
      # Width of the tanh layers of the scores; None for half of model.features.
      hidden=config_dict.placeholder(int),
    ),
  )
