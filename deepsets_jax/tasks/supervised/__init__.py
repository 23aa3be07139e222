"""Classification, multi-label classification and regression of sets."""
