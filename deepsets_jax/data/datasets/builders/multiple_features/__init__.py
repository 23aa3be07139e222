"""Multiple Features: handwritten digits described by six vectors."""
