"""Why a finished run answers as it does: attribution, robustness, and their report."""
