"""Turns as the model would have gone on itself, and how near they come to what was said."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgehmn.core import CoreModel
from edgehmn.errors import DependencyError
from edgehmn.evaluation.chats import Chat, ChatTokenizer, Reading
from edgehmn.evaluation.people import People, Talk, learn_first
from edgehmn.streams import FOLLOW, open_head

MOST_TOKENS = 40  # of a continuation


class Bleu:
    """Corpus BLEU by sacrebleu with its defaults. Raises DependencyError where it is missing."""

    def __init__(self) -> None:
        try:
            from sacrebleu.metrics import BLEU
        except ImportError as e:
            line = "pip install 'edgehmn[eval]', or leave BLEU out with --bleu 0"
            raise DependencyError(f"sacrebleu is missing, which computes BLEU: {line}") from e
        self._metric = BLEU()

    def score(self, said: list[str], true: list[str]) -> float:
        return float(self._metric.corpus_score(said, [true]).score)

    def signature(self) -> str:
        """Of the last score."""
        return str(self._metric.get_signature())


def bleu(people: People, reading: Reading, count: int, tokenizer: ChatTokenizer, metric: Bleu) -> dict[str, Any]:
    """Greedy continuations of the turns of `you` after the last n, by the frozen model, by the others' delta, and by
    the person's; of the first `count` people, with seed 0."""
    image = people.export.image
    head = open_head(image)
    fresh = head.save()
    others = people.learn_others(reading, head)
    said: dict[str, list[str]] = {"static": [], "others": [], "frozen": []}
    true: list[str] = []
    for talk in [t for t in people.measured_talks if reading.suits(t[0])][:count]:
        deltas = {"static": fresh, "others": others, "frozen": learn_first(head, talk, reading, others)}
        turns = _turns(talk, reading)
        true += [_words(people, talk[0].ids[(talk[0].turn == t) & talk[0].words]) for t in turns]
        for name, delta in deltas.items():
            for turn in turns:
                head.load(delta)
                _hear(head, talk[0], reading, turn, follow=name != "static")
                said[name].append(_words(people, _go_on(head, tokenizer)))
        people.progress(1)
    scores = {name: metric.score(texts, true) for name, texts in said.items()}
    return {"turns": len(true), **scores, "signature": metric.signature()}


def _turns(talk: Talk, reading: Reading) -> list[int]:
    chat = talk[0]
    late = np.unique(chat.turn[reading.scored(chat)])
    return [int(t) for t in late if chat.sides[t] == "you"]


def _words(people: People, ids: npt.NDArray[np.int32]) -> str:
    return people.export.decode(ids).strip()


def _hear(model: CoreModel, chat: Chat, reading: Reading, turn: int, *, follow: bool) -> None:
    """Feed a dialogue from its beginning up to where the words of a turn begin."""
    model.reset()
    heard = (chat.turn < turn) | ((chat.turn == turn) & ~chat.words)
    modes = reading.modes(chat, FOLLOW if follow else 0)
    for token, mode in zip(chat.ids[heard].tolist(), modes[heard].tolist(), strict=True):
        model.attend(token, learn=False, follow=mode == FOLLOW)
        model.step(token)


def _go_on(model: CoreModel, tokenizer: ChatTokenizer) -> npt.NDArray[np.int32]:
    """The most probable continuation up to the end of the line."""
    out: list[int] = []
    while len(out) < MOST_TOKENS and not (out and tokenizer.ends_line(out[-1])):
        out.append(model.sample())
        model.step(out[-1])
    return np.array(out, np.int32)
