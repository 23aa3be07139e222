"""The folder of the tables of a file: when it is kept, replaced or left out."""

import errno
import os
import pathlib
import time

import pytest

from deepsets_jax.data.ingest.columns import build
from deepsets_jax.data.ingest.columns.labels import Label
from deepsets_jax.data.ingest.columns.numeric import Scalar
from deepsets_jax.data.ingest.columns.spec import Spec

SPEC = Spec({"x": Scalar("x")}, Label("y", "multiclass"))


def fill(folder, text):
  folder.mkdir(exist_ok=True)
  (folder / "file").write_text(text)


class TestWholeFolder:
  def test_a_folder_appears_with_all_its_files(self, tmp_path):
    with build.whole_folder(tmp_path / "new" / "folder") as made:
      fill(made, "ours")
      assert not (tmp_path / "new" / "folder").exists()
    assert (tmp_path / "new" / "folder" / "file").read_text() == "ours"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]

  def test_an_error_leaves_nothing(self, tmp_path):
    with pytest.raises(ZeroDivisionError), build.whole_folder(tmp_path / "a") as made:
      fill(made, "ours")
      raise ZeroDivisionError
    assert not list(tmp_path.iterdir())

  def test_the_folder_that_another_process_has_made_stays(self, tmp_path):
    with build.whole_folder(tmp_path / "a") as made:
      fill(made, "ours")
      fill(tmp_path / "a", "theirs")
    assert (tmp_path / "a" / "file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

  def test_a_file_of_the_same_name_is_an_error(self, tmp_path):
    with pytest.raises(OSError, match="a"), build.whole_folder(tmp_path / "a") as made:
      fill(made, "ours")
      (tmp_path / "a").write_text("a file")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

  @pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EXDEV])
  def test_a_failed_rename_is_an_error(self, tmp_path, monkeypatch, code):
    def rename(self, target):
      raise OSError(code, os.strerror(code), str(self), None, str(target))

    monkeypatch.setattr(pathlib.Path, "rename", rename)
    with pytest.raises(OSError, match=os.strerror(code)) as error:
      with build.whole_folder(tmp_path / "a") as made:
        fill(made, "ours")
        fill(tmp_path / "a", "theirs")  # Not the reason of the failure.
    assert error.value.errno == code
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_new_content_with_the_old_time_has_another_folder(tmp_path):
  file, of_spec = tmp_path / "a.csv", SPEC
  file.write_text("x,y\n1,a\n")
  time_ns = file.stat().st_mtime_ns
  before = build.folder_of(str(file), of_spec, 0)
  assert build.folder_of(str(file), of_spec, 0) == before
  time.sleep(0.05)  # Longer than the tick of a file system's clock.
  file.write_text("x,y\n2,a\n")
  os.utime(file, ns=(time_ns, time_ns))
  assert build.folder_of(str(file), of_spec, 0) != before
