"""Readings in, decisions out: which series starts, continues or ends an alert.

Knows nothing of Ray, Valkey or SQL. A round takes at most one block of each series, so one
call of the model serves all series of the round. Invariants: decisions on readings
that come in order do not depend on how they are cut into batches; every decision names the
one model version that made its score and all scores of its evidence; a model that fails is
put back, never waited for.
"""

import copy
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter

import numpy as np

from ingest.alerts.model import Evidence, Severity, iso
from ingest.baseline import NAME, VERSION
from ingest.conformal import Tail
from ingest.detection_settings import BLOCK, DetectorSettings
from ingest.episode import Change, Episode
from ingest.errors import ScorerError
from ingest.payload import Reading
from ingest.scorer import Residuals, Scorer, Windows
from ingest.series import NOTHING_WAITS, Indices, Judged, Piece, Series, explain
from ingest.windows import MAX_ABS_VALUE, Point, SeriesKey, SeriesStore

logger = logging.getLogger(__name__)

HIGH_RARITY = 10.0
"""A score this many times rarer than the threshold's makes the alert high instead of warning."""

REFRESH_WINDOWS = 4096
"""Most readings of the past that one call scores anew after a swap, about 15 ms of one core; a series goes on with the
version it has until its turn comes."""

Item = tuple[Point, Reading]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the detector says about one series at one reading."""

    change: Change
    key: SeriesKey
    reading_key: str
    """Same reading, series and change, same key: committing it twice changes nothing."""
    ts: float
    recorded_at: str | None
    value: float
    score: float
    threshold: float
    severity: Severity
    text: str
    """In words, what made the reading rare."""
    count: int
    """Readings above the threshold in this episode."""
    model: str
    model_version: str
    evidence: Evidence


@dataclass(slots=True)
class SeriesState:
    """One series and its alert."""

    series: Series
    episode: Episode


Taken = tuple[SeriesState, list[Item], Piece]
"""A piece of a series between ``take`` and ``judge``."""


class Detector:
    """All series of one shard."""

    def __init__(self, settings: DetectorSettings, scorer: Scorer | None = None) -> None:
        self._settings = settings
        self._scorer = scorer
        self._previous: Scorer | None = None
        self._failed: Scorer | None = None
        self._levels: Mapping[SeriesKey, float] = {}
        self._refreshable = REFRESH_WINDOWS
        self._series = SeriesStore(lambda key: SeriesState(Series(key, settings), Episode()), settings.max_series)
        self.readings_total = 0
        self.ignored_total = 0
        """Values that were already there or older than a full window."""
        self.failure: str | None = None
        """Why the last model was put back; None while the one in use is fine."""
        self.is_behind = False
        """Whether some series may still be scored by another version than the one in use."""

    @property
    def model(self) -> str:
        return self._scorer.name if self._scorer is not None else NAME

    @property
    def model_version(self) -> str:
        return self._scorer.version if self._scorer is not None else VERSION

    @property
    def num_series(self) -> int:
        return len(self._series)

    def swap(self, scorer: Scorer | None) -> None:
        """Use another model from now on; None: each series' own baseline.

        Each series scores its past anew before the first reading that the new version judges, so that
        ranks compare scores of one version only; with many series it takes some calls until all have.
        """
        self._previous, self._scorer, self._failed = self._scorer, scorer, None
        self.failure, self.is_behind = None, True

    @property
    def num_behind(self) -> int:
        """Series that are still scored by another version than the one in use."""
        return sum(state.series.scored_by is not self._scorer for state in self._series)

    def catch_up(self) -> None:
        """Bring series to the version in use that nobody reports for at the moment, as many as one call may."""
        self._refreshable = REFRESH_WINDOWS
        for state in self._series if self.is_behind else ():
            if state.series.scored_by is not self._scorer and not self._refresh(state.series):
                return
        self.is_behind = False

    def take_over(self, twin: "Detector") -> None:
        """Use a twin's model from now on, with all it has made of the past; the twin must not be used any more.

        Both have judged the same readings. Which alerts are firing stays as it is here.
        """
        self.swap(twin._scorer)
        for state in self._series:
            theirs = twin._series.get(state.series.key)
            if theirs is not None and theirs.series.scored_by is self._scorer:
                state.series = theirs.series

    def twin(self, scorer: Scorer) -> "Detector":
        """Return a detector with this one's past and another model; the two share nothing that changes."""
        shared = {id(one): one for one in (self._settings, self._scorer, self._previous, scorer)}
        shared |= {id(state.series.scored_by): state.series.scored_by for state in self._series}
        twin = copy.deepcopy(self, shared)
        twin.swap(scorer)
        return twin

    def set_levels(self, levels: Mapping[SeriesKey, float]) -> None:
        """Take what people's verdicts say (``verdict_levels.py``), from the next reading of each series on."""
        self._levels = dict(levels)

    def set_firing(self, firing: Mapping[SeriesKey, tuple[float, float]]) -> None:
        """Make the store's word ours after a restart: exactly these series are firing.

        Args:
            firing: per series, the time of the reading that raised its alert and its score.
        """
        for state in self._series:
            if state.series.key not in firing:
                state.episode = Episode()
        for key, (started_ts, peak) in firing.items():
            episode = self._series.get_or_create(key).episode
            if not episode.is_firing:
                episode.is_firing, episode.started_ts, episode.peak, episode.exceeding = True, started_ts, peak, 1

    def recent(self, key: SeriesKey, until: float) -> Evidence | None:
        """Return a series' readings up to ``until`` as evidence of somebody else's judgement; None: none are kept."""
        state = self._series.get(key)
        if state is None:
            return None
        window = state.series.window
        last = int(np.searchsorted(window.column("ts"), until, side="right"))
        first = max(0, last - self._settings.evidence_before)
        columns = (window.column(name)[first:last].tolist() for name in ("ts", "value", "recorded_s"))
        points = tuple(
            (ts, value, None, None if math.isnan(at) else iso(at)) for ts, value, at in zip(*columns, strict=True)
        )
        return Evidence(key.metric, points, None, points[0][0], points[-1][0]) if points else None

    def take_lost(self) -> list[SeriesKey]:
        """Return, once, the series that left the bounded store while their alert was firing."""
        return [state.series.key for state in self._series.take_evicted() if state.episode.is_firing]

    def observe(self, readings: Sequence[Reading]) -> list[Decision]:
        """Judge readings; those of one series in the order of their device times.

        Returns:
            Decisions, per series in order.
        """
        self.readings_total += len(readings)
        self._refreshable = REFRESH_WINDOWS
        waiting = _by_series(readings)
        decisions: list[Decision] = []
        while waiting:
            decisions += self._round(waiting)
        return decisions

    def _round(self, waiting: dict[SeriesKey, list[Item]]) -> list[Decision]:
        """Take the next piece of every waiting series, score all at once, decide one by one."""
        taken: list[Taken] = []
        for key in list(waiting):
            state = self._series.get_or_create(key)
            state.series.level = self._levels.get(key)
            self._refresh(state.series)
            items = _next_items(state.series, waiting, key)
            piece = state.series.take([point for point, _ in items])
            if piece is None:
                self.ignored_total += 1
            else:
                taken.append((state, items, piece))
        decisions: list[Decision] = []
        for (state, items, piece), residuals in zip(*self._answered(taken), strict=True):
            judged = state.series.judge(piece, residuals)
            decisions += self._decide(state, items, judged)
        return decisions

    def _answered(self, taken: list[Taken]) -> tuple[list[Taken], list[Residuals | None]]:
        """Return the pieces with the answers of their series' models; when one fails, those of the one before it."""
        while True:
            try:
                return taken, _answers(taken)
            except _ModelFailedError as failure:
                self._put_back(failure.scorer, failure.error)
            again = []
            for state, items, piece in taken:
                if self._refresh(state.series, piece.indices):
                    piece = state.series.cut(piece.indices)
                again.append((state, items, piece))
            taken = again

    def _refresh(self, series: Series, waiting_M: Indices = NOTHING_WAITS) -> bool:
        """Bring a series to the model in use, if its turn has come; say whether it changed its model."""
        was = series.scored_by
        while series.scored_by is not self._scorer:
            scorer = self._scorer
            # One that has to leave its model cannot wait; the first of a call never does.
            must = series.scored_by is not None and series.scored_by is self._failed
            if not must and self._refreshable < min(len(series.window), REFRESH_WINDOWS):
                break
            self._refreshable -= len(series.window)
            try:
                residuals = _residuals(scorer, [series.history_windows(scorer, waiting_M)])[0]
            except ScorerError as error:
                self._put_back(scorer, error)
            else:
                series.adopt(scorer, residuals, waiting_M)
        return series.scored_by is not was

    def _put_back(self, failed: Scorer | None, error: ScorerError) -> None:
        if failed is self._scorer:
            self._scorer, self._previous = self._previous, None
        # Else it is the one before, which some series still had: they go over to the new one at once.
        self._failed, self.is_behind = failed, True
        self.failure = str(error)
        logger.error("%s; going on with %s@%s", error, self.model, self.model_version)

    def _decide(self, state: SeriesState, items: list[Item], judged: Judged) -> list[Decision]:
        if judged.threshold is None:
            return []
        if not state.episode.is_firing and judged.scores.max() < judged.threshold:
            return []
        decisions = []
        for number, (point, reading) in enumerate(items):
            score = float(judged.scores[number])
            index = int(judged.indices[number])
            recent_max = math.inf if score < judged.threshold else self._recent_max(state.series, index)
            change = state.episode.step(point.ts, score, judged.threshold, recent_max, self._settings)
            if change is not None:
                decisions.append(self._decision(change, state, judged, number, point, reading))
        return decisions

    def _recent_max(self, series: Series, index: int) -> float:
        length = max(self._settings.recent_readings, int(self._settings.recent_share * index))
        recent = series.window.score[max(0, index - length) : index]
        return float(np.nanmax(recent, initial=0.0))

    def _decision(
        self, change: Change, state: SeriesState, judged: Judged, number: int, point: Point, reading: Reading
    ) -> Decision:
        series = state.series
        threshold = judged.threshold or 0.0
        score = float(judged.scores[number])
        return Decision(
            change=change,
            key=series.key,
            reading_key=_reading_key(change, series.key, reading),
            ts=point.ts,
            recorded_at=reading.recorded_at,
            value=point.value,
            score=round(score, 3),
            threshold=round(threshold, 3),
            severity=_severity(judged.tail, score, threshold),
            text=explain(judged.ranks[:, number]),
            count=state.episode.exceeding,
            model=series.scored_by.name if series.scored_by is not None else NAME,
            model_version=series.scored_by.version if series.scored_by is not None else VERSION,
            evidence=self._evidence(state, int(judged.indices[number]), threshold),
        )

    def _evidence(self, state: SeriesState, index: int, threshold: float) -> Evidence:
        window = state.series.window
        started = int(np.searchsorted(window.column("ts"), state.episode.started_ts))
        # The oldest block is left out: how much of it is still there depends on how readings were batched.
        oldest = max(0, index + 1 - (self._settings.history_size - BLOCK))
        first = max(oldest, min(started, index) - self._settings.evidence_before)
        last = min(index + 1, first + self._settings.evidence_max)
        columns = (window.column(name)[first:last].tolist() for name in ("ts", "value", "score", "recorded_s"))
        points = tuple(
            (ts, value, None if math.isnan(score) else round(score, 3), None if math.isnan(at) else iso(at))
            for ts, value, score, at in zip(*columns, strict=True)
        )
        return Evidence(state.series.key.metric, points, round(threshold, 3), points[0][0], points[-1][0])


def _severity(tail: Tail | None, score: float, threshold: float) -> Severity:
    if tail is not None and tail.rate(score) * HIGH_RARITY <= tail.rate(threshold):
        return Severity.HIGH
    return Severity.WARNING


class _ModelFailedError(Exception):
    """A model failed on a round's readings."""

    def __init__(self, scorer: Scorer | None, error: ScorerError) -> None:
        super().__init__(str(error))
        self.scorer = scorer
        self.error = error


def _answers(taken: list[Taken]) -> list[Residuals | None]:
    """Return the residuals of each piece, from one call of each model; after a swap there are two for a while."""
    answers: list[Residuals | None] = [None] * len(taken)
    by_model: dict[int, list[int]] = {}
    for place, (state, _, _) in enumerate(taken):
        by_model.setdefault(id(state.series.scored_by), []).append(place)
    for places in by_model.values():
        scorer = taken[places[0]][0].series.scored_by
        try:
            found = _residuals(scorer, [taken[place][2].windows for place in places])
        except ScorerError as error:
            raise _ModelFailedError(scorer, error) from error
        for place, residuals in zip(places, found, strict=True):
            answers[place] = residuals
    return answers


def _residuals(scorer: Scorer | None, windows: list[Windows]) -> list[Residuals | None]:
    """Return the model's residuals per entry, from one call; None: the series' own baseline answers."""
    if scorer is None:
        return [None] * len(windows)
    sizes = [len(part) for part in windows]
    if sum(sizes) == 0:
        return [np.empty(0, dtype=np.float32) for _ in windows]
    try:
        answer = np.asarray(scorer.residuals(np.concatenate(windows)), dtype=np.float32)
    except Exception as error:
        # A model is someone else's code: whatever it does wrong, the caller goes on with the one before it.
        raise ScorerError(scorer.name, scorer.version, f"{type(error).__name__}: {error}") from error
    if answer.shape != (sum(sizes),) or not np.isfinite(answer).all() or (answer < 0).any():
        raise ScorerError(scorer.name, scorer.version, "residuals are not finite, not positive or of a wrong shape")
    return list(np.split(answer, np.cumsum(sizes)[:-1]))


def _by_series(readings: Iterable[Reading]) -> dict[SeriesKey, list[Item]]:
    waiting: dict[SeriesKey, list[Item]] = {}
    for reading in readings:
        recorded_s = math.nan if reading.recorded_at is None else _recorded_s(reading.recorded_at)
        seq = -1 if reading.seq is None else reading.seq
        for metric, value in reading.values.items():
            if not -MAX_ABS_VALUE < value < MAX_ABS_VALUE:
                value = math.copysign(MAX_ABS_VALUE, value)
            item = Point(reading.ts, seq, value, recorded_s), reading
            key = SeriesKey(reading.tenant, reading.device, metric)
            if key in waiting:
                waiting[key].append(item)
            else:
                waiting[key] = [item]
    for items in waiting.values():
        if len(items) > 1:
            items.sort(key=itemgetter(0))  # points begin with ts and seq
    return waiting


def _next_items(series: Series, waiting: dict[SeriesKey, list[Item]], key: SeriesKey) -> list[Item]:
    """Remove and return what ``Series.take`` accepts next."""
    items = waiting[key]
    count = min(series.room, len(items)) if series.window.is_newer(items[0][0]) else 1
    waiting[key] = items[count:]
    if not waiting[key]:
        del waiting[key]
    return items[:count]


def _reading_key(change: Change, key: SeriesKey, reading: Reading) -> str:
    identity = f"{reading.boot_id}/{reading.seq}" if reading.seq is not None else f"at {reading.ts!r}"
    return f"{change}:{key.tenant}/{key.device}/{key.metric}:{identity}"


def _recorded_s(recorded_at: str) -> float:
    try:
        at = datetime.fromisoformat(recorded_at)
    except ValueError:
        return math.nan
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
