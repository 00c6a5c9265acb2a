"""What a signature of a failure is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["root", "cascade", "confirmation"]
"""A root is a cause; a cascade only follows from another rank's end; a confirmation goes with a
root, and says too little alone."""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What lies behind a message.

    Parameters
    ----------
    name : str
        Of the cause: attempts that end by the same cause share one budget.
    pattern : str
        Of the message, as a regular expression.
    reason, remedy : str
        In a sentence each.
    role : {"root", "cascade", "confirmation"}
    attempts : int
        How often it may end a stage without progress before the stage counts as failed.
    of_node : bool
        Whether the node it is seen on is at fault, so that the next attempt keeps off it.
    """

    name: str
    pattern: str
    reason: str
    remedy: str
    role: Role = "root"
    attempts: int = 2
    of_node: bool = False
