"""What the live view shows of a study, made for a terminal of a given size; and a finished trial as one line.

Functions of a snapshot: nothing is read and nothing printed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.cli import workers_view
from tuner.cli.output import duration, show
from tuner.cli.snapshot import Snapshot
from tuner.cli.summary import done, expected_end
from tuner.states import StudyState, TrialState
from tuner.storage.trials import TrialRecord

_STYLES = {
    StudyState.RUNNING: "green",
    StudyState.PAUSED: "yellow",
    StudyState.STOPPING: "yellow",
    StudyState.CANCELLED: "red",
    StudyState.FINISHED: "cyan",
}
_HEADER_LINES = 3
_VALUE_WIDTH = 10  # of a column of knobs' values: "trial 1000", "5.623e-05"
_COLUMN_GAP = 2
_BAR_WIDTH = 40  # at most: longer ones are no easier to read
_MIN_BARS = 2
_MIN_WORKERS = 2  # lines


def render(snapshot: Snapshot, width: int, height: int) -> RenderableType:
    """The whole view; it fills no more than `width` columns, and leaves a line of `height` to the cursor."""
    knobs = len(snapshot.knobs) if snapshot.best or snapshot.running else 0
    bars = len(snapshot.running)
    workers = workers_view.lines(snapshot)
    # An empty line stands before each block, and the knobs have a heading.
    room = height - 1 - _HEADER_LINES - bool(snapshot.trouble) - 2 * bool(knobs) - bool(bars) - bool(workers)
    rows = min(len(workers), max(_MIN_WORKERS, room - knobs - bars))
    room -= rows
    bars = min(bars, max(_MIN_BARS, room - knobs))
    knobs = min(knobs, room - bars)
    parts: list[RenderableType] = [*_header(snapshot, width)]
    if knobs > 0:
        parts += [Text(), _knobs(snapshot, width, rows=knobs)]
    if bars > 0:
        parts += [Text(), _bars(snapshot, width, rows=bars)]
    if workers:
        parts += [Text(), *(_one_line(Text(show(text), style="dim")) for text in _first(workers, rows))]
    if snapshot.trouble:
        parts.append(_one_line(Text(show(snapshot.trouble), style="red")))
    return Group(*parts)


def line(trial: TrialRecord, epochs: int) -> str:
    """A finished trial: `trial 7  complete  0.9812  epoch 14/20  layers 3  …`, the epoch being the value's."""
    epoch = trial.best_epoch if trial.state is TrialState.COMPLETE and trial.best_epoch else trial.epochs
    words = [
        f"trial {trial.number}",
        str(trial.outcome or trial.state.lower()),
        show(trial.value),
        f"epoch {epoch}/{epochs}",
        *(f"{name} {show(value)}" for name, value in trial.params.items()),
    ]
    if trial.state is TrialState.FAIL and trial.reason:
        words.append(f"({show(trial.reason)})")
    return "  ".join(words)


def _header(snapshot: Snapshot, width: int) -> list[RenderableType]:
    counts = snapshot.counts
    first = Text.assemble(
        (snapshot.name, "bold"),
        "  ",
        (snapshot.state.value, _STYLES[snapshot.state]),
        f" ({snapshot.reason})" if snapshot.reason else "",
        f"  {done(snapshot)}: {len(snapshot.running)} running, {counts[TrialState.PRUNED]} pruned, ",
        (f"{counts[TrialState.FAIL]} failed", "red" if counts[TrialState.FAIL] else ""),
    )
    times = Text(f"{duration(snapshot.elapsed)} elapsed")
    if end := expected_end(snapshot):
        times.append(f", {end}")
    bar = Table.grid(padding=(0, _COLUMN_GAP, 0, 0))
    length = max(10, min(_BAR_WIDTH, width - len(times) - _COLUMN_GAP))
    bar.add_row(ProgressBar(total=1.0, completed=snapshot.progress, width=length), _one_line(times))
    return [_one_line(first), bar, _one_line(_best(snapshot))]


def _best(snapshot: Snapshot) -> Text:
    best = snapshot.best
    if best is None:
        waiting = snapshot.state is StudyState.RUNNING and not snapshot.running
        return Text(snapshot.awaited if waiting else f"no {snapshot.metric} yet", style="dim")
    return Text.assemble(
        f"best {snapshot.metric} ",
        (show(best.value), "bold green"),
        f"  trial {best.number}" + (f", epoch {best.best_epoch}" if best.best_epoch else ""),
    )


def _knobs(snapshot: Snapshot, width: int, rows: int) -> Table:
    """The knobs of the best trial beside those of the trials that run, as many as there is room for."""
    names = _first(snapshot.knobs, rows)
    name_width = min(max(map(len, names)), width // 2)
    columns: list[TrialRecord] = [snapshot.best] if snapshot.best else []
    columns += snapshot.running
    columns = columns[: max(1, (width - name_width) // (_VALUE_WIDTH + _COLUMN_GAP))]

    table = Table(box=None, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0), header_style="dim")
    table.add_column("", width=name_width, no_wrap=True)
    for trial in columns:
        is_best = trial is snapshot.best
        table.add_column(
            f"best: {trial.number}" if is_best else f"trial {trial.number}",
            style="green" if is_best else "",
            width=_VALUE_WIDTH,
            justify="right",
            no_wrap=True,
        )
    for name in names:
        values = (show(trial.params[name]) if name in trial.params else "" for trial in columns)
        table.add_row(Text(name), *map(Text, values))
    return table


def _bars(snapshot: Snapshot, width: int, rows: int) -> Table:
    """A bar for each running trial: how many of its epochs are trained, and the value of the last one."""
    shown = snapshot.running if len(snapshot.running) <= rows else snapshot.running[: rows - 1]
    table = Table.grid(padding=(0, _COLUMN_GAP, 0, 0))
    length = max(10, min(_BAR_WIDTH, width - 36))
    for trial in shown:
        table.add_row(
            Text(f"trial {trial.number}"),
            ProgressBar(total=snapshot.epochs, completed=trial.epochs, width=length),
            Text(f"{trial.epochs}/{snapshot.epochs}", justify="right"),
            _latest(trial),
        )
    if len(shown) < len(snapshot.running):
        table.add_row(Text(f"… {len(snapshot.running) - len(shown)} more", style="dim"))
    return table


def _latest(trial: TrialRecord) -> Text:
    if trial.latest is None and not trial.epochs:  # its data is prepared, or its first epoch is a long one
        return Text(f"first epoch, for {duration(trial.seconds)}", style="dim")
    return Text(show(trial.latest) if trial.latest is not None else "")


def _first(names: Sequence[str], rows: int) -> list[str]:
    """All names, or those that fit and how many more there are."""
    if len(names) <= rows:
        return list(names)
    return [*names[: rows - 1], f"… {len(names) - rows + 1} more"]


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
