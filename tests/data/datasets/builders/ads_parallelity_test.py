import pytest
import tensorflow_datasets as tfds

from deepsets_jax.foundation.errors import DataError
from tests.data.datasets.builders import fakes
from tests.data.datasets.builders.building import prepare


def ads(tmp_path, config="splits"):
  name = f"ads_parallelity/{config}"
  prepare(name, tmp_path / "data", tmp_path)
  return tfds.data_source(name, data_dir=tmp_path / "data")


def test_an_ad_may_lack_its_slogan_or_its_picture(tmp_path):
  fakes.ads(tmp_path)
  found = ads(tmp_path)
  first = found["train"][1]
  assert first["slogan"] == b"slogan, 1" and first["parallel"] == 1
  assert first["image"][0].shape == (4, 6, 3)
  assert found["test"][0]["slogan"] == b"" and len(found["test"][0]["image"]) == 1
  assert found["test"][1]["slogan"] == b"buy!" and len(found["test"][1]["image"]) == 0


def test_folds_are_of_all_ads_and_keep_a_picture_together(tmp_path):
  fakes.ads(tmp_path)
  tested, picture = {}, {str(row): row % 4 for row in range(8)} | {"8": 0, "9": "none"}
  for fold in range(5):
    found = ads(tmp_path, f"fold{fold}")
    ids = {split: [ad["id"].decode() for ad in part] for split, part in found.items()}
    assert sorted(name for part in ids.values() for name in part) == [
      str(row) for row in range(10)
    ]
    pictures = [{picture[name] for name in part} for part in ids.values()]
    assert sum(map(len, pictures)) == len(set().union(*pictures))
    for name in ids["test"]:
      tested[name] = tested.get(name, 0) + 1
  assert tested == {str(row): 1 for row in range(10)}


@pytest.mark.parametrize(
  ("row", "match"),
  [
    (("7.jpg", "x", 1, "train"), r"row 0: no file '7.jpg' in .*leave the field empty"),
    (("", "", 1, "train"), "row 0 has neither image nor slogan"),
    (("0.jpg", "x", "yes", "train"), "row 0: parallel is 'yes'; expected 0 or 1"),
    (("0.jpg", "x", 1, "dev"), r"row 0: split is 'dev'; expected one of .*fold0"),
  ],
)
def test_bad_rows_are_named(tmp_path, row, match):
  fakes.ads(tmp_path, [row])
  with pytest.raises(DataError, match=match):
    ads(tmp_path)


def test_a_broken_picture_is_named(tmp_path):
  fakes.ads(tmp_path)
  (tmp_path / "images" / "1.jpg").write_bytes(b"")
  with pytest.raises(DataError, match=r"row 1: .*1.jpg is no picture"):
    ads(tmp_path)


def test_a_missing_column_is_named(tmp_path):
  (tmp_path / "annotations.csv").write_text("image,text\n")
  with pytest.raises(
    DataError, match=r"no column 'parallel'; it has \['image', 'text'\]"
  ):
    ads(tmp_path)


def test_text_that_is_not_utf8_is_refused(tmp_path):
  (tmp_path / "annotations.csv").write_bytes(b"image,slogan,parallel\n,caf\xe9,1\n")
  with pytest.raises(DataError, match="save it as CSV in UTF-8"):
    ads(tmp_path)


def test_an_id_that_is_there_twice_is_refused(tmp_path):
  (tmp_path / "annotations.csv").write_text(
    "id,image,slogan,parallel\na,,x,1\nb,,y,0\na,,z,0\n"
  )
  with pytest.raises(DataError, match="id 'a' of row 2 is there before"):
    ads(tmp_path)
