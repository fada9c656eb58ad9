"""A portion of an input: certain messages for one run of a program, and then the end of input."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from runner.bridge.inlet import Inlet, Piece
from runner.channel.base import Reader


class Portion(Inlet):
    """See the module. Made of an inlet's messages, which nobody else is given; what is left of them stays here."""

    def __init__(self, home: Inlet, pieces: Iterable[Piece]) -> None:
        self.port = home.port
        self.readers = home.readers
        self.codec = home.codec
        self._home = home
        self._portion = deque(pieces)
        self.handed = 0
        self._hungry = []

    def pieces(self) -> tuple[Piece, ...]:
        """What is handed to nobody."""
        return tuple(self._portion)

    def count_answers(self, messages: int) -> None:
        """See `Inlet`."""
        self._home.count_answers(messages)

    def lose(self) -> None:
        """Forget what is handed to nobody."""
        self._portion.clear()

    @property
    def queued_messages(self) -> int:
        """See `Inlet`."""
        return sum(piece.batch.count for piece in self._portion)

    def waiting_for(self, owner: int) -> int:
        """See `Inlet`."""
        del owner
        return self.queued_messages

    @property
    def queued_bytes(self) -> int:
        """See `Inlet`."""
        return sum(piece.batch.size_bytes for piece in self._portion)

    @property
    def ended(self) -> bool:
        """Whether everything was handed out; nothing comes after that."""
        return not self._portion

    def take(
        self,
        *,
        owner: int | None = None,
        reader: Reader | None = None,
        most_bytes: int | None = None,
        most_messages: int | None = None,
        never_over: int | None = None,
    ) -> Piece | None:
        """See `Inlet`."""
        del owner, reader
        if not self._portion:
            return None
        handed = self.handed
        piece = self._take_first(self._portion, most_bytes, most_messages, never_over)
        self._home.handed += self.handed - handed
        return piece

    def give_back(self, pieces: Sequence[Piece], *, owner: int | None = None, suspect_after: int | None = None) -> None:
        """See `Inlet`."""
        del owner, suspect_after
        for piece in reversed(pieces):
            self._home.handed -= piece.batch.count
            if piece.reader.left:
                piece.reader.account.unread += piece.batch.count
            else:
                self._portion.appendleft(piece)
