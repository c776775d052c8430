"""The hub's journal in Redis or Valkey: one stream of records, one hash of marks.

Translates records to commands and foreign errors to ours; decides nothing. Invariants: a
record is one script call, so it is stored whole or not at all, and never by a hub that a
younger one has replaced; with keys, no payload is stored that can be read without them.
"""

import asyncio
from collections.abc import Sequence
from importlib import resources
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from realtime.errors import FencedError, JournalLostError, JournalUnavailableError, RealtimeError
from realtime.journal import JournalRecord, JournalState, Stored
from realtime.journal_cipher import JournalCipher
from realtime.pipe_redis import Answer, RedisPipe
from realtime.publication import Priority, Publication
from realtime.recovery import LostRange, Mark
from realtime.stream import Entry

# One hash tag: on a Redis cluster the keys of a script must live on one node.
KEY_FENCE = "wf:{hub}:fence"
KEY_LOG = "wf:{hub}:log"
KEY_MARKS = "wf:{hub}:marks"
KEY_HEAD = "wf:{hub}:head"
KEYS = [KEY_LOG, KEY_MARKS, KEY_HEAD]
NEW_KEYS = [key + ":new" for key in KEYS]

LOAD_RECORDS = 200
"""Records read at a time when a hub starts."""


class RedisJournal:
    """Journal over two connections: one that records are poured into, one for all else."""

    def __init__(self, url: str, owner: str, timeout_s: float, cipher: JournalCipher | None = None) -> None:
        # No retries here: a record that may or may not be stored is the hub's to decide on.
        self._redis: Any = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._pipe = RedisPipe(url, timeout_s)
        self._owner = owner
        self._cipher = cipher or JournalCipher()
        self._fence = 0
        self._append = self._redis.register_script(_script("journal_append"))
        self._begin = self._redis.register_script(_script("journal_begin"))
        self._commit = self._redis.register_script(_script("journal_commit"))

    async def open(self) -> JournalState | None:
        """See ``Journal.open``."""
        try:
            self._fence = int(await self._redis.incr(KEY_FENCE))
            await self._redis.script_load(self._append.script)
            return await self._load()
        except (RedisError, OSError) as error:
            raise JournalUnavailableError("open", str(error)) from error

    async def append(self, record: JournalRecord) -> Stored:
        """See ``Journal.append``."""
        try:
            answer = await self._pipe.call(*self._command(record))
        except (RedisError, OSError) as error:
            raise JournalUnavailableError("append", str(error)) from error
        return self._stored(answer)

    @property
    def is_clear(self) -> bool:
        """See ``Journal.is_clear``."""
        return self._pipe.is_clear

    def append_at_once(self, record: JournalRecord) -> Stored:
        """See ``Journal.append_at_once``."""
        return self._stored(self._pipe.call_at_once(*self._command(record)))

    async def rewrite(self, records: Sequence[JournalRecord]) -> None:
        """See ``Journal.rewrite``."""
        await self._pipe.reset()
        try:
            if self._fence == 0:
                self._fence = int(await self._redis.incr(KEY_FENCE))
            fence = int(await self._begin([KEY_FENCE, *NEW_KEYS], [self._fence]))
            if fence < 0:
                raise FencedError(self._fence, -fence)
            self._fence = fence
            for record in records:
                self._check(await self._append([KEY_FENCE, *NEW_KEYS], self._arguments(record)))
            self._check(await self._commit([KEY_FENCE, *KEYS, *NEW_KEYS], [self._fence]))
        except (RedisError, OSError) as error:
            raise JournalUnavailableError("rewrite", str(error)) from error
        except JournalLostError as error:
            # Forgotten in the middle of it: as good as away, the caller tries again.
            raise JournalUnavailableError("rewrite", str(error)) from error

    async def close(self) -> None:
        """See ``Journal.close``."""
        await self._pipe.reset()
        await self._redis.aclose()

    async def _load(self) -> JournalState | None:
        head = await self._redis.get(KEY_HEAD)
        if head is None:
            return None
        marks = await self._redis.hgetall(KEY_MARKS)
        entries: list[Entry] = []
        after = "-"
        while records := await self._redis.xrange(KEY_LOG, after, count=LOAD_RECORDS):
            for _, fields in records:
                entries.extend(self._read_entry(header, data) for header, data in fields.items())
            after = "(" + records[-1][0].decode()
        owner, log_mark = orjson.loads(head)
        return JournalState(
            owner=owner,
            log_mark=_read_mark(log_mark),
            entries=tuple(entries),
            marks={channel.decode(): _read_mark(orjson.loads(mark)) for channel, mark in marks.items()},
        )

    def _command(self, record: JournalRecord) -> list[Any]:
        keys = [KEY_FENCE, *KEYS]
        return ["EVALSHA", self._append.sha, len(keys), *keys, *self._arguments(record)]

    def _stored(self, answer: Answer) -> Stored:
        stored: Stored = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda answered: self._settle(stored, answered))
        return stored

    def _arguments(self, record: JournalRecord) -> list[Any]:
        head = orjson.dumps([self._owner, _write_mark(record.log_mark)])
        arguments: list[Any] = [
            self._fence,
            head,
            f"{record.entries[-1].seq if record.entries else 0}-0",
            f"{record.keep_after + 1}-0",
            len(record.forgotten),
            len(record.marks),
            *record.forgotten,
        ]
        for channel, mark in record.marks.items():
            arguments += (channel, orjson.dumps(_write_mark(mark)))
        for entry in record.entries:
            key_id, data = self._cipher.seal(entry.publication)
            arguments += (_write_header(entry, key_id), data)
        return arguments

    def _read_entry(self, header: bytes, data: bytes) -> Entry:
        # A hub before publications had an ``info``, and before there were keys, ends a field or two earlier.
        seq, channel, epoch, offset, priority, time_ms, key, batch, index, coalesce_key, *rest = orjson.loads(header)
        info, key_id = [*rest, "", ""][:2]
        publication = Publication(
            channel, offset, data, Priority(priority), time_ms, epoch, info.encode(), coalesce_key
        )
        payload = self._cipher.open(key_id, publication)
        return Entry(seq, publication._replace(data=payload), key, batch, index)

    def _settle(self, stored: Stored, answered: Answer) -> None:
        if stored.done() or answered.cancelled():
            stored.cancel()
            return
        error = answered.exception()
        if error is not None:
            stored.set_exception(JournalUnavailableError("append", str(error)))
            return
        try:
            self._check(answered.result())
        except RealtimeError as refusal:
            stored.set_exception(refusal)
        else:
            stored.set_result(None)

    def _check(self, answer: Any) -> None:
        if answer == -1:
            raise JournalLostError(self._fence)
        if answer != 0:
            raise FencedError(self._fence, int(answer))


def _script(name: str) -> str:
    return resources.files("realtime").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def _write_header(entry: Entry, key_id: str) -> bytes:
    publication = entry.publication
    return orjson.dumps(
        [
            entry.seq,
            publication.channel,
            publication.epoch,
            publication.offset,
            publication.priority,
            publication.time_ms,
            entry.key,
            entry.batch,
            entry.index,
            publication.coalesce_key,
            publication.info.decode(),
            key_id,
        ]
    )


def _write_mark(mark: Mark) -> list[Any]:
    return [mark.epoch, mark.floor, mark.top, mark.end, [[lost.after, lost.before] for lost in mark.lost]]


def _read_mark(parts: list[Any]) -> Mark:
    epoch, floor, top, end, lost = parts
    return Mark(epoch, floor, top, end, tuple(LostRange(after, before) for after, before in lost))
