"""Programs that attack, exhaust or confuse a sandbox, with the expected result of each.

All are harmless: an attack that works after all stops by itself and does no damage. Kernel files are opened for
writing but never written, and connections to other machines are never answered. System calls are given by their
numbers on x86-64.
"""

from hostile_programs.confusion import CONFUSION
from hostile_programs.escapes import ESCAPES
from hostile_programs.exhaustion import EXHAUSTION
from hostile_programs.program import Hostile

__all__ = ["CONFUSION", "ESCAPES", "EXHAUSTION", "Hostile"]
