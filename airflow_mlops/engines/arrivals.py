"""Whether the data of a window is there and has stopped changing, told without reading or hashing it.

A look lists the files and, for Parquet, reads footers: their statistics say between which times a file's rows lie.
Nothing else is cheap enough to be asked every minute. So a file *may hold* rows of the window; that it does, and which,
is the snapshot's business.

Rest is measured in one of two ways. Files tell when they were last changed, so one look suffices: nothing has to be
remembered from look to look, which a rescheduled Airflow task cannot. On a local disk the later of modification and
status change counts, because copying tools set the former back. And whoever looks more than once sees for himself
whether something changed in between; that alone decides where a source tells no times, or times in the future.

Not seen: a file of an object store that is replaced within one second by one of the same size, and a replacement that
carries an older time stamp, unless somebody looked before and after it. S3 stamps an upload in parts with its start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.records import Window
from airflow_mlops.core.windows import Length
from airflow_mlops.engines.file_times import UNKNOWN, FileTimes, folder_times, footer_times
from airflow_mlops.engines.files import FileSource
from airflow_mlops.engines.listing import ListedFile, Listing, list_files
from airflow_mlops.engines.sources import make_source
from airflow_mlops.engines.storage import StorageAccess, describe, filesystem, path_in_store, scheme_of, translated
from airflow_mlops.errors import DataMissingError, DataReadError, InvalidSpecError, UnknownNameError

if TYPE_CHECKING:
    from airflow_mlops.spec.data import DataSpec

#: How a file is told to be of the window.
Selection = Literal["auto", "statistics", "folders", "anything"]
#: More pieces than this are a slip of the pen: a minute for an hour, say.
MOST_PIECES = 10_000
_REMOTE_READERS = 8
_CHECKED = {
    "statistics": "the files whose footers do not rule out rows of the window; no row was read",
    "folders": "the files whose folders' names are of the window's time or of none; nothing in them was read",
    "anything": "every file there; which rows it holds was not looked at",
}


@dataclass(frozen=True)
class Sight:
    """What one look found.

    :param present: something of what is waited for is there.
    :param said: what is there or missing, in words without a full stop.
    :param fingerprint: differs once something changed; empty where nothing is there.
    :param newest: the last change the store tells of; None where it tells none.
    :param problem: why what is there cannot be what was waited for, should it stay as it is.
    """

    present: bool
    said: str
    fingerprint: str = ""
    newest: datetime | None = None
    file_count: int | None = None
    byte_count: int | None = None
    problem: str | None = None


class Settling:
    """How long something must still rest, over any number of looks. The attributes are what is remembered.

    :param settle: unchanged for this long is settled.
    :param seen: fingerprint of the look before; None: there was none.
    :param since: since when, by this machine's clock, it was seen unchanged.
    :param changed: whether it was seen to change, so that it rests since then at most.
    """

    def __init__(
        self, settle: timedelta, *, seen: str | None = None, since: datetime | None = None, changed: bool = False
    ) -> None:
        self.settle = settle
        self.seen = seen
        self.since = since
        self.changed = changed

    def rest(self, sight: Sight, now: datetime) -> timedelta:
        """Return how much longer it must rest after this look; nothing or less: it is settled."""
        if self.since is None or sight.fingerprint != self.seen:
            self.changed = self.seen is not None
            self.seen, self.since = sight.fingerprint, now
        watched = self.settle - (now - self.since)
        if self.changed or not tells_rest(sight, now):
            return watched
        return min(watched, self.settle - (now - (sight.newest or now)))


def tells_rest(sight: Sight, now: datetime) -> bool:
    """Say whether one look tells how long it has rested: the store knows times, and its clock is not ahead of ours."""
    return sight.newest is not None and sight.newest <= now


class Lookout:
    """Looks at the same data as often as it is asked; a footer is read again only when its file changed.

    :param window: None, or no ``data.event_time``: any data is waited for.
    :param select: how a file is told to be of the window. ``statistics``: by its footer, Parquet only; ``folders``: by
        the time in its folders' names (:func:`airflow_mlops.engines.file_times.folder_times`), a file without one
        always being of it; ``anything``: every file is. ``auto``: ``statistics`` for Parquet, else ``folders``.
    :param every: every piece of the window of this length must be touched by a file. None: one file is enough.
    :raises InvalidSpecError: the settings do not go together, or the source does not accept its options.
    """

    def __init__(
        self, data: DataSpec, window: Window | None = None, *, select: Selection = "auto", every: Length | None = None
    ) -> None:
        if select not in get_args(Selection):
            raise UnknownNameError.of("way to select files", select, get_args(Selection))
        self.data = data
        self.window = window if data.event_time is not None else None
        self.source = make_source(data.format, data.options)
        if select == "statistics" and data.format != "parquet":
            raise InvalidSpecError(
                f"select is 'statistics', which only Parquet files have, and data.format is {data.format!r}. Use "
                f"'folders', 'anything' or 'auto'."
            )
        if select == "auto":
            select = "statistics" if data.format == "parquet" else "folders"
        self.select: Selection = select if self.window is not None else "anything"
        self._pieces = self._cut(every)
        self._read: dict[ListedFile, FileTimes] = {}

    @property
    def checked(self) -> str:
        """Return what a look pays attention to, in a sentence."""
        if not isinstance(self.source, FileSource):
            return f"The fingerprint of the source {self.data.format!r}: of all its data, not of the window alone."
        return f"Names, sizes and times of {_CHECKED[self.select]}."

    def look(self, access: StorageAccess | None = None) -> Sight:
        """Look once.

        :raises DataReadError: the store refuses, or there is a table whose files must not be read one by one.
        :raises StorageUnavailableError: the store does not answer.
        """
        if not isinstance(self.source, FileSource):
            try:
                text = self.source.fingerprint(self.data, access)
            except DataReadError as exc:  # what a source of somebody else's raises says no more than that
                return Sight(False, f"Nothing is there yet. {_shortened(exc)}")
            return Sight(True, f"{self.data.uri} ({self.data.format}) is there", digest_of(text))
        try:
            listing = list_files(self.data, access)
        except DataMissingError as exc:
            return Sight(False, f"Nothing is there yet. {_shortened(exc)}")
        return self._judge(listing, self._times(listing, access))

    def _judge(self, listing: Listing, times: Sequence[FileTimes]) -> Sight:
        found = list(zip(listing.files, times, strict=True))
        chosen = [(file, time) for file, time in found if self.window is None or time.may_touch(self.window)]
        total = f"{len(found):,} {'file' if len(found) == 1 else 'files'} at {self.data.uri}"
        if not chosen:
            last = max((time.high for time in times if time.high is not None), default=None)
            known = f"; the latest time among them is {last:%Y-%m-%d %H:%M}" if last is not None else ""
            return Sight(False, f"There {_are(found)} {total}, none of the window {self.window}{known}")
        if (gap := self._first_gap([time for _, time in chosen])) is not None:
            return Sight(False, f"There {_are(found)} {total}, {len(chosen):,} of the window, none of its part {gap}")
        marks = [(file.path, file.size, *_changes(listing, file)) for file, _ in chosen]
        newest = [max((mark for mark in marked[2:] if mark is not None), default=None) for marked in marks]
        told = [mark for mark in newest if mark is not None]
        broken = [file.path for file, time in chosen if time.kind == "broken"]
        part = "" if self.window is None else f", {len(chosen):,} of the window {self.window}"
        return Sight(
            present=True,
            said=f"There {_are(found)} {total}{part}",
            fingerprint=digest_of(marks),
            newest=datetime.fromtimestamp(max(told) / 1e9, UTC) if len(told) == len(chosen) else None,
            file_count=len(chosen),
            byte_count=sum(file.size for file, _ in chosen),
            problem=None
            if not broken
            else f"What is below {listing.root} is no readable Parquet: {describe(broken, 3)}. It may be cut off or of "
            f"another format; deliver it again, or correct data.format.",
        )

    def _times(self, listing: Listing, access: StorageAccess | None) -> list[FileTimes]:
        if self.select == "anything":
            return [UNKNOWN] * len(listing.files)
        column = self.data.event_time or ""
        if self.select == "folders":
            return [folder_times(file.path, column) for file in listing.files]
        files, _ = filesystem(self.data.uri, access)

        def read(file: ListedFile) -> FileTimes:
            uri = listing.uri(file)
            with translated(uri, access):
                return footer_times(files, path_in_store(uri), file.path, column)

        new = [file for file in listing.files if file not in self._read]
        with ThreadPoolExecutor(1 if scheme_of(self.data.uri) == "local" else _REMOTE_READERS) as pool:
            fresh = dict(zip(new, pool.map(read, new), strict=True))
        self._read = {file: fresh.get(file) or self._read[file] for file in listing.files}
        return list(self._read.values())

    def _cut(self, every: Length | None) -> list[datetime]:
        """Return where the window's pieces begin, and where the last one ends."""
        if every is None or self.window is None:
            return []
        if self.select == "anything" or not isinstance(self.source, FileSource):
            raise InvalidSpecError(
                "every is given, but nothing that is looked at tells which times are there: drop it."
            )
        edges = [self.window.start]
        while edges[-1] < self.window.end:
            edges.append(min(every.after(edges[-1]), self.window.end))
            if every.count == 0 or len(edges) > MOST_PIECES:
                raise InvalidSpecError(
                    f"every is '{every}', which cuts the window {self.window} into more than {MOST_PIECES:,} pieces. "
                    f"Use a longer one, such as '1 day'."
                )
        return edges

    def _first_gap(self, times: Sequence[FileTimes]) -> Window | None:
        """Return the first piece of the window that no file touches. A file of unknown times touches none."""
        edges = self._pieces
        if not edges:
            return None
        steps = [0] * len(edges)
        for time in times:
            if time.low is not None and time.high is not None:
                first = max(bisect_right(edges, time.low) - 1, 0)
                steps[first] += 1
                steps[min(bisect_right(edges, time.high), len(edges) - 1)] -= 1
        for number, count in enumerate(accumulate(steps[:-1])):
            if count == 0:
                return Window(start=edges[number], end=edges[number + 1])
        return None


def _changes(listing: Listing, file: ListedFile) -> tuple[int | None, int | None]:
    """Return when a file was modified and, on a local disk, when its status changed, in nanoseconds."""
    if scheme_of(listing.root) != "local":
        return file.modified_ns, None
    try:
        return file.modified_ns, Path(listing.uri(file)).stat().st_ctime_ns
    except OSError:
        return None, None  # it went this very moment; the next look sees that


def _are(found: Sequence[object]) -> str:
    return "is" if len(found) == 1 else "are"


def _shortened(exc: Exception) -> str:
    text = " ".join(str(exc).split())
    return (text if len(text) <= 300 else f"{text[:299]}…").rstrip(".")
