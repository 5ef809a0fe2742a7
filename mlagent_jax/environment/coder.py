"""The interface of the coder, which serves the tools Edit Script (AI) and Understand File.

The paper uses Qwen2.5-Coder-32B-Instruct. The implementations are in `mlagent_jax.agent`.
"""

from __future__ import annotations

from typing import Protocol


class CoderError(Exception):
    """The coder could not do what was asked. The agent gets the message as feedback, with the outcome `ERROR`."""


class CoderUnavailableError(Exception):
    """The coder's endpoint did not answer, despite retries. The outcome is `INFRASTRUCTURE`, which is never scored."""


class Coder(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def writes_free_code(self) -> bool:
        """Whether it can write arbitrary code. False only for a closed set of our own transformations."""
        ...

    def edit(self, script: str, instruction: str) -> str:
        """Returns the whole edited script. Raises CoderError, CoderUnavailableError."""
        ...

    def understand(self, text: str, question: str) -> str:
        """Answers a question about the text of a file. Raises CoderError, CoderUnavailableError."""
        ...
