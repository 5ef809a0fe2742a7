"""Programs that attack, exhaust or confuse a sandbox, and what has to come of each.

All are bounded: where an attack works after all, it stops by itself and harms nothing. Files of the kernel
are opened for writing, never written; sockets to other machines are made, never answered. System calls are
named by their numbers on x86-64.
"""

from hostile_programs.confusion import CONFUSION
from hostile_programs.escapes import ESCAPES
from hostile_programs.exhaustion import EXHAUSTION
from hostile_programs.program import Hostile

__all__ = ["CONFUSION", "ESCAPES", "EXHAUSTION", "Hostile"]
