"""Files of columns, opened as rows of typed columns, whatever their format."""
