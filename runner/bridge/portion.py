"""A portion of an input: certain messages for one run of a program, and nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from runner.bridge.inlet import Inlet, Piece
from runner.channel.base import Reader


class Portion(Inlet):
    """See the module. Made of an inlet's messages, which nobody else is given; what is left of them stays here.

    `ends`: they are followed by the end of input. Else nothing follows, and whoever runs the program ends it once
    everything is `done`. `culprits` are those left that were in work when the program died of one of them.
    """

    def __init__(self, home: Inlet, pieces: Iterable[Piece], *, ends: bool) -> None:
        self.port = home.port
        self.readers = home.readers
        self.codec = home.codec
        self.handed = 0
        self.unanswered = 0
        self.delayed_bytes = 0
        self.culprits: list[Piece] = []
        self.withdrawn: list[Piece] = []
        """What the program itself gave back: it is the inlet's again, or set aside."""
        self._home = home
        self._ends = ends
        self._portion = deque(pieces)
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
        """Whether everything was handed out, and the end of input comes after that."""
        return self._ends and not self._portion

    @property
    def exhausted(self) -> bool:
        """See `ended`."""
        return self.ended

    def next_returns(self, owner: int) -> int:
        """See `Inlet`."""
        del owner
        return self._portion[0].returns if self._portion else 0

    def take(
        self,
        *,
        owner: int | None = None,
        reader: Reader | None = None,
        most_bytes: int | None = None,
        most_messages: int | None = None,
        never_over: int | None = None,
        new: bool = True,
    ) -> Piece | None:
        """See `Inlet`."""
        del owner, reader, new
        if not self._portion:
            return None
        handed = self.handed
        piece = self._take_first(self._portion, most_bytes, most_messages, never_over)
        self._home.handed += self.handed - handed
        return piece

    def give_back(self, pieces: Sequence[Piece], *, owner: int | None = None) -> None:
        """See `Inlet`."""
        del owner
        for piece in reversed(pieces):
            self._home.handed -= piece.batch.count
            if piece.reader.left:
                piece.reader.account.unread += piece.batch.count
            else:
                self._portion.appendleft(piece)

    def blame(self, pieces: Sequence[Piece], *, owner: int, answered: bool, after: int) -> None:
        """See `Inlet`."""
        del owner, answered, after
        self.culprits += pieces
        self.give_back(pieces)

    def give_back_later(self, piece: Piece, delay_s: float) -> None:
        """See `Inlet`. A message that the program gives back itself does not kill it: it is in no portion any more."""
        self.withdrawn.append(piece)
        piece.deaths = piece.returns = 0
        self._home.give_back_later(piece, delay_s)

    def set_aside(self, piece: Piece) -> None:
        """See `Inlet`."""
        self.withdrawn.append(piece)
