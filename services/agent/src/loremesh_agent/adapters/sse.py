"""Server-sent events, as far as model providers use them."""

from collections.abc import AsyncGenerator, AsyncIterator

_END = b"[DONE]"
_LONGEST_LINE = 1024 * 1024


class MalformedStream(Exception):
    """The stream holds something else than events of the kind we read."""


async def data_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Each event's data up to `[DONE]`, reading to the end; events of these providers have one line of it.

    Lines end with CR, LF or both, and with nothing else: JSON may hold what Python also takes for a line's end.
    """
    rest, done = b"", False
    async for chunk in chunks:
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise MalformedStream
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[len(b"data:") :].strip()
            done = done or data == _END
            if not done:
                yield data
