"""The coder serves the tools that need to write or read code: Edit Script (AI) and Understand File.

The paper uses Qwen2.5-Coder-32B-Instruct; implementations are in `mlagent_jax.agent`.
"""

from __future__ import annotations

from typing import Protocol


class CoderError(Exception):
    """The coder could not do what was asked; the message goes to the agent as feedback (an `ERROR` outcome)."""


class CoderUnavailableError(Exception):
    """Ours: the endpoint did not answer after retries. An `INFRASTRUCTURE` outcome, never scored."""


class Coder(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def writes_free_code(self) -> bool:
        """False only for a closed set of our own transformations."""
        ...

    def edit(self, script: str, instruction: str) -> str:
        """The whole edited script. Raises CoderError, CoderUnavailableError."""
        ...

    def understand(self, text: str, question: str) -> str:
        """An answer about a file's text. Raises CoderError, CoderUnavailableError."""
        ...
