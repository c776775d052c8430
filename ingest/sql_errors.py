"""SQLAlchemy's errors in ingest's words: the store is away, or it refuses this item for good."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError, StatementError

from ingest.errors import StoreRefusedError, StoreUnavailableError


@contextmanager
def translated(store: str) -> Iterator[None]:
    """Raise ``StoreRefusedError`` or ``StoreUnavailableError`` in place of SQLAlchemy's."""
    try:
        yield
    except (DataError, IntegrityError) as error:
        raise StoreRefusedError(store, type(error.orig).__name__) from error
    except StatementError as error:
        if error.orig is not None and isinstance(error.orig, ValueError | TypeError | OverflowError):
            # The driver could not even write the value down, for instance a number beyond 64 bits.
            raise StoreRefusedError(store, type(error.orig).__name__) from error
        raise StoreUnavailableError(store, str(error.orig or error)) from error
    except SQLAlchemyError as error:
        raise StoreUnavailableError(store, str(error)) from error
