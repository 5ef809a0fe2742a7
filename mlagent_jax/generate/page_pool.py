"""The host's record of the cache's pages: allocated, shared, kept for reuse, and evicted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from mlagent_jax.generate.kv_cache import NULL_PAGE

_ROOT = 0  # the serial number that stands before the first page of every prompt


@dataclass(frozen=True)
class _CachedPage:
    """key: the serial number of the page before, and this page's content. serial: never used twice.

    A page is thus identified by its content and by everything before it, even if another page takes its place.
    """

    key: Hashable
    serial: int


class PagePool:
    """All pages of a shard except the null page, with a reference count each.

    A full page of a prompt can be found again by its content and everything before it, until it is evicted. Pages
    without users are evicted in the order in which they were last used.

    tainted: pages without users that may hold values that are not finite. They are neither found nor allocated until
    `clean` has returned them.
    """

    def __init__(self, pages: int):
        self._free = [page for page in range(pages - 1, -1, -1) if page != NULL_PAGE]
        self._ref_counts = dict.fromkeys(self._free, 0)
        self._cached: dict[int, _CachedPage] = {}
        self._prefix_index: dict[Hashable, int] = {}
        self._evictable: OrderedDict[int, None] = OrderedDict()
        self._taint: set[int] = set()
        self.tainted: list[int] = []
        self._serial = _ROOT

    @property
    def available(self) -> int:
        """Pages that can be allocated."""
        return len(self._free) + len(self._evictable)

    @property
    def total(self) -> int:
        return len(self._ref_counts)

    def allocate(self, count: int) -> list[int]:
        """Gives `count` pages to one user. Raises ValueError if fewer are available."""
        if count > self.available:
            raise ValueError(
                f"cannot allocate {count} pages of the cache: only {self.available} are available"
            )
        allocated = []
        for _ in range(count):
            page = self._free.pop() if self._free else self._evict()
            self._ref_counts[page] = 1
            allocated.append(page)
        return allocated

    def share(self, pages: Sequence[int]) -> None:
        """Adds a user to each page."""
        for page in pages:
            self._ref_counts[page] += 1
            self._evictable.pop(page, None)

    def release(self, pages: Sequence[int]) -> None:
        """Removes a user from each page. The end of a prompt is evicted before its beginning."""
        for page in reversed(pages):
            self._ref_counts[page] -= 1
            if self._ref_counts[page]:
                continue
            if page in self._taint:
                self.tainted.append(page)
            elif page in self._cached:
                self._evictable[page] = None
            else:
                self._free.append(page)

    def taint(self, pages: Sequence[int]) -> None:
        """Marks pages that may hold values that are not finite; they cannot be found any more."""
        self._taint.update(pages)
        for page in pages:
            if cached := self._cached.pop(page, None):
                del self._prefix_index[cached.key]

    def clean(self, count: int) -> list[int]:
        """Frees up to `count` tainted pages and returns them; the caller must overwrite them before they are used."""
        pages = self.tainted[:count]
        del self.tainted[:count]
        self._taint.difference_update(pages)
        self._free += pages
        return pages

    def find_prefix(self, contents: Sequence[Hashable]) -> list[int]:
        """Cached pages with as many of these contents, from the first on, as there are.

        Call `share` with them before any other method.
        """
        found: list[int] = []
        serial = _ROOT
        for content in contents:
            page = self._prefix_index.get((serial, content))
            if page is None:
                break
            serial = self._cached[page].serial
            found.append(page)
        return found

    def cache_prefix(self, pages: Sequence[int], contents: Sequence[Hashable]) -> None:
        """Lets the full pages of a prompt, from its first one on, be found; those that are cached already stay."""
        serial = _ROOT
        for page, content in zip(pages, contents, strict=True):
            key = (serial, content)
            if key not in self._prefix_index:
                if page in self._taint:
                    return
                self._serial += 1
                self._prefix_index[key] = page
                self._cached[page] = _CachedPage(key, self._serial)
            serial = self._cached[self._prefix_index[key]].serial

    def reset_prefix_cache(self) -> None:
        """Makes all cached pages impossible to find, for example after the weights have changed."""
        self._free += self._evictable
        self._evictable.clear()
        self._prefix_index.clear()
        self._cached.clear()

    def _evict(self) -> int:
        page, _ = self._evictable.popitem(last=False)
        del self._prefix_index[self._cached.pop(page).key]
        return page
