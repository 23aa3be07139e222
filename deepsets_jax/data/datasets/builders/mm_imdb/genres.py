"""The 23 genres of MM-IMDb, in the order of the columns of `multimodal_imdb.hdf5`.

The data set's own make_dataset.py (github.com/johnarevalo/gmu-mmimdb) takes the 23 most
frequent genres, in decreasing order, and writes their names into the attribute
`target_names` of `genres`. The counts over all splits come from an inspection of the
published file. They sum to 2.485 genres per film, one to ten each, and they decrease,
by which a file without names can be checked.
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
