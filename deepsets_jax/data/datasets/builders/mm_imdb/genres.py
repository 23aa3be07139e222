"""The 23 genres of MM-IMDb, in the order of the columns of `multimodal_imdb.hdf5`.

The data set's own make_dataset.py (github.com/johnarevalo/gmu-mmimdb) takes the 23
genres with most films, the most frequent first, and writes their names into the
attribute `target_names` of `genres`. The counts, over all splits, are those that an
inspection of the published file found; they add up to 2.485 genres a film, every film
has one to ten, and they decrease, which is how a file without names can be checked.
"""

COUNTS = {
  "Drama": 13967,
  "Comedy": 8592,
  "Romance": 5364,
  "Thriller": 5192,
  "Crime": 3838,
  "Action": 3550,
  "Adventure": 2710,
  "Horror": 2703,
  "Documentary": 2082,
  "Mystery": 2057,
  "Sci-Fi": 1991,
  "Fantasy": 1933,
  "Family": 1668,
  "Biography": 1343,
  "War": 1335,
  "History": 1143,
  "Music": 1045,
  "Animation": 997,
  "Musical": 841,
  "Western": 705,
  "Sport": 634,
  "Short": 471,
  "Film-Noir": 338,
}
GENRES = tuple(COUNTS)
