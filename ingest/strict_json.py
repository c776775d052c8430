"""One JSON object from bytes, strictly: what other parsers let pass is refused with a reason.

Python's own parser takes NaN, a byte order mark, UTF-16 and the last of two equal keys, and
dies of deep nesting. orjson refuses most of these and is ten times as fast; the slow parser
here only tells *why* something was refused. Pure; never quotes the payload.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from ingest.payload import PayloadError, Reason

UTF8_BOM = b"\xef\xbb\xbf"
DEPTH_LIMIT = 32
"""Nesting that the slow parser looks at; orjson's own limit is 1024."""
DETAILS_DEPTH = 8
"""Nesting of what a device may say in its own words."""


def load_object(data: bytes) -> dict[str, Any]:
    """Return the object that ``data`` holds; duplicate keys are found by ``reject_duplicate_keys``.

    Raises:
        PayloadError: it holds anything else.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _diagnosis(data, error) from None
    if type(document) is not dict:
        raise PayloadError(Reason.NOT_OBJECT, type(document).__name__)
    return document


def reject_duplicate_keys(data: bytes, num_texts: int) -> None:
    """Raise when an object in ``data`` has a key twice.

    Nearly always one count settles it: without a backslash every quote in the bytes begins
    or ends a key or a text, so a repeated key leaves quotes that nothing accounts for.

    Args:
        data: a JSON document.
        num_texts: keys and text values of all objects in it, as parsed.
    """
    if data.count(b'"') != 2 * num_texts or b"\\" in data:
        try:
            json.loads(data, object_pairs_hook=_unique)
        except RecursionError:
            raise PayloadError(Reason.TOO_DEEP) from None


def count_texts(document: Mapping[str, Any]) -> int:
    """Return the number of keys and text values of one object, without what lies inside others."""
    count = len(document)
    for value in document.values():
        if type(value) is str:
            count += 1
    return count


def count_texts_within(value: Any, depth: int = 1) -> int:
    """Return the number of keys and text values of a value and of all that lies inside it.

    Raises:
        PayloadError: it is nested deeper than ``DETAILS_DEPTH``, or a text holds what a store refuses.
    """
    if depth > DETAILS_DEPTH:
        raise PayloadError(Reason.TOO_DEEP, f"details may be nested {DETAILS_DEPTH} deep")
    if type(value) is str:
        if "\0" in value:
            raise PayloadError(Reason.BAD_TEXT, "NUL in details")
        return 1
    if type(value) is dict:
        return sum(count_texts_within(key, depth) + count_texts_within(one, depth + 1) for key, one in value.items())
    if type(value) is list:
        return sum(count_texts_within(one, depth + 1) for one in value)
    return 0


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise PayloadError(Reason.DUPLICATE_KEY)
    return document


def _diagnosis(data: bytes, error: orjson.JSONDecodeError) -> PayloadError:
    where = f"at character {error.pos}"
    if not data.strip():
        return PayloadError(Reason.EMPTY)
    if data.startswith(UTF8_BOM):
        return PayloadError(Reason.NOT_UTF8, "byte order mark")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as undecodable:
        return PayloadError(Reason.NOT_UTF8, f"at byte {undecodable.start}")
    if _depth(text) > DEPTH_LIMIT:
        return PayloadError(Reason.TOO_DEEP)
    try:
        # Texts with control characters pass here, so that a number refused beside them is still found.
        document = json.loads(text, parse_constant=_bad_constant, parse_int=_checked_int, parse_float=_checked_float)
        json.dumps(document, ensure_ascii=False).encode()
    except PayloadError as known:
        return known
    except UnicodeEncodeError:
        return PayloadError(Reason.BAD_TEXT, "half of a surrogate pair")
    except ValueError:
        return PayloadError(Reason.NOT_JSON, where)
    return PayloadError(Reason.NOT_JSON, where)


def _depth(text: str) -> int:
    """Deepest nesting of brackets; those inside texts count too, which only errs towards refusing."""
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _bad_constant(name: str) -> NoReturn:
    raise PayloadError(Reason.BAD_NUMBER, name)


def _checked_int(text: str) -> int:
    if len(text) > 300:
        raise PayloadError(Reason.BAD_NUMBER, f"{len(text)} digits")
    return int(text)


def _checked_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise PayloadError(Reason.BAD_NUMBER, "infinite")
    return number
