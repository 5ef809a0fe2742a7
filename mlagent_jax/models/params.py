"""The type of a model's parameters."""

from __future__ import annotations

from typing import Any

# A nested dict by module name. Its leaves are arrays; functions that say so take or return another leaf for each array:
# its shape, its sharding or its logical axes.
Params = dict[str, Any]
