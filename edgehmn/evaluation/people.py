"""P1 person by person: who is learned before, who is measured, and what each condition predicts of their turns."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel
from edgehmn.evaluate import Progress
from edgehmn.evaluation.chats import Chat, Reading
from edgehmn.evaluation.neural_cache import Case, States, best_mixture, bytes_per_state
from edgehmn.exported import Export
from edgehmn.streams import FOLLOW, LEARN, HiddenStream, Scores, in_nats, open_head, play, rewind

OTHERS = 60  # dialogues whose people are learned before; as many again choose the constants of the neural cache
FIRST_MEASURED = 200  # dialogues before this one are nobody that is measured
BIN, BINS = 20, 15  # own tokens of one point of the curve that tells when learning is ahead, and points
CHECKED_EVERY = 10  # persons, of which one is checked for what was forgotten of others
CHECKED_ON = 4  # dialogues that nobody learned

Floats = npt.NDArray[np.float64]
Talk = tuple[Chat, HiddenStream]


@dataclass(frozen=True)
class People:
    """All dialogues, split: others are learned before, those aside choose constants, the rest is measured.

    Progress counts dialogues encoded and dialogues measured."""

    export: Export
    chats: list[Chat]
    progress: Progress

    @property
    def n_others(self) -> int:
        return min(OTHERS, len(self.chats) // 4)

    @property
    def first_measured(self) -> int:
        return max(2 * self.n_others, min(FIRST_MEASURED, len(self.chats) // 2))

    @property
    def measured(self) -> list[Chat]:
        return self.chats[self.first_measured :]

    @cached_property
    def other_talks(self) -> list[Talk]:
        return self._talks(self.chats[: self.n_others])

    @cached_property
    def aside_talks(self) -> list[Talk]:
        return self._talks(self.chats[self.n_others : 2 * self.n_others])

    @cached_property
    def measured_talks(self) -> list[Talk]:
        return self._talks(self.measured)

    def _talks(self, chats: list[Chat]) -> list[Talk]:
        out = []
        for chat in chats:
            out.append((chat, HiddenStream.encode(self.export.image, chat.ids)))
            self.progress(1)
        return out

    def learn_others(self, reading: Reading, head: CoreModel) -> bytes:
        """The delta that a fresh head learns on the others' counted turns."""
        for chat, stream in self.other_talks:
            head.reset()
            play(head, stream, mode=reading.modes(chat, LEARN))
        return head.save()


@dataclass(frozen=True)
class Adapted:
    """One person. frozen: for each n, scores (length,) of what was learned up to the n-th turn, zero before that place;
    online: of going on learning; stranger: as the last of frozen, but of another person's turns learned instead;
    greedy: for each n, the most probable tokens; last: the delta after the last n."""

    frozen: dict[int, Scores]
    online: Scores
    stranger: Scores
    greedy: dict[int, npt.NDArray[np.int32]]
    last: bytes


def adapt(head: CoreModel, talk: Talk, stranger: Talk, reading: Reading, others: bytes) -> Adapted:
    """Start from the others' delta and listen to a dialogue, once for each condition."""
    chat, stream = talk
    learning, following = reading.modes(chat, LEARN), reading.modes(chat, FOLLOW)
    online, deltas, at = np.zeros(len(stream), np.uint32), {}, 0
    head.load(others)
    head.reset()
    for n in reading.turns:
        place = reading.place(chat, n)
        online[at:place] = play(head, stream, at, place, mode=learning)
        deltas[n], at = head.save(), place
    online[at:] = play(head, stream, at, mode=learning)
    frozen, greedy = {}, {}
    for n, delta in deltas.items():
        place, choices = reading.place(chat, n), np.full(len(stream), -1, np.int32)
        head.load(delta)
        rewind(head, stream, place)
        frozen[n] = np.zeros(len(stream), np.uint32)
        frozen[n][place:] = play(head, stream, place, mode=following, greedy=choices)
        greedy[n] = choices
    last = reading.turns[-1]
    place, strange = reading.place(chat, last), np.zeros(len(stream), np.uint32)
    learn_first(head, stranger, reading, others)
    rewind(head, stream, place)
    strange[place:] = play(head, stream, place, mode=following)
    return Adapted(frozen, online, strange, greedy, deltas[last])


def learn_first(head: CoreModel, talk: Talk, reading: Reading, others: bytes) -> bytes:
    """The delta that a head has after the others' and a dialogue up to the last n."""
    chat, stream = talk
    head.load(others)
    head.reset()
    play(head, stream, 0, reading.place(chat, reading.turns[-1]), mode=reading.modes(chat, LEARN))
    return head.save()


def measure(people: People, reading: Reading, seed: int) -> dict[str, Any]:
    """All measured people with one seed. Lists have an entry for each person: totals over its scored tokens."""
    head = open_head(people.export.image, seed)
    others = people.learn_others(reading, head)
    caches = Caches(people, reading, head, others)
    frozen_others = _loss_on_others(people, reading, head, others)
    rows: list[dict[str, Any]] = []
    forgotten: list[float] = []
    curve = np.zeros((BINS, 3))
    talks = [t for t in people.measured_talks if reading.suits(t[0])]
    for number, talk in enumerate(talks):
        person = adapt(head, talk, talks[number - 1], reading, others)
        rows.append(_row(talk, reading, person) | caches.row(talk, person))
        curve += _curve(talk, reading, person)
        if number % CHECKED_EVERY == 0:
            forgotten.append(_loss_on_others(people, reading, head, person.last) - frozen_others)
        people.progress(1)
    return {
        "people": {key: [row[key] for row in rows] for key in rows[0]},
        "forgotten": forgotten,
        "curve": curve.tolist(),
        "caches": caches.constants,
    }


def _row(talk: Talk, reading: Reading, person: Adapted) -> dict[str, Any]:
    """What was measured of a person's scored tokens."""
    chat, stream = talk
    scored = reading.scored(chat)
    first = scored & chat.first
    n0, last = reading.turns[0], reading.turns[-1]
    row: dict[str, Any] = {
        "tokens": int(scored.sum()),
        "words": int(first.sum()),
        "static": _total(stream.static[scored]),
        "online": _total(person.online[scored]),
        "stranger": _total(person.stranger[scored]),
    }
    row |= {f"frozen {n}": _total(scores[scored]) for n, scores in person.frozen.items()}
    for name, greedy in (("static", stream.greedy), ("others", person.greedy[n0]), ("frozen", person.greedy[last])):
        row[f"right {name}"] = int((greedy[first] == chat.ids[first]).sum())
    return row


def _total(scores: Scores) -> float:
    return float(in_nats(scores).sum())


def _curve(talk: Talk, reading: Reading, person: Adapted) -> Floats:
    """(BINS, 3): by the number of own tokens learned before, how many tokens, and their loss by others and online."""
    chat, _ = talk
    own = np.flatnonzero(reading.modes(chat, LEARN) == LEARN)[: BIN * BINS]
    words, bins = own[chat.words[own]], np.flatnonzero(chat.words[own]) // BIN
    losses = in_nats(person.frozen[reading.turns[0]][words]), in_nats(person.online[words])
    columns = (np.ones(len(words)), *losses)
    return np.stack([np.bincount(bins, column, BINS) for column in columns], axis=1)


def _loss_on_others(people: People, reading: Reading, head: CoreModel, delta: bytes) -> float:
    """Mean loss of a frozen delta on counted words of people whom nobody learned."""
    total, count = 0.0, 0
    for chat, stream in people.aside_talks[:CHECKED_ON]:
        head.load(delta)
        head.reset()
        modes = reading.modes(chat, FOLLOW)
        scored = chat.words & (modes == FOLLOW)
        total += _total(play(head, stream, mode=modes)[scored])
        count += int(scored.sum())
    return total / count


class Caches:
    """Neural caches of as many bytes as a delta: one on the frozen model, that holds others' turns and then the
    person's; one on the others' delta, that holds the person's. Their constants are chosen on people aside."""

    def __init__(self, people: People, reading: Reading, head: CoreModel, others: bytes) -> None:
        self._reading = reading
        self._capacity = len(others) // bytes_per_state(people.export.image.header.d_model)
        self._empty = _states(people.other_talks[0], reading, 0)
        self._others = self._empty
        for talk in people.other_talks:
            self._others = self._others.then(_states(talk, reading, len(talk[0].ids)), self._capacity)
        cases: dict[str, list[Case]] = {"cache": [], "others and cache": []}
        for talk in (t for t in people.aside_talks if reading.suits(t[0])):
            head.load(others)
            head.reset()
            frozen = play(head, talk[1], mode=reading.modes(talk[0], FOLLOW))
            for name, case in self._cases(talk, frozen, reading.turns[-1]).items():
                cases[name].append(case)
        self._mixtures = {name: best_mixture(c) for name, c in cases.items()}

    @property
    def constants(self) -> dict[str, Any]:
        chosen = {name: {"sharpness": m.sharpness, "weight": m.weight} for name, m in self._mixtures.items()}
        return {"states": self._capacity, **chosen}

    def row(self, talk: Talk, person: Adapted) -> dict[str, float]:
        """Losses of a person's scored tokens, for each n."""
        out = {}
        for n in self._reading.turns:
            for name, case in self._cases(talk, person.frozen[self._reading.turns[0]], n).items():
                out[f"{name} {n}"] = float(self._mixtures[name].nats(*case).sum())
        return out

    def _cases(self, talk: Talk, frozen_others: Scores, n: int) -> dict[str, Case]:
        chat, stream = talk
        scored = np.flatnonzero(self._reading.scored(chat))
        own = _states(talk, self._reading, self._reading.place(chat, n))
        hidden, targets = stream.hidden[scored - 1], chat.ids[scored]
        return {
            "cache": (in_nats(stream.static[scored]), self._others.then(own, self._capacity), hidden, targets),
            "others and cache": (
                in_nats(frozen_others[scored]),
                self._empty.then(own, self._capacity),
                hidden,
                targets,
            ),
        }


def _states(talk: Talk, reading: Reading, stop: int) -> States:
    """What a cache keeps of the counted turns before the place `stop`."""
    chat, stream = talk
    kept = np.flatnonzero(reading.modes(chat, LEARN)[:stop] == LEARN)
    kept = kept[kept > 0]
    return States.of(stream.hidden[kept - 1], chat.ids[kept])
