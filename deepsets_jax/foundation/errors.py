"""The errors that a user can cause and repair.

Commands print one as a line `error: ...` and exit with code 1. Any other exception is a
defect of the code and ends in a traceback.
"""


class UserError(ValueError):
  """A mistake that the user can repair; the message says where it is and how."""


class ConfigError(UserError):
  """A setting, an argument or a run folder that does not fit what is asked for."""


class DataError(UserError):
  """Bad data: the message names the file, the row, the column and the value."""
