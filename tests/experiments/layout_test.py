"""The import direction of the package, and the size of its modules."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "deepsets_jax"

# From what everything may import to what imports everything. A module may import
# those of earlier rows, and none of its own row.
DIRECTION = [
  {
    "schema",
    "ragged",
    "retrieval",
    "writers",
    "flops",
    "figures.style",
    "data.cache",
    "recall.metrics",
    "recall.titles",
    "extract.protocol",
    "extract.boxes",
  },
  {"figures.runs", "figures.costs", "figures.importance", "figures.robustness"},
  {"frames", "data.table", "data.arrow_lists", "data.pictures"},
  {
    "data.parquet",
    "data.fetched",
    "data.histories",
    "recall.blocks",
    "data.files.source",
    "data.files.checks",
    "data.files.record_features",
  },
  {
    "data.files.dates",
    "data.files.dialect",
    "data.files.duck",
    "data.files.list_text",
    "data.files.number_text",
    "data.files.plain",
    "data.files.records",
  },
  {
    "data.files.binary_files",
    "data.files.csv_files",
    "data.files.formats",
    "data.files.paths",
  },
  {"data.files.joins", "data.files.json_files", "data.files.tally"},
  {"data.files.detection"},
  {"data.files.reading"},
  {"data.files.opening"},
  {
    "data.catalogue",
    "data.cold",
    "data.fields",
    "data.prefixes",
    "recall.ranks",
    "recall.nearest",
    "data.sentences",
    "data.ablation",
    "data.tfidf",
    "data.table_writer",
    "data.columns.cells",
    "data.columns.settings",
    "data.builders.mm_imdb.genres",
    "data.builders.movielens_sequences.files",
    "extract.cache",
    "extract.minilm",
    "extract.weights",
  },
  {
    "extract.registry",
    "extract.efficientnet",
    "extract.faces",
    "extract.onnx",
    "extract.texts",
  },
  {"extract.regions", "extract.lines", "figures.extracts"},
  {"data.builders.base", "data.builders.mm_imdb.features", "data.movielens"},
  {"data.builders.mm_imdb.raw", "data.builders.mm_imdb.synthetic"},
  {
    "data.columns.numeric",
    "data.columns.tokens",
    "data.columns.images",
  },
  {"data.columns.labels", "data.columns.fields"},
  {"extract.inputs", "extract.worker"},
  {"extract.chunks", "extract.output"},
  {"extract.results"},
  {"extract.pipeline"},
  {"extract.beam"},
  {"data.columns.spec", "data.columns.separated"},
  {"data.columns.survey"},
  {"data.columns.encoding", "data.columns.facts", "data.columns.leaks"},
  {"data.columns.build", "data.columns.roles"},
  {"data.columns.proposal"},
  {"data.columns.beam", "data.id_tables"},
  {"data.click_logs"},
  {
    "encoders.layers",
    "encoders.importance",
    "data.batching",
    "data.debian_programs",
    "data.digits",
    "data.multiple_features",
  },
  {
    "data.builders.ads_parallelity.ads_parallelity_dataset_builder",
    "data.builders.debian_programs.debian_programs_dataset_builder",
    "data.builders.mm_imdb.mm_imdb_dataset_builder",
    "data.builders.movielens_sequences.movielens_sequences_dataset_builder",
    "data.builders.multiple_features.multiple_features_dataset_builder",
  },
  {"data.builders.build"},
  {
    "data.debian_builder",
    "data.multiple_features_builder",
    "data.names",
    "data.sources",
    "data.loader",
    "data.budgets",
  },
  {"data.distinct"},
  {"data.pairs", "data.list_sources"},
  {"data.candidates"},
  {"encoders.elements", "encoders.transformer"},
  {"encoders.deepset"},
  {"encoders.channels"},
  {"encoders.torchmultimodal", "encoders.sequence"},
  {"fusion.base"},
  {
    "fusion.concat",
    "fusion.mmt",
    "fusion.mmt_weights",
    "fusion.set_pool",
    "fusion.single_stream",
    "fusion.two_stage",
    "fusion.torchmultimodal",
    "fusion.gated",
    "fusion.low_rank",
    "fusion.mil",
    "fusion.bottleneck",
    "fusion.hierarchical",
    "fusion.set_transformer",
  },
  {"models"},
  {"losses", "towers", "ranking.losses", "ranking.metrics"},
  {"metrics", "scorer"},
  {"optimizer", "sharding"},
  {"recall.softmax", "recall.evaluation"},
  {"train_step"},
  {"checkpoint", "evaluate", "run_folder"},
  {"run"},
  {"report", "summary", "trained"},
  {"recall.costs", "recall.vectors", "ranking.scoring", "tasks.base"},
  {"recall.fit"},
  {"tasks.on_histories"},
  {"tasks.labels", "tasks.recall", "tasks.ranking"},
  {"train", "importance.outputs", "recall.embeddings"},
  {"importance.result", "importance.merging", "recall.searcher"},
  {"importance.coalitions", "importance.gradients", "importance.sown"},
  {"importance.shapley", "importance.leave_one_out", "importance.faithfulness"},
  {"robustness", "predictor", "predicted_files"},
  {"measured"},
  {"prediction"},
  {"page"},
  {"explanation"},
]
# `data` knows nothing of models: numpy, and these.
DATA_MAY_IMPORT = {"ragged", "schema"}


def modules():
  for path in sorted(PACKAGE.rglob("*.py")):
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    if not name.endswith("__init__"):
      yield name, path


MODULES = dict(modules())


def imports(path):
  """The package's own modules that a module imports."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module.startswith("deepsets_jax"):
      base = node.module.removeprefix("deepsets_jax").removeprefix(".")
      for alias in node.names:
        name = f"{base}.{alias.name}".strip(".")
        own = {m for m in MODULES if m == name or m.startswith(f"{name}.")}
        found |= own or {m for m in MODULES if m == base or m.startswith(f"{base}.")}
  return {room(name) for name in found}


def room(name):
  """The place of a module in the table: all of `ragged` has one."""
  return "ragged" if name.startswith("ragged.") else name


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name):
  rows = {module: row for row, names in enumerate(DIRECTION) for module in names}
  own = room(name)
  assert own in rows, f"give {name} its place in the import direction"
  for other in imports(MODULES[name]) - {own}:
    assert rows[other] < rows[own], f"{name} imports {other}"
    if name.startswith("data."):
      assert other.startswith("data.") or other in DATA_MAY_IMPORT


def test_flax_linen_stays_in_encoders_fusions_and_models():
  for name, path in MODULES.items():
    if "flax.linen" in path.read_text():
      assert name.split(".")[0] in {
        "encoders",
        "fusion",
        "models",
        "towers",
        "scorer",
      }, name


def test_segment_ops_have_one_owner():
  users = {name for name, path in MODULES.items() if "ops.segment_" in path.read_text()}
  assert users == {"ragged.reductions"}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_stays_readable(name):
  text = MODULES[name].read_text()
  assert text.count("\n") <= 340  # About 300.
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      assert node.end_lineno - node.lineno <= 50, f"{name}.{node.name}"


def test_nothing_is_unpickled():
  for name, path in MODULES.items():
    assert "import pickle" not in path.read_text(), name
    assert "allow_pickle=True" not in path.read_text(), name
