"""When schedules are due and what is kept: languages, arithmetic beside the releases' own code, and two years of it."""

import ast
import datetime
import json
import logging
import random
import re
import typing
from collections import OrderedDict
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.releases import SUITES, ReleaseUnavailable, get_release
from vdisk.model.errors import InvalidArgument, OutOfRange
from vdisk.model.schedules import (
    EVERY,
    MAX_FAILURES,
    Failure,
    Made,
    Run,
    Schedule,
    made_from_text,
    next_event,
    run_from_text,
    schedule_from_text,
    set_back,
    wanted,
)
from vdisk.model.timing import (
    Retention,
    format_interval,
    format_start_time,
    latest,
    parse_interval,
    parse_retention,
    parse_start_time,
    upcoming,
)

HOUR, DAY = 3600.0, 86400.0
NOW = 1700000000.0
MINUTES = st.integers(1, 5000)
STARTS = st.none() | st.integers(0, 1439)
TIMES = st.integers(0, 4 * 10**9).map(float)


# -- languages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "minutes", "shown"),
    [("30m", 30, "30m"), ("90", 90, "90m"), ("1h", 60, "1h"), ("120m", 120, "2h"), ("48h", 2880, "2d")],
)
def test_intervals_are_those_of_rbd(text, minutes, shown):
    assert parse_interval(text) == minutes
    assert format_interval(minutes) == shown


@pytest.mark.parametrize(
    "text", ["", "0", "0h", "h", "1w", "1.5h", "-1h", "1 h", "1h30m", " 1h", "1H", "\u0661h", None, 60]
)
def test_other_intervals_are_refused(text):
    with pytest.raises(InvalidArgument):
        parse_interval(text)


def test_an_interval_has_an_end():
    with pytest.raises(OutOfRange):
        parse_interval("999999d")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("03:00", "03:00:00"),
        ("03:00:59", "03:00:00"),
        ("03:00Z", "03:00:00"),
        ("03:00+02:00", "01:00:00"),
        ("00:30 +0200", "22:30:00"),
        ("23:30-01:00", "00:30:00"),
        ("2026-11-24T14:15", "14:15:00"),
        ("2026-11-24 14:15:00+00:00", "14:15:00"),
    ],
)
def test_start_times_are_iso_8601(text, shown):
    assert format_start_time(parse_start_time(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "3", "3:00", "24:00", "03:60", "03:00+99:00", "noon", "2026-02-30T01:00", None, 3]
)
def test_other_start_times_are_refused(text):
    with pytest.raises(InvalidArgument):
        parse_start_time(text)


@pytest.mark.parametrize(
    ("text", "shown"), [("24h7d4w3m", "24h7d4w3m"), ("3M4w", "4w3m"), ("1y10n", "10n1y"), ("007d", "7d")]
)
def test_retention_is_that_of_snap_schedule(text, shown):
    assert str(parse_retention(text)) == shown


@pytest.mark.parametrize("text", ["", "h", "24", "24x", "24h 7d", "24h24h", "3m3M", "0h", "24h0d", "-1h", "1.5h", None])
def test_other_retention_is_refused(text):
    with pytest.raises(InvalidArgument):
        parse_retention(text)


# -- arithmetic ------------------------------------------------------------------------------------------------------


@given(MINUTES, STARTS, TIMES)
def test_due_times_lie_on_the_grid_of_the_start_time(minutes, start, now):
    due = latest(minutes, start, now)
    assert due <= now < upcoming(minutes, start, now)
    assert upcoming(minutes, start, now) - due == minutes * 60
    assert (due - (start or 0) * 60) % (minutes * 60) == 0


def classes(release, path, *names):
    """Take classes or functions out of a file of a release, without what the file needs besides."""
    try:
        text = get_release(release).path(f"/usr/share/ceph/mgr/{path}").read_text()
    except (ReleaseUnavailable, FileNotFoundError) as error:
        pytest.skip(str(error))
    plain = "import datetime" in text.splitlines()  # else its classes by name
    space = {
        **{name: getattr(typing, name) for name in typing.__all__},
        "datetime": datetime if plain else datetime.datetime,
        "timedelta": datetime.timedelta,
        "time": datetime.time,
        "re": re,
        "OrderedDict": OrderedDict,
        "log": logging.getLogger("vdisk.test"),
        "cephfs": SimpleNamespace(DirEntry=object),
        "SNAPSHOT_TS_FORMAT": "%Y-%m-%d-%H_%M_%S",
        "MAX_SNAPS_PER_PATH": 50,
    }
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name in names:
            exec(compile(ast.Module([node], []), path, "exec"), space)
    return [space[name] for name in names]


@pytest.mark.parametrize("release", SUITES)
def test_due_times_are_those_that_rbd_computes(release):
    interval, start_time, schedule = classes(release, "rbd_support/schedule.py", "Interval", "StartTime", "Schedule")

    @settings(max_examples=100, deadline=None, database=None)
    @given(MINUTES, STARTS, TIMES.filter(lambda now: now > DAY))
    def check(minutes, start, now):
        theirs = schedule("x")
        theirs.add(interval(minutes), None if start is None else start_time(start // 60, start % 60, None))
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(tzinfo=None)
        due = theirs.next_run(moment)
        text = due if isinstance(due, str) else due.strftime("%Y-%m-%d %H:%M:%S")
        ours = datetime.datetime.fromtimestamp(upcoming(minutes, start, now), datetime.UTC)
        assert ours.strftime("%Y-%m-%d %H:%M:00") == text

    check()


@pytest.mark.parametrize("release", SUITES)
def test_what_is_kept_is_what_snap_schedule_keeps(release):
    (prune,) = classes(release, "snap_schedule/fs/schedule_client.py", "get_prune_set")
    limit = prune.__code__.co_argcount > 2
    # Minutes and months have changed their letters.
    consts = str(prune.__code__.co_consts)
    month = "M" if "'M', '%Y-%m'" in consts or "('M', '%Y-%m')" in consts else "m"

    @settings(max_examples=100, deadline=None, database=None)
    @given(
        st.lists(st.integers(0, 60000), min_size=1, max_size=150, unique=True),
        st.dictionaries(st.sampled_from("nhdwmy"), st.integers(1, 8), min_size=1),
    )
    def check(minutes, counts):
        moments = [NOW + 60.0 * 37 * minute for minute in minutes]
        candidates = {
            (Entry(f"scheduled-{at.strftime('%Y-%m-%d-%H_%M_%S')}"), at)
            for at in (datetime.datetime.fromtimestamp(moment, datetime.UTC) for moment in moments)
        }
        theirs = {month if period == "m" else period: count for period, count in counts.items()}
        pruned = prune(candidates, theirs, *([1000] if limit else []))
        kept = parse_retention("".join(f"{count}{period}" for period, count in counts.items())).keeps(moments)
        assert {found[1].timestamp() for found in pruned} == set(moments) - kept

    check()


class Entry(typing.NamedTuple):
    """A directory entry that a set can hold, as that of cephfs."""

    d_name: str


KEEPS = st.lists(
    st.tuples(st.sampled_from("nhdwmy"), st.integers(1, 30)), min_size=1, max_size=6, unique_by=lambda pair: pair[0]
).map(lambda pairs: parse_retention("".join(f"{count}{period}" for period, count in pairs)))
MOMENTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=100).map(
    lambda found: [NOW + 600.0 * at for at in found]
)


@given(KEEPS, MOMENTS)
def test_the_latest_always_stays_and_no_more_than_asked_for(keep, moments):
    kept = keep.keeps(moments)
    assert kept <= set(moments)
    assert max(moments) in kept
    assert len(kept) <= sum(count for _, count in keep.counts)
    assert keep.keeps(kept) <= kept


@given(KEEPS, MOMENTS)
def test_keeping_more_of_a_period_never_keeps_less_in_all(keep, moments):
    more = Retention(tuple((period, count + 1) for period, count in keep.counts))
    assert len(more.keeps(moments)) >= len(keep.keeps(moments))


def test_without_retention_everything_stays():
    assert Retention().keeps([1.0, 2.0]) == {1.0, 2.0}


# -- runs ------------------------------------------------------------------------------------------------------------


def schedule(minutes=60, start=None, keep="", created=NOW, volume=EVERY):
    kept = parse_retention(keep) if keep else Retention()
    return Schedule("0123456789ab", volume, "pvc-1", minutes, start, kept, "default", created)


@given(MINUTES, STARTS, TIMES, st.floats(0, 10**8), st.floats(0, 10**8))
def test_what_was_missed_is_taken_once(minutes, start, created, pause, later):
    found = schedule(minutes, start, created=created)
    now = created + pause
    run = wanted(found, None, now)
    if latest(minutes, start, now) <= created:
        assert run is None
        return
    assert run.due == latest(minutes, start, now)
    ended = run.ended(now)
    assert wanted(found, ended, now) is None
    assert now < next_event(found, ended, now) <= now + minutes * 60
    again = wanted(found, ended, now + later)
    assert again is None or again.due == latest(minutes, start, now + later) > run.due


@given(MINUTES, STARTS, TIMES, st.floats(1, 10**9))
def test_a_clock_that_was_years_ahead_does_not_stop_a_schedule(minutes, start, now, ahead):
    found = schedule(minutes, start, created=0.0)
    run = Run(now + ahead, now + ahead, now + ahead)
    back = set_back(found, run, now)
    assert back.due == latest(minutes, start, now)
    assert set_back(found, back, now) is None
    assert wanted(found, back, now) is None
    assert wanted(found, back, upcoming(minutes, start, now)).due == upcoming(minutes, start, now)
    assert set_back(schedule(created=now + ahead), None, now).due <= now


def failures(count):
    run = Run(NOW, NOW)
    for number in range(count):
        run = run.with_failure(Failure(f"uuid-{number}", f"pvc-{number}", "no_space: full"))
    return run.ended(NOW)


def test_failures_are_tried_again_ever_less_often_until_the_next_run():
    found, run, pauses = schedule(created=NOW - DAY), failures(2), []
    for _ in range(10):
        pauses.append(run.next_try - run.finished_at)
        assert wanted(found, run, min(run.next_try - 1, NOW + 60)) is None
        run = replace_failed(run)
    assert pauses == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0, 3600.0, 3600.0]
    newer = wanted(found, run, NOW + 2 * HOUR)
    assert (newer.failed, newer.attempts, newer.due) == (0, 0, latest(60, None, NOW + 2 * HOUR))


def replace_failed(run):
    return run.again(run.next_try).ended(run.next_try)


def test_few_failures_are_tried_by_themselves_and_many_with_all():
    few, many = failures(MAX_FAILURES), failures(MAX_FAILURES + 1)
    assert few.again(NOW).failures == few.failures
    again = many.again(NOW)
    assert (again.failures, again.failed, again.finished_at, again.after) == ((), 0, 0.0, "")


def test_records_survive_being_written():
    found = schedule(90, 75, "24h3m", NOW + 0.5, "some-uuid")
    assert schedule_from_text(found.to_text()) == found
    run = failures(3)
    assert run_from_text(run.to_text()) == run
    made = Made({NOW: "a", NOW + 60: "b"})
    assert made_from_text(made.to_text()) == made
    assert made_from_text(None) == Made()


JUNK = ["", "null", "[]", "{}", '{"v": 2}', '{"v": 1}', '{"v": 1, "snaps": 3, "due": "x", "keep": "?"}', "\x00"]


@pytest.mark.parametrize("text", JUNK)
@pytest.mark.parametrize("decode", [schedule_from_text, run_from_text, made_from_text])
def test_what_is_damaged_or_newer_is_not_guessed_at(decode, text):
    with pytest.raises(ValueError, match=r"."):
        decode(text)


@pytest.mark.parametrize("field", ["minutes", "keep", "start", "id", "created_at"])
def test_a_schedule_with_a_senseless_field_is_not_guessed_at(field):
    data = json.loads(schedule().to_text())
    data[field] = {"minutes": 0, "keep": "often", "start": "x", "id": "", "created_at": None}[field]
    with pytest.raises(ValueError, match=r"field"):
        schedule_from_text(json.dumps(data))


# -- two years -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("minutes", "start", "keep", "least"),
    [(60, None, "24h7d4w3m", 36), (60, None, "2n6h6d3w12m1y", 28), (1440, 180, "7d4w12m", 22), (360, 15, "5n", 5)],
)
def test_two_years_with_stops_of_any_length(minutes, start, keep, least, seed):
    dice = random.Random(seed)
    found, run, held, taken, missed = schedule(minutes, start, keep), None, set(), [], 0
    now, end = NOW, NOW + 730 * DAY
    while now < end:
        stop = dice.random() < 0.01
        now += dice.uniform(0, 3 * DAY) if stop else max(1.0, next_event(found, run, now) - now)
        wish = wanted(found, run, now)
        if wish is None:
            continue
        missed += int((wish.due - (taken[-1] if taken else found.created_at)) // (minutes * 60)) - 1 if taken else 0
        taken.append(wish.due)
        held = found.keep.keeps(held | {wish.due})
        run = wish.ended(now)
        assert wish.due in held
        assert len(held) <= sum(count for _, count in found.keep.counts)
        assert wanted(found, run, now) is None
    assert taken == sorted(set(taken))
    assert run.total == 0  # counting is the scheduler's
    # Pruning step by step loses nothing that pruning all at once would keep of the latest periods.
    assert len(held) >= least
    assert held <= set(taken)
    first = found.keep.counts[0]
    alone = Retention((first,)).keeps(taken)
    assert alone <= held
    assert len(taken) + missed >= 730 * 1440 // minutes - 2 * len(taken)
    days = {datetime.datetime.fromtimestamp(at, datetime.UTC).date() for at in held}
    if "m" in dict(found.keep.counts):
        assert len({(day.year, day.month) for day in days}) >= dict(found.keep.counts)["m"]
