"""A book that does not balance says so, and a scrape meets every book whole."""

from prometheus_client import CollectorRegistry

from realtime.book_metrics import BookCollector
from realtime.books import Book, added

NOC, RUN = ("noc", "critical"), ("run", "progress")
BOOK = Book(
    taken={NOC: 5, RUN: 9},
    settled={(*NOC, "delivered", ""): 3, (*NOC, "dropped", "slow"): 1, (*RUN, "coalesced", ""): 7},
    open={(*NOC, "waiting"): 1, (*RUN, "in flight"): 2},
)


def test_a_book_that_balances_has_nothing_to_say() -> None:
    """Each label by itself."""
    assert BOOK.imbalance() == {}


def test_what_is_missing_or_too_much_is_named_by_its_label() -> None:
    """Even when both together look right."""
    wrong = Book(taken={NOC: 6, RUN: 8}, settled=BOOK.settled, open=BOOK.open)

    assert wrong.imbalance() == {NOC: 1, RUN: -1}


def test_sums_of_books_that_balance_balance() -> None:
    """Replicas and publishers are added line by line."""
    total = added([BOOK, BOOK])

    assert (total.imbalance(), total.num_taken(), total.num_settled("dropped", "slow"), total.num_open()) == (
        {}, 28, 2, 6,
    )  # fmt: skip
    assert total.to_json() == {
        "taken": 28, "coalesced": 14, "delivered": 6, "dropped slow": 2, "in flight": 4, "waiting": 2, "imbalance": 0,
    }  # fmt: skip


def test_a_book_is_exported_from_one_value() -> None:
    """``in - out - open`` is 0 in every scrape, however the part goes on meanwhile."""
    made: list[Book] = []

    def read() -> Book:
        made.append(BOOK)
        return BOOK

    collector, registry = BookCollector(), CollectorRegistry()
    registry.register(collector)
    assert [family.samples for family in collector.collect()] == [[], [], []]
    collector.keep("gateway", read)
    families = {family.name: family for family in registry.collect()}
    values = {name: sum(sample.value for sample in family.samples) for name, family in families.items()}

    assert len(made) == 1
    assert values == {"watchfloor_accounting_in": 14, "watchfloor_accounting_out": 11, "watchfloor_accounting_open": 3}


def test_a_forked_child_has_no_books_of_its_parents() -> None:
    """Reading one would wait for a lock that nobody in the child holds."""
    collector = BookCollector()
    collector.keep("publisher", lambda: BOOK)
    collector.begin_again()

    assert [family.samples for family in collector.collect()] == [[], [], []]
