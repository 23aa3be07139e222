"""Agreement with other libraries; see README.md."""
