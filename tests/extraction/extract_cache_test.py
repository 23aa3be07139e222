import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from deepsets_jax.extraction.cache import Cache
from deepsets_jax.extraction.cache import content_digest as digest
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import DataError

RNG = np.random.default_rng(0)


def found(n, d=3, *, parts=True):
  rng = np.random.default_rng(n)
  vectors = rng.normal(size=(n, d)).astype(np.float32)
  if not parts:
    return Extraction(vectors)
  return Extraction(
    vectors,
    boxes=rng.uniform(size=(n, 4)).astype(np.float32),
    scores=rng.uniform(size=n).astype(np.float32),
    strings=[f"“{i}”\n" for i in range(n)],
  )


def assert_same(got, want):
  for part in ("vectors", "boxes", "scores"):
    a, b = getattr(got, part), getattr(want, part)
    assert (a is None) == (b is None), part
    if a is not None:
      np.testing.assert_array_equal(a, b, strict=True)
  assert got.strings == want.strings


@pytest.mark.parametrize("parts", [True, False])
def test_what_was_put_comes_back(tmp_path, parts):
  want = {digest(str(n)): found(n, parts=parts) for n in range(4)}
  with Cache(tmp_path / "made" / "here") as cache:
    cache.put({"faces": want})
  with Cache(tmp_path / "made" / "here") as cache:
    got = cache.get("faces", list(want))
  assert got.keys() == want.keys()
  for name in want:
    assert_same(got[name], want[name])
    got[name].vectors[:] = 0  # They are the reader's own.


def test_results_are_those_of_the_extractor_and_the_content(tmp_path):
  with Cache(tmp_path) as cache:
    cache.put({"a": {b"x": found(1)}, "b": {b"x": found(2), b"y": found(0)}})
    assert cache.has("a", [b"x", b"y", b"z"]) == {b"x"}
    assert cache.has("b", [b"x", b"y", b"z"]) == {b"x", b"y"}
    assert cache.has("c", [b"x"]) == set() == cache.has("a", [])
    assert len(cache.get("a", [b"y", b"x"])[b"x"].vectors) == 1
    assert len(cache.get("b", [b"x"])[b"x"].vectors) == 2


def test_thousands_are_asked_for_at_once(tmp_path):
  names = [digest(str(i)) for i in range(2100)]
  with Cache(tmp_path) as cache:
    cache.put({"a": {name: found(i % 3) for i, name in enumerate(names[:1800])}})
    assert cache.has("a", names) == set(names[:1800])
    got = cache.get("a", names)
  assert [len(got[name].vectors) for name in names[:1800]] == [0, 1, 2] * 600


def test_a_digest_is_of_the_content():
  assert digest("cat") == digest("cat") != digest("Cat")
  # A text is not the picture of the same bytes.
  assert digest("cat") != digest(b"cat")
  assert len(digest(b"")) == 16


def test_the_same_is_put_twice(tmp_path):
  with Cache(tmp_path) as cache:
    cache.put({"a": {b"x": found(1)}})
    cache.put({"a": {b"x": found(2)}})
    assert len(cache.get("a", [b"x"])[b"x"].vectors) == 2


def test_all_is_put_or_nothing(tmp_path):
  with Cache(tmp_path) as cache:
    bad = found(1)
    object.__setattr__(bad, "boxes", "no boxes")
    with pytest.raises(ValueError):
      cache.put({"a": {b"x": found(1), b"y": bad}})
    assert cache.has("a", [b"x", b"y"]) == set()


def test_what_was_put_is_there_after_a_kill(tmp_path):
  code = (
    "import os, signal, sys\n"
    "import numpy as np\n"
    "from deepsets_jax.extraction.cache import Cache\n"
    "from deepsets_jax.extraction.protocol import Extraction\n"
    "cache = Cache(sys.argv[1])\n"
    "cache.put({'a': {b'x': Extraction(np.ones((2, 3), np.float32))}})\n"
    "cache._connection.execute('BEGIN')\n"
    'cache._connection.execute("DELETE FROM found")\n'
    "os.kill(os.getpid(), signal.SIGKILL)\n"
  )
  done = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
  assert done.returncode == -signal.SIGKILL
  with Cache(tmp_path) as cache:
    assert_same(cache.get("a", [b"x"])[b"x"], Extraction(np.ones((2, 3), np.float32)))


def test_two_runs_share_a_cache(tmp_path):
  with Cache(tmp_path) as one, Cache(tmp_path) as other:
    one.put({"a": {b"x": found(1)}})
    other.put({"a": {b"y": found(2)}})
    assert one.has("a", [b"x", b"y"]) == other.has("a", [b"x", b"y"]) == {b"x", b"y"}


def test_a_damaged_cache_says_what_to_do(tmp_path):
  with Cache(tmp_path) as cache:
    cache.put({"a": {digest(str(i)): found(50) for i in range(50)}})
  (file,) = tmp_path.iterdir()
  data = bytearray(file.read_bytes())
  data[:200] = os.urandom(200)
  file.write_bytes(data)
  with pytest.raises(DataError, match="is damaged, remove the folder"), Cache(tmp_path):
    pass


def test_another_format_is_refused(tmp_path):
  Cache(tmp_path).__exit__()
  (file,) = tmp_path.iterdir()
  connection = sqlite3.connect(file)
  connection.execute("PRAGMA user_version = 9")
  connection.close()
  with pytest.raises(DataError, match="the format is 9, expected 1"), Cache(tmp_path):
    pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(DataError, match="file.*give another --cache"):
    Cache(tmp_path / "file")
