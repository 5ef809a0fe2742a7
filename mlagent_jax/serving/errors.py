"""Errors in OpenAI's format."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from mlagent_jax.text.surrogates import replace_surrogates

_RETRY = {"Retry-After": "1"}  # seconds
_TYPES = {408: "timeout_error", 429: "rate_limit_error"}

_shortened = reprlib.Repr()
_shortened.maxlevel, _shortened.maxdict, _shortened.maxlist = 3, 4, 4
_shortened.maxstring, _shortened.maxlong, _shortened.maxother = 80, 40, 80


def short_repr(value: Any) -> str:
    """What a client sent, shortened for an error message: a request may have megabytes."""
    return _shortened.repr(value)


class ApiError(Exception):
    """An error response: {"error": {message, type, param, code}}."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {
            "error": {
                "message": replace_surrogates(self.message),
                "type": kind,
                "param": self.param and replace_surrogates(self.param),
                "code": self.code,
            }
        }

    @property
    def headers(self) -> Mapping[str, str]:
        return _RETRY if self.status in (429, 503) else {}
