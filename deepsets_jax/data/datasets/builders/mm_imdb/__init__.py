"""MM-IMDb: the genres of films, from plot and poster."""
