"""Dialogues as streams of tokens, and which of their turns count as a person's own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehmn.evaluation.sources import SIDES, Dialogue
from edgehmn.exported import Export
from edgehmn.streams import FEED, Ids

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Chat:
    """A dialogue as tokens. ids, turn: (n,), token and number of the turn that it is of; words: (n,), whether it is of
    what is said or its end, instead of who says it; first: (n,), whether a word begins; sides: of each turn."""

    ids: Ids
    turn: npt.NDArray[np.int32]
    words: Flags
    first: Flags
    sides: tuple[str, ...]

    def begin_of(self, turn: int) -> int:
        """The place of the first token of a turn; the length for one after the last."""
        return int(np.searchsorted(self.turn, turn))


class ChatTokenizer:
    """Makes chats of dialogues; knows with which tokens words begin."""

    def __init__(self, export: Export) -> None:
        self._export = export
        pieces = [export.decode(np.array([i])) for i in range(export.image.vocab_size)]
        self._begins_with_space = np.array([p[:1].isspace() for p in pieces])
        self._ends_with_space = np.array([p[-1:].isspace() for p in pieces])
        self._blank = np.array([not p.strip() for p in pieces])
        self._ends_line = np.array(["\n" in p for p in pieces])

    def chat(self, dialogue: Dialogue) -> Chat:
        ids, turns, words = [], [], []
        for number, turn in enumerate(dialogue):
            speaker = self._export.encode(f"{turn.side}:")
            said = np.concatenate([self._export.encode(f" {turn.text}"), self._export.encode("\n")])
            ids += [speaker, said]
            turns.append(np.full(len(speaker) + len(said), number, np.int32))
            words += [np.zeros(len(speaker), bool), np.ones(len(said), bool)]
        all_ids, all_words = np.concatenate(ids), np.concatenate(words)
        sides = tuple(turn.side for turn in dialogue)
        return Chat(all_ids, np.concatenate(turns), all_words, all_words & self._first(all_ids), sides)

    def _first(self, ids: Ids) -> Flags:
        """Whether a word begins with each token: after a space, or with a space of its own."""
        after_space = np.concatenate([[True], self._ends_with_space[ids[:-1]]])
        first: Flags = ~self._blank[ids] & (self._begins_with_space[ids] | after_space)
        return first

    def ends_line(self, token: int) -> bool:
        return bool(self._ends_line[token])


@dataclass(frozen=True)
class Reading:
    """Which turns are counted as a person's own and learned from: "own", those of `you`; "chat", those of both sides,
    since the device hears both. turns: the numbers n after which it is measured, each on the same turns: those that
    are counted after the last n."""

    name: str
    turns: tuple[int, ...]

    @property
    def counted_sides(self) -> tuple[str, ...]:
        return SIDES if self.name == "chat" else SIDES[1:]

    def place(self, chat: Chat, n: int) -> int:
        """The place after n counted turns."""
        return chat.begin_of(self._counted(chat)[n - 1] + 1) if n else 0

    def _counted(self, chat: Chat) -> list[int]:
        return [i for i, side in enumerate(chat.sides) if side in self.counted_sides]

    def suits(self, chat: Chat) -> bool:
        """Whether anything is left to be scored after the last n."""
        return len(self._counted(chat)) > self.turns[-1]

    def modes(self, chat: Chat, mode: int) -> npt.NDArray[np.int32]:
        """(n,): `mode` on tokens of counted turns, FEED on others."""
        return np.where(self._is_counted(chat), mode, FEED).astype(np.int32)

    def scored(self, chat: Chat) -> Flags:
        """(n,): the words of counted turns after the last n."""
        late = np.arange(len(chat.ids)) >= self.place(chat, self.turns[-1])
        flags: Flags = late & chat.words & self._is_counted(chat)
        return flags

    def _is_counted(self, chat: Chat) -> Flags:
        return np.isin(chat.turn, self._counted(chat))


def readings(chats: Sequence[Chat], turns: tuple[int, ...]) -> list[Reading]:
    """Both readings, each with the numbers of turns that at least half of the chats go beyond."""
    out = []
    for name in ("own", "chat"):
        kept = [n for n in turns if sum(Reading(name, (0, n)).suits(c) for c in chats) >= len(chats) / 2]
        if any(kept):
            out.append(Reading(name, tuple(kept)))
    return out
