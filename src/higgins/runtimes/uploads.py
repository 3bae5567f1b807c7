"""What somebody sends to be put into a container."""

from collections.abc import AsyncIterator


class Upload:
    """The sender's data, with the error that ended it: on the wire that is only a connection that broke."""

    def __init__(self, data: AsyncIterator[bytes]) -> None:
        self._data = data
        self.error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._data:
                yield piece
        except Exception as error:
            self.error = error
            raise
