"""Which page of the cache holds what, on the host: given out, shared, kept for a while after use, and taken back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from mlagent_jax.generate.kv_cache import TRASH

_ROOT = 0  # before the first page of every prompt


@dataclass(frozen=True)
class _Content:
    """serial: never given twice, so that what follows a page is not taken for what follows another in its place."""

    key: Hashable
    serial: int


class PagePool:
    """`pages` pages but for the trash, with a count of users each.

    A page of a prompt that is complete is found again by what it holds and all that came before it, as long as its
    room is not needed: those that nobody uses are taken in the order in which they were last used.

    tainted: pages that nobody uses or finds, and that nobody is given before `clean` has named them.
    """

    def __init__(self, pages: int):
        self._free = [page for page in range(pages - 1, -1, -1) if page != TRASH]
        self._users = dict.fromkeys(self._free, 0)
        self._contents: dict[int, _Content] = {}
        self._index: dict[Hashable, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._taint: set[int] = set()
        self.tainted: list[int] = []
        self._serial = _ROOT

    @property
    def available(self) -> int:
        """Pages that `take` could give."""
        return len(self._free) + len(self._idle)

    @property
    def total(self) -> int:
        return len(self._users)

    def take(self, count: int) -> list[int]:
        """`count` pages for one user; there must be as many."""
        if count > self.available:
            raise ValueError(
                f"{count} pages of the cache are wanted, but only {self.available} are to be had"
            )
        taken = []
        for _ in range(count):
            page = self._free.pop() if self._free else self._evict()
            self._users[page] = 1
            taken.append(page)
        return taken

    def share(self, pages: Sequence[int]) -> None:
        """One user more for each."""
        for page in pages:
            self._users[page] += 1
            self._idle.pop(page, None)

    def release(self, pages: Sequence[int]) -> None:
        """One user less for each. The last ones first, so that of a prompt its end goes before its beginning."""
        for page in reversed(pages):
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._taint:
                self.tainted.append(page)
            elif page in self._contents:
                self._idle[page] = None
            else:
                self._free.append(page)

    def taint(self, pages: Sequence[int]) -> None:
        """What these pages hold is of no use to others; none of them is found again."""
        self._taint.update(pages)
        for page in pages:
            if content := self._contents.pop(page, None):
                del self._index[content.key]

    def clean(self, count: int) -> list[int]:
        """Up to `count` tainted pages, which must be overwritten before they are used: they are free again."""
        pages = self.tainted[:count]
        del self.tainted[:count]
        self._taint.difference_update(pages)
        self._free += pages
        return pages

    def find(self, contents: Sequence[Hashable]) -> list[int]:
        """Pages that hold the first of these contents one after the other; `share` them before anything else."""
        found: list[int] = []
        serial = _ROOT
        for content in contents:
            page = self._index.get((serial, content))
            if page is None:
                break
            serial = self._contents[page].serial
            found.append(page)
        return found

    def keep(self, pages: Sequence[int], contents: Sequence[Hashable]) -> None:
        """Lets a prompt's complete pages, from its first on, be found; what is known already stays as it is."""
        serial = _ROOT
        for page, content in zip(pages, contents, strict=True):
            key = (serial, content)
            if key not in self._index:
                if page in self._taint:
                    return
                self._serial += 1
                self._index[key] = page
                self._contents[page] = _Content(key, self._serial)
            serial = self._contents[self._index[key]].serial

    def forget(self) -> None:
        """Nothing that is held is found any more: the weights that made it are gone."""
        self._free += self._idle
        self._idle.clear()
        self._index.clear()
        self._contents.clear()

    def _evict(self) -> int:
        page, _ = self._idle.popitem(last=False)
        del self._index[self._contents.pop(page).key]
        return page
