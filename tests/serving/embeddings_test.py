"""Vectors as Parquet: what is in the files, and which are taken for a run's."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from deepsets_jax import tasks
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.serving import embeddings
from deepsets_jax.tasks.retrieval import metrics, ranks
from experiments import embed
from tests.data.interactions import small_movielens


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return small_movielens.run(tmp_path_factory)


@pytest.fixture(scope="module")
def loaded(folder):
  return tasks.load_task(folder, "retrieval")


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
  """The folder that the command has written, of the split test."""
  output = tmp_path_factory.mktemp("embeddings")
  embed.embed(str(folder), output, "test")
  return output


@pytest.fixture
def digest(loaded, folder):
  return embeddings.digest(loaded[0], folder)


def vectors(path):
  return np.array(pq.read_table(path)["vector"].to_pylist(), np.float32)


def test_the_products_of_the_vectors_are_what_the_run_was_evaluated_by(
  folder, loaded, written
):
  split, histories = loaded[0].splits["test"], loaded[0].histories
  users, items = (vectors(written / f"{kind}.parquet") for kind in ("users", "items"))
  targets = split.targets(histories)
  found = ranks.of_vectors(users, items, targets, split.known(histories))
  want = json.loads((folder / "results.json").read_text())["test"]
  got = metrics.of_ranks(found, targets.lengths)
  assert got == pytest.approx({key: want[key] for key in got})


def test_items_have_their_ids_titles_and_training_events(loaded, written):
  task, _ = loaded
  table = pq.read_table(written / "items.parquet")
  assert table["id"].to_pylist() == task.histories.items.ids.tolist()
  assert table["title"].to_pylist()[0] == "Toy Story (1995)"
  counts = [0] * len(table)
  for user, end in enumerate(task.train_ends):
    for event in range(task.histories.offsets[user], end):
      counts[task.histories.rows[event]] += 1
  assert table["events"].to_pylist() == counts


def test_users_have_their_training_and_their_known_events(loaded, written):
  table = pq.read_table(written / "users.parquet")
  lengths = loaded[0].histories.lengths()
  # Each has three events or more: one is to be found, one was of validation.
  assert table["id"].to_pylist() == loaded[0].histories.users.ids.tolist()
  assert table["events"].to_pylist() == (lengths - 2).tolist()
  assert table["known"].to_pylist() == (lengths - 1).tolist()


def test_all_users_are_known_to_the_end(loaded, digest):
  task, params = loaded
  made = embeddings.embed_users(task, params, task.items(params), digest)
  assert made["known"].to_pylist() == task.histories.lengths().tolist()
  before = embeddings.embed_users(task, params, task.items(params), digest, "test")
  assert not np.array_equal(made["vector"].to_pylist(), before["vector"].to_pylist())


def test_the_metadata_says_what_it_is(written, digest):
  for kind, split in (("items", "all"), ("users", "test")):
    schema = pq.read_schema(written / f"{kind}.parquet")
    assert str(schema.field("vector").type) == "fixed_size_list<element: float>[8]"
    want = {"kind": kind, "split": split, "run": digest, "dimensions": "8"}
    want |= {"format": "deepsets_jax embeddings 1", "normalized": "false"}
    assert {k.decode(): v.decode() for k, v in schema.metadata.items()} == want


def test_items_are_read_as_they_were(loaded, written, digest):
  found = embeddings.read_items(written / "items.parquet", digest)
  np.testing.assert_array_equal(found, loaded[0].items(loaded[1]))
  assert found.dtype == np.float32


def test_files_of_another_run_or_kind_or_damaged_are_refused(written, digest, tmp_path):
  with pytest.raises(DataError, match="not the file of items .*its run differs"):
    embeddings.read_items(written / "items.parquet", "0" * 64)
  with pytest.raises(DataError, match="its kind differs.*experiments.embed"):
    embeddings.read_items(written / "users.parquet", digest)
  whole = (written / "items.parquet").read_bytes()
  (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
  with pytest.raises(DataError, match="half.parquet is missing, truncated or damaged"):
    embeddings.read_items(tmp_path / "half.parquet", digest)


def test_the_digest_is_of_the_run_and_its_events(loaded, folder, digest, tmp_path):
  task, _ = loaded
  rows = task.histories.rows.copy()
  rows[0] = rows[0] + 1
  other = dataclasses.replace(task.histories, rows=rows)
  changed = dataclasses.replace(task, histories=other)
  assert embeddings.digest(changed, folder) != digest
  for name in ("results.json", "config.json"):
    shutil.copytree(folder, tmp_path / name)
    with (tmp_path / name / name).open("a") as file:
      file.write("\n")
    assert embeddings.digest(task, tmp_path / name) != digest
  (tmp_path / "config.json" / "results.json").unlink()
  with pytest.raises(ValueError, match="has no results.*training has not ended"):
    embeddings.digest(task, tmp_path / "config.json")


def test_a_large_file_has_row_groups(loaded, digest, tmp_path, monkeypatch):
  monkeypatch.setattr(embeddings, "_ROWS", 10)
  made = embeddings.embed_items(*loaded, digest)
  embeddings.write_embeddings(made, tmp_path / "new" / "items.parquet")
  assert pq.read_metadata(tmp_path / "new" / "items.parquet").num_row_groups == 3
  found = embeddings.read_items(tmp_path / "new" / "items.parquet", digest)
  np.testing.assert_array_equal(found, loaded[0].items(loaded[1]))


def test_a_write_that_fails_leaves_nothing(loaded, digest, tmp_path, monkeypatch):
  def fail(table, path, **options):
    path.write_text("half")
    raise OSError("no space left")

  monkeypatch.setattr(pq, "write_table", fail)
  with pytest.raises(OSError, match="no space left"):
    embeddings.write_embeddings(
      embeddings.embed_items(*loaded, digest), tmp_path / "items.parquet"
    )
  assert list(tmp_path.iterdir()) == []


class TestCommand:
  def test_goes_on_where_it_was_stopped(self, folder, written, tmp_path, capsys):
    shutil.copy(written / "items.parquet", tmp_path)
    embed.embed(str(folder), tmp_path, "test")
    first, second = capsys.readouterr().out.splitlines()
    path = tmp_path / "items.parquet"
    assert first == f"items: already written for this run: {path}"
    assert second.startswith("users: 60 vectors of 8 dimensions in ")
    assert second.endswith(f" s: {tmp_path / 'users.parquet'}")
    # From the items of the file the same users.
    np.testing.assert_array_equal(
      vectors(tmp_path / "users.parquet"), vectors(written / "users.parquet")
    )

  def test_overwrites_nothing_else(self, folder, written, tmp_path):
    with pytest.raises(FileExistsError, match="not the file of users of this run"):
      embed.embed(str(folder), written, "all")
    (tmp_path / "items.parquet").write_text("my notes")
    with pytest.raises(FileExistsError, match="another --output"):
      embed.embed(str(folder), tmp_path, "test")
    assert (tmp_path / "items.parquet").read_text() == "my notes"
    assert not (tmp_path / "users.parquet").exists()

  def test_refuses_an_unknown_split_before_anything_is_written(self, folder, tmp_path):
    with pytest.raises(ValueError, match="no split 'tset'; there are.*'all'.*'test'"):
      embed.embed(str(folder), tmp_path / "new", "tset")
    assert not (tmp_path / "new").exists()
