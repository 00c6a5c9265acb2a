"""The errors a user can meet.

    GibletError
    ├── ConfigError   a config or a command line that cannot be carried out (exit 2)
    ├── DataError     an input file that is missing, unreadable or inconsistent (exit 2)
    ├── StoreError    a feature store that is damaged, incomplete or of other settings (exit 2)
    ├── StorageError  a file system, or a limit of the machine, that refuses (exit 2)
    └── JobError      a job that could not be started or did not finish (exit 1)
        └── NodeError a node that lacks what the job was given; another node may have it (exit 1)

Each says what broke and what was seen; ``hint`` says what to do about it.
"""

from __future__ import annotations

from giblet_hpc.printable import printable


class GibletError(ValueError):
    """An error with a cause outside this package.

    Parameters
    ----------
    message : str
        What broke and what was seen.
    hint : str
        What to do; printed on a line of its own.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def render(self) -> str:
        """Return the text shown to the user: the message, then the hint."""
        text = f"error: {self}"
        return printable(f"{text}\n\nhint: {self.hint}" if self.hint else text)


class ConfigError(GibletError):
    """A config or a command line that cannot be carried out."""


class DataError(GibletError):
    """An input file that is missing, unreadable or inconsistent."""


class StoreError(GibletError):
    """A feature store that is damaged, incomplete or made with other settings."""


class StorageError(GibletError):
    """A file system, or a limit of the machine, that refuses."""


class JobError(GibletError):
    """A job that could not be started or did not finish."""

    exit_code = 1


class NodeError(JobError):
    """A node that lacks what the job was given; another node may have it."""
