import builtins
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets.builders.mm_imdb import (
  features,
  genres,
  mm_imdb_dataset_builder,
  raw,
)
from deepsets_jax.foundation.errors import ConfigError, DataError
from tests.data.datasets.builders import fakes
from tests.data.datasets.builders.building import prepare
from tools import make_mm_imdb


@pytest.fixture(autouse=True)
def small(monkeypatch):
  monkeypatch.setattr(mm_imdb_dataset_builder, "COUNTS", fakes.FILMS)


@pytest.fixture
def hdf5(tmp_path):
  """An open, writable file of features of ten films, in the manual folder."""
  h5py = pytest.importorskip("h5py")
  (tmp_path / "manual").mkdir()
  fakes.mm_imdb_features(tmp_path / "manual")
  with h5py.File(tmp_path / "manual" / features.FILE, "r+") as file:
    yield file


@pytest.fixture
def archive(tmp_path):
  fakes.mm_imdb_raw(tmp_path / "manual")
  return tmp_path / "manual"


def refused(tmp_path, config, match):
  with pytest.raises(DataError, match=match):
    prepare(f"mm_imdb/{config}", tmp_path / "data", tmp_path / "manual")


class TestFeatures:
  def test_films_are_in_the_order_of_the_file(self, tmp_path, hdf5):
    arrays = {name: hdf5[name][:] for name in (*features.SIZES, "genres")}
    hdf5.close()
    prepare("mm_imdb/features", tmp_path, tmp_path / "manual")
    sources = tfds.data_source("mm_imdb/features", data_dir=tmp_path)
    row = 0
    for split in ("train", "validation", "test"):
      for film in sources[split]:
        assert film["imdb_id"] == b"%07d" % row
        for name in features.SIZES:
          np.testing.assert_array_equal(film[name], arrays[name][row])
        assert sorted(film["genres"]) == np.flatnonzero(arrays["genres"][row]).tolist()
        row += 1
    assert row == 10

  def test_posters_come_back_with_their_colours(self, tmp_path, hdf5):
    """Pictures before VGG's means, blue first, were subtracted and truncated."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(10, 256, 160, 3)).astype(np.uint8)
    means = np.array([103.939, 116.779, 123.68], np.float32)
    less = pixels[..., ::-1].astype(np.float32) - means
    hdf5["images"][...] = np.trunc(less).astype(np.int32).transpose(0, 3, 1, 2)
    hdf5.close()
    prepare("mm_imdb/images", tmp_path, tmp_path / "manual")
    source = tfds.data_source("mm_imdb/images", data_dir=tmp_path, split="train")
    off = source[2]["image"].astype(int) - pixels[2]
    assert set(np.unique(off)) <= {0, 1}
    ambiguous = np.floor(means)[::-1]
    assert (
      pixels[2][off == 1] == np.broadcast_to(ambiguous, off.shape)[off == 1]
    ).all()

  def test_another_number_of_films_is_refused(self, tmp_path, hdf5, monkeypatch):
    hdf5.close()
    monkeypatch.setitem(fakes.FILMS, "test", 4)
    refused(tmp_path, "features", r"has {'films': 10}, expected {'films': 11}")

  def test_genres_in_another_order_are_refused(self, tmp_path, hdf5):
    hdf5["genres"].attrs["target_names"] = json.dumps(sorted(genres.GENRES))
    hdf5.close()
    refused(tmp_path, "features", r"columns of 'genres' are \['Action', .*expected")

  def test_genres_without_names_are_known_by_their_frequencies(self, tmp_path, hdf5):
    del hdf5["genres"].attrs["target_names"]
    hdf5["genres"][...] = np.tri(10, 23, dtype=np.int32)
    hdf5.flush()
    with features.open_films(tmp_path / "manual" / features.FILE, images=False):
      pass
    hdf5["genres"][:, 5] = 0
    hdf5.close()
    refused(tmp_path, "features", "do not decrease")

  @pytest.mark.parametrize(
    ("name", "position", "value", "match"),
    [
      ("features", (3, 7), np.nan, "row 3 of 'features' .* not finite"),
      ("vgg_features", (9, 0), np.inf, "row 9 of 'vgg_features' .* not finite"),
      ("genres", (1, 2), 2, "row 1 of 'genres' .* not 0 or 1"),
    ],
  )
  def test_bad_numbers_name_their_row(
    self, tmp_path, hdf5, name, position, value, match
  ):
    hdf5[name][position] = value
    hdf5.close()
    refused(tmp_path, "features", match)

  def test_missing_arrays_are_named(self, tmp_path, hdf5):
    del hdf5["vgg_features"]
    hdf5.close()
    refused(tmp_path, "features", r"array 'vgg_features' has shape None, .* 4096")

  def test_a_repeated_film_is_refused(self, tmp_path, hdf5):
    hdf5["imdb_ids"][4] = b"0000001"
    hdf5.close()
    refused(tmp_path, "features", "row 4 has the id '0000001' of an earlier row")

  def test_other_files_than_hdf5_are_refused(self, tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / features.FILE).write_bytes(b"<html>")
    refused(tmp_path, "features", "cannot be read as HDF5")

  def test_without_h5py_the_message_names_the_extra(self, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
      if name == "h5py":
        raise ModuleNotFoundError(name)
      return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / features.FILE).write_bytes(b"")
    with pytest.raises(ModuleNotFoundError, match=r"deepsets-jax\[hdf5\]"):
      prepare("mm_imdb/features", tmp_path / "data", tmp_path)


class TestRaw:
  def films(self, tmp_path, manual):
    prepare("mm_imdb/raw", tmp_path / "data", manual)
    return tfds.data_source("mm_imdb/raw", data_dir=tmp_path / "data")

  def test_a_film_is_one_example_with_its_longest_plot(self, tmp_path, archive):
    film = self.films(tmp_path, archive)["train"][2]
    assert film["plot"] == b"a longer plot of film 2"
    assert list(film["plots"]) == [b"short", b"a longer plot of film 2", b"a plot"]
    assert film["plot_outline"] == b"outline"
    assert film["title"] == b"Film 2" and film["year"] == 1992
    assert list(film["cast"]) == [b"One, Some", "Zoë".encode()]
    assert list(film["directors"]) == [b"Two"]
    assert len(film["poster"]) == 1 and film["poster"][0].shape == (4, 6, 3)

  def test_labels_are_the_23_genres_and_others_stand_apart(self, tmp_path, archive):
    films = self.films(tmp_path, archive)["train"]
    drama, noir = genres.GENRES.index("Drama"), genres.GENRES.index("Film-Noir")
    assert list(films[0]["genres"]) == [drama, noir]
    assert list(films[0]["other_genres"]) == [b"News"]

  def test_a_film_without_any_facts_is_kept(self, tmp_path, archive):
    (archive / "dataset" / "0000001.jpeg").unlink()
    film = self.films(tmp_path, archive)["train"][1]
    assert film["imdb_id"] == b"0000001"
    assert np.isnan(film["year"])
    absent = ("title", "plot", "plot_outline")
    assert all(film[name] == b"" for name in absent)
    sequences = ("plots", "cast", "directors", "poster", "genres")
    assert all(len(film[name]) == 0 for name in sequences)

  @pytest.mark.parametrize("name", raw.ARCHIVES)
  def test_an_archive_gives_the_same_as_the_folder(self, tmp_path, archive, name):
    (tmp_path / "packed").mkdir()
    fakes.pack(archive, tmp_path / "packed" / name)
    want = self.films(tmp_path / "a", archive)
    got = self.films(tmp_path / "b", tmp_path / "packed")
    for split, films in want.items():
      for a, b in zip(films, got[split], strict=True):
        np.testing.assert_equal(a, b)

  @pytest.mark.parametrize("name", raw.ARCHIVES)
  def test_a_truncated_archive_is_refused(self, tmp_path, archive, name):
    (tmp_path / "packed").mkdir()
    packed = tmp_path / "packed" / name
    fakes.pack(archive, packed)
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"mmimdb.* cannot be unpacked .*again"):
      self.films(tmp_path, tmp_path / "packed")
    assert not list((tmp_path / "data" / "downloads").glob("mmimdb*"))

  def test_other_counts_are_refused(self, tmp_path, archive):
    split = json.loads((archive / "split.json").read_text())
    split["dev"].pop()
    (archive / "split.json").write_text(json.dumps(split))
    refused(tmp_path, "raw", r"'validation': 1.*expected .*'validation': 2")

  def test_a_film_in_two_splits_is_refused(self, tmp_path, archive):
    split = json.loads((archive / "split.json").read_text())
    split["test"][0] = split["train"][0]
    (archive / "split.json").write_text(json.dumps(split))
    refused(tmp_path, "raw", "split.json: row 7 has the id '0000000' of an earlier row")

  def test_a_missing_film_is_named(self, tmp_path, archive):
    (archive / "dataset" / "0000003.json").unlink()
    refused(tmp_path, "raw", "film '0000003', is missing or damaged")

  @pytest.mark.parametrize(
    "content", ["{", "[]", '{"plot": [1]}', '{"year": "?"}', '{"cast": [1]}']
  )
  def test_a_damaged_film_is_named(self, tmp_path, archive, content):
    (archive / "dataset" / "0000003.json").write_text(content)
    refused(tmp_path, "raw", "film '0000003', is missing or damaged")

  def test_a_broken_poster_is_named(self, tmp_path, archive):
    (archive / "dataset" / "0000004.jpeg").write_bytes(b"GIF")
    match = "film '0000004': .*0000004.jpeg cannot be read as a picture"
    refused(tmp_path, "raw", match)

  def test_films_without_splits_are_refused(self, tmp_path, archive):
    (archive / "split.json").unlink()
    refused(tmp_path, "raw", "no split.json in it, beside it or in its folder")


class TestSynthetic:
  def test_genres_are_as_frequent_as_in_the_data(self):
    labels = make_mm_imdb.draw_genres(5000, seed=0)
    assert labels.sum(axis=1).min() == 1
    assert 2.4 < labels.sum(axis=1).mean() < 2.7
    want = np.array(list(genres.COUNTS.values())) / 25959
    np.testing.assert_allclose(labels.mean(axis=0), want, rtol=0.25, atol=0.01)

  def test_genres_go_together_in_groups(self):
    labels = make_mm_imdb.draw_genres(5000, seed=0).astype(bool)
    column = dict(zip(genres.GENRES, labels.T, strict=True))
    assert (
      column["Adventure"][column["Action"]].mean() > 1.5 * column["Adventure"].mean()
    )
    assert column["Horror"][column["Comedy"]].mean() < 0.8 * column["Horror"].mean()

  def test_both_vectors_predict_the_genres(self, tmp_path):
    """Least squares on 300 of 600 films beats chance on the other half."""
    h5py = pytest.importorskip("h5py")
    make_mm_imdb.write_films(tmp_path / "f.hdf5", films=600, seed=1, images=False)
    with h5py.File(tmp_path / "f.hdf5") as file:
      drama = file["genres"][:, 0].astype(np.float64)
      assert "images" not in file
      for name in features.SIZES:
        x = file[name][:].astype(np.float64)
        x -= x[:300].mean(axis=0)
        kernel = x @ x[:300].T
        ridge = kernel[:300] + np.trace(kernel[:300]) / 100 * np.eye(300)
        score = kernel[300:] @ np.linalg.solve(ridge, drama[:300] - drama[:300].mean())
        positive, negative = score[drama[300:] == 1], score[drama[300:] == 0]
        area = (positive[:, None] > negative).mean()
        assert area > 0.6, name

  def test_a_seed_gives_the_same_file_and_another_seed_another(self, tmp_path):
    h5py = pytest.importorskip("h5py")
    arrays = []
    for run, seed in enumerate((3, 3, 4)):
      path = tmp_path / f"{run}.hdf5"
      arguments = [f"--output={path}", "--films=20", f"--seed={seed}", "--images"]
      make_mm_imdb.main(arguments)
      with h5py.File(path) as file:
        arrays.append({name: file[name][:] for name in file})
    for name, array in arrays[0].items():
      np.testing.assert_array_equal(array, arrays[1][name])
    assert (arrays[0]["features"] != arrays[2]["features"]).any()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{i}.hdf5" for i in range(3)]

  def test_no_films_are_refused(self, tmp_path):
    with pytest.raises(ConfigError, match="films=0"):
      make_mm_imdb.write_films(tmp_path / "f.hdf5", films=0, seed=0, images=False)
