"""Multiple Features: handwritten digits told by six vectors."""
