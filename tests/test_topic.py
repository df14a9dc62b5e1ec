"""Topics, banks and the guard in the core: bit for bit those of the oracle, with every bank's delta."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest

from edgehmn.core import CoreModel, ffi
from edgehmn.errors import EdgeHMNError, UsageError
from edgehmn.plasticity import Rule
from tests import oracle_state
from tests.models import BUSY, QUIET, SIX, opened, random_tokens, tiny_image
from tests.oracle_pair import Pair
from tests.oracle_state import State

TOPICS = replace(QUIET, topic_limit=1.0, topic_margin=0.1)
EVERYTHING = replace(BUSY, kappa=0.0, beta_attention=0.0, episodes=5, topic_limit=1.0, topic_margin=0.1)
KNOWN = 416  # tokens of a text after which its topic is known well enough to be left


def text(topic: int, n: int, seed: int = 0) -> list[int]:
    """A phrase of four tokens over and over, sometimes with another: none of four topics has a token of another."""
    ids = np.resize(np.arange(4), n)
    rng = np.random.default_rng((topic, seed))
    return (9 * topic + np.where(rng.random(n) < 0.1, rng.integers(0, 9, n), ids)).tolist()


def texts(*topics: int, n: int = KNOWN) -> Iterable[int]:
    return chain.from_iterable(text(topic, n, seed) for seed, topic in enumerate(topics))


def pair(rule: Rule, banks: int, settings: dict[str, Any] | None = None, *, known: bool = False) -> Pair:
    """known: with a delta that knows the first topic well enough to leave it."""
    image = tiny_image(SIX, rule, head_gain=2.0, settings=settings)
    both = Pair(image, banks=banks)
    if known:
        teacher = CoreModel(both.core.image)
        teacher.process(np.array(text(0, KNOWN)), learn=True)
        both.load(teacher.save())
    return both


def state(both: Pair, bank: int | None = None) -> State:
    delta = both.core.save() if bank is None else both.core.save_bank(bank)
    assert delta
    return oracle_state.load(both.oracle.header, delta)


@pytest.mark.parametrize(("rule", "banks"), [(TOPICS, 1), (EVERYTHING, 2), (TOPICS, 3)])
def test_topics_that_change_and_return(rule: Rule, banks: int) -> None:
    both, visited = pair(rule, banks, known=True), set()
    for i, topic in enumerate((2, 0, 1, 3, 0) if banks > 1 else (2, 0)):
        both.take_all(text(topic, 180, i))
        visited.add(both.oracle.banks.present)
    assert both.oracle.changes > (0 if banks == 1 else 2) and visited == set(range(banks))


def test_topics_when_learning_and_following_alternate() -> None:
    """A known topic is entered by following too; a new one by learning alone."""
    both = pair(TOPICS, 3, known=True).take_all(text(2, 160))
    assert (both.oracle.changes, both.oracle.banks.present) == (1, 1)
    both.take_all(text(0, 160, 1), "follow")
    assert (both.oracle.changes, both.oracle.banks.present) == (2, 0)
    before = both.oracle.changes
    both.take_all(text(1, 160), "follow")
    assert both.core.topic().banks == 2
    both.take_all(texts(3, 2, n=160), ("learn", "follow", "learn", "none"))
    assert both.oracle.changes > before


def test_following_into_another_bank() -> None:
    """The bank that is left keeps the gains of learning, and what counts the model's life goes on."""
    both = pair(EVERYTHING, 2, known=True).take_all(text(2, 160))
    left = state(both)
    for token in text(0, 160, 1):
        both.take(token, "follow")
        if both.oracle.banks.present == 0:
            break
    entered = state(both)
    both.compare_banks()
    assert state(both, 1).gains == left.gains != entered.gains and entered.dense != left.dense
    for name in ("seed", "learned", "writes", "phase", *oracle_state.AVERAGES):
        assert getattr(entered, name) == getattr(left, name)
    both.take_all(text(0, 40, 2), "follow")
    both.take_all(text(0, 20, 3))


def test_a_topic_is_known_by_its_centre_its_spread_and_where_it_wanders() -> None:
    both = pair(TOPICS, 1).take_all(text(0, 47))
    assert (state(both).checks, state(both).spread) == (0, 0)
    both.take_all(text(0, 3))
    begun = state(both)
    assert begun.checks == 1 and begun.spread > 0 and any(begun.centre) and not any(begun.wander)
    both.take_all(text(0, 300))
    known = state(both)
    assert known.checks == 1 + 300 // 16 and known.spread < begun.spread
    assert any(known.wander) and known.centre != begun.centre


@pytest.mark.parametrize("limit", [1, 2**31 - 1])
def test_topics_at_the_limits_of_the_rule(limit: int) -> None:
    """A limit so small that every text is strange, or so large that none is."""
    both = pair(TOPICS, 2, {"rule.topic_limit": limit, "rule.topic_margin": 0}, known=True)
    both.take_all(texts(2, 0, n=200))
    assert (both.oracle.changes > 0) == (limit == 1)


def test_a_new_topic_takes_the_place_of_the_youngest_bank() -> None:
    """With the largest margin no topic is ever known again."""
    both = pair(TOPICS, 3, {"rule.topic_limit": 1, "rule.topic_margin": 2**31 - 1}, known=True)
    order = [0]
    for token in texts(0, 2, 1, 3, n=500):
        both.take(token)
        if both.oracle.banks.present != order[-1]:
            order.append(both.oracle.banks.present)
            both.compare_banks()
    assert order == [0, 1, 2, 1]


def test_resets_in_between_forget_what_was_observed() -> None:
    both = pair(TOPICS, 2)
    for i, n in enumerate((47, 48, 63, 64, 65, 200, 33, 100)):
        both.take_all(text(i % 2 * 2, n, i))
        both.reset()
    assert both.oracle.state.checks > 1


def test_banks_are_saved_loaded_and_forgotten() -> None:
    both = pair(TOPICS, 3, known=True).take_all(text(2, 160))
    other, present = both.core.save_bank(0), both.core.save_bank(1)
    assert other and present and both.core.save_bank(2) is None
    both.load_bank(2, other)
    both.load_bank(1, other)  # the present one
    both.take_all(texts(2, 0, n=100))
    both.load(present)
    both.take_all(texts(1, 2, n=100))
    both.forget(3)
    assert [both.core.save_bank(k) is None for k in range(3)] == [k != both.oracle.banks.present for k in range(3)]
    both.take_all(texts(1, 3, n=60))


def test_a_bank_goes_back_when_it_is_left_to_its_older_snapshot() -> None:
    """It was loaded when 415 tokens were learned, and the text changes after 520 more, so that two snapshots exist."""
    both = pair(TOPICS, 2, known=True).take_all(text(0, 520, 1))
    for token in text(2, 200):
        both.take(token)
        if both.oracle.changes:
            break
    both.compare_banks()
    assert both.oracle.changes and state(both, 0).learned == KNOWN - 1 + 256


# ---- The interface


def test_refusals() -> None:
    image = opened(tiny_image(SIX, EVERYTHING))
    for banks in (0, 17, -1):
        with pytest.raises(UsageError, match="E_ARGUMENT"):
            CoreModel(image, banks=banks)
    model, static = CoreModel(image, banks=2), CoreModel(image, plastic=False)
    for refused in (
        lambda: model.save_bank(2),
        lambda: model.load_bank(2, model.save()),
        lambda: model.guard_score(48),
        lambda: model.follow(37),
    ):
        with pytest.raises(UsageError, match="E_ARGUMENT"):
            refused()
    for refused in (lambda: static.follow(1), static.topic, lambda: static.guard_score(0), lambda: static.save_bank(0)):
        with pytest.raises(EdgeHMNError, match="E_STATE"):
            refused()
    with pytest.raises(EdgeHMNError, match="E_STATE"):
        CoreModel(image, plastic=False, banks=2)
    before = model.save()
    with pytest.raises(EdgeHMNError, match="E_SIZE"):
        model.load_bank(1, before[:-4])
    assert model.save_bank(1) is None and model.save() == before


def test_one_bank_is_the_model() -> None:
    model = CoreModel(opened(tiny_image(SIX, EVERYTHING)))
    model.process(random_tokens(30, 37), learn=True)
    assert model.save_bank(0) == model.save() and model.topic().banks == 1
    model.load_bank(0, model.save())


# ---- Guard

GUARDED = replace(TOPICS, bias_step=0.2, row_slots=(2, 0), eta_scale=0.01, phase_period=5, decay=0.01)


def with_excess(both: Pair, value: int, learned: int) -> None:
    st = state(both)
    st.guard_excess, st.learned = value, learned
    both.load(oracle_state.save(both.oracle.header, st))


def test_the_guard_of_a_fresh_model_is_that_of_the_frozen_one() -> None:
    both = pair(EVERYTHING, 1)
    frozen = [both.oracle.guard[i].bits for i in range(both.oracle.header.n_guard)]
    every = range(len(frozen))
    assert len(frozen) == 48
    assert [both.core.guard_score(i) for i in every] == [both.oracle.guard_score(i) for i in every] == frozen
    both.take_all(random_tokens(100, 37))
    assert [both.core.guard_score(i) for i in every] == [both.oracle.guard_score(i) for i in every] != frozen


def test_looking_at_the_guard_disturbs_nothing() -> None:
    image = opened(tiny_image(SIX, EVERYTHING))
    looked, untouched = CoreModel(image), CoreModel(image)
    for i, token in enumerate(random_tokens(60, 37).tolist()):
        for model in (looked, untouched):
            model.learn(token)
            looked.guard_score(i % 48)
            model.step(token)
        looked.guard_score(i % 48)
        assert looked.save() == untouched.save() and looked.score(3) == untouched.score(3)


@pytest.mark.parametrize("banks", [1, 2])
@pytest.mark.parametrize("level", [0.5, 1, 1.5, 2, 2.5, 3.5, 5, 1000])
def test_every_level_of_harm(level: float, banks: int) -> None:
    """Limits so wide that a level lasts, and an excess that is loaded; the first look comes within five tokens."""
    limit = 1 << 18
    both = pair(GUARDED, banks, {"rule.guard_limit": limit})
    both.take_all(text(0, 40))
    with_excess(both, int(level * limit), 60)
    both.take_all(text(0, 4))
    before = state(both)
    both.take_all(chain(text(0, 40), text(2, 40)), ("learn", "learn", "follow", "learn"))
    after = state(both)
    assert both.oracle.rollbacks == (level > 4.2)
    assert (before.rows == after.rows) == (2 < level < 4.2), "rows are written, or frozen"
    assert before.dense != after.dense, "weights fade even when they are frozen"
    assert after.learned == before.learned + 60


@pytest.mark.parametrize(("limit", "banks"), [(1, 2), (2000, 1), (2000, 2), (20000, 2)])
def test_levels_of_harm_that_come_by_themselves(limit: int, banks: int) -> None:
    both = pair(GUARDED, banks, {"rule.guard_limit": limit, "rule.eta_local": 1 << 21})
    both.take_all(texts(0, 2, n=350))
    assert both.oracle.rollbacks > 0 or limit == 20000


def test_a_rollback_returns_to_the_older_snapshot() -> None:
    """The limit falls, once two snapshots were taken, to a fraction of the excess; the next look finds it."""
    both = pair(GUARDED, 2, {"rule.guard_limit": 1 << 20, "rule.eta_local": 1 << 20, "rule.topic_limit": 2**31 - 1})
    both.take_all(text(0, 513))
    older = both.oracle.banks.snapshots[0]
    both.take_all(text(0, 100, 1))
    both.core.image.header.rule.guard_limit = 1000  # an image once checked is not checked again
    ffi.cast("ehmn_image *", both.oracle.header).rule.guard_limit = 1000
    assert both.oracle.state.guard_excess > 5000
    while both.oracle.rollbacks == 0:
        both.take(0)
    after = state(both)
    assert (after.dense, after.bias, after.reward, after.learned) == (older.dense, older.bias, older.reward, 640)
    both.take_all(text(0, 130))


def test_without_a_limit_or_without_vectors_nothing_is_watched() -> None:
    for image in (tiny_image(SIX, replace(GUARDED, guard_limit=0.0)), tiny_image(SIX, GUARDED, n_guard=0)):
        both = Pair(image)
        with_excess(both, 1000, 60)
        both.take_all(text(0, 80))
        assert both.oracle.rollbacks == 0 and state(both).guard_excess == 1000
