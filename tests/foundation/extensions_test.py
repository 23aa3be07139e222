"""Components of one's own: found by name, and never in the folder of a run."""

import sys

import pytest

from deepsets_jax.foundation import extensions
from deepsets_jax.foundation.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(monkeypatch):
  monkeypatch.setattr(sys, "path", [*sys.path])
  monkeypatch.setattr(extensions, "_FIRST", [])
  yield
  sys.modules.pop("own_part", None)


def write(folder, text="class Part: pass"):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "own_part.py").write_text(text)
  return folder


def find(name, kind=None):
  return extensions.find("config.x", name, {"known": int}, kind)


def test_a_key_of_the_registry_needs_no_import():
  assert find("known") is int


def test_a_component_is_imported_and_its_folder_is_known(tmp_path):
  extensions.add_folders([write(tmp_path / "a")])
  part = find("own_part:Part")
  assert extensions.name_of(part) == "own_part:Part"
  assert extensions.folders_of(["own_part:Part"]) == [str(tmp_path / "a")]


def test_the_folder_that_was_kept_comes_first(tmp_path):
  sys.path.insert(0, str(write(tmp_path / "cwd", "class Part: place = 'cwd'")))
  kept = write(tmp_path / "kept", "class Part: place = 'kept'")
  extensions.add_folders([kept], first=True)
  before = sys.path[:]
  assert find("own_part:Part").place == "kept" and sys.path == before


def test_nothing_is_imported_from_the_folder_of_a_run(tmp_path, monkeypatch):
  run = write(tmp_path / "run", "raise SystemExit('imported')")
  (run / "config.json").write_text("{}")
  (run / "checkpoints").mkdir()
  extensions.add_folders([run, run / "inside"], first=True)
  with pytest.raises(ConfigError, match="there is no module 'own_part'"):
    find("own_part:Part")
  monkeypatch.syspath_prepend(run)  # As if a command was started there.
  with pytest.raises(ConfigError, match="lies in the folder of a run"):
    find("own_part:Part")


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("unknown", r"unknown config.x 'unknown'; one of \['known'\], or module:Name"),
    ("own_part:Part.", "not of the form module:Name"),
    ("no_such:Part", "there is no module 'no_such'"),
    ("no_such.deeper:Part", "there is no module 'no_such.deeper'"),
    ("own_part:Other", "own_part.py defines no 'Other'"),
    ("own_part:Part", "is not a subclass of builtins.dict"),
  ],
)
def test_what_is_wrong_is_named(tmp_path, name, message):
  extensions.add_folders([write(tmp_path)])
  with pytest.raises(ConfigError, match=message):
    find(name, dict)


def test_names_are_found_at_any_depth():
  config = {"a": {"b": ("max", "own_part:Part")}, "c": "tfds:mm_imdb/features", "d": 3}
  assert extensions.names_in(config) == {"own_part:Part"}
