"""Lists, page by page or item by item, however many pages they have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message


class Page(Protocol):
    """An answer that may not be the last one."""

    @property
    def next_page_token(self) -> str:
        """What asks for the next page; empty on the last one."""
        ...


Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Page)
E = TypeVar("E")


class Pages(Generic[A]):
    """The pages of a list, each asked for when it is wanted: `async for page in pages`, or `pages.items(…)`."""

    def __init__(self, call: Callable[[Any], Awaitable[A]], request: Message) -> None:
        self._call, self._request = call, request

    async def __aiter__(self) -> AsyncIterator[A]:
        asked = _copy(self._request)
        while True:
            answer = await self._call(asked)
            yield answer
            if not answer.next_page_token:
                return
            asked.page_token = answer.next_page_token

    async def items(self, of: Callable[[A], Iterable[E]]) -> AsyncIterator[E]:
        """Every item: `async for finding in pages.items(lambda page: page.findings)`."""
        async for page in self:
            for item in of(page):
                yield item


class BlockingPages(Generic[A]):
    """The same, for programs without an event loop."""

    def __init__(self, call: Callable[[Any], A], request: Message) -> None:
        self._call, self._request = call, request

    def __iter__(self) -> Iterator[A]:
        asked = _copy(self._request)
        while True:
            answer = self._call(asked)
            yield answer
            if not answer.next_page_token:
                return
            asked.page_token = answer.next_page_token

    def items(self, of: Callable[[A], Iterable[E]]) -> Iterator[E]:
        """Every item: `for finding in pages.items(lambda page: page.findings)`."""
        for page in self:
            yield from of(page)


def pages(call: Callable[[Q], Awaitable[A]], request: Q) -> Pages[A]:
    """A list's pages, from `request` on: `pages(mesh.scanner.ListFindings, request)`."""
    return Pages(call, request)


def blocking_pages(call: Callable[[Q], A], request: Q) -> BlockingPages[A]:
    """The same, for programs without an event loop."""
    return BlockingPages(call, request)


def _copy(request: Message) -> Any:
    """The caller's request stays as it is."""
    copy = type(request)()
    copy.CopyFrom(request)
    return copy
