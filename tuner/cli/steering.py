"""`tuner study pause`, `resume`, `stop` and `cancel`: one command for each state that a person may ask for."""

from __future__ import annotations

from dataclasses import dataclass

import click

from tuner.cli.context import Context, pass_context


@dataclass(frozen=True, kw_only=True)
class Order:
    """A command that asks for another state of a study."""

    name: str
    state: str
    short_help: str
    help: str


ORDERS = (
    Order(
        name="pause",
        state="paused",
        short_help="Give running trials back; workers wait.",
        help="Let running epochs of the study NAME finish and give its trials back; its workers wait.",
    ),
    Order(
        name="resume",
        state="running",
        short_help="Go on with a study that was halted.",
        help="Go on with a study that was paused, stopped or cancelled.",
    ),
    Order(
        name="stop",
        state="stopping",
        short_help="Begin no more trials.",
        help="Begin no more trials of the study NAME; those that run train to their end.",
    ),
    Order(
        name="cancel",
        state="cancelled",
        short_help="End a study now.",
        help="End the study NAME now; trials that run are ended as cancelled.",
    ),
)

# By the state that was reached: one that is told to stop while nothing runs has finished.
EFFECTS = {
    "running": "workers may take trials",
    "paused": "trials that run are given back after their epoch",
    "stopping": "trials that run train to their end, no others begin",
    "cancelled": "trials that run are ended now",
    "finished": "no trial runs, and none will begin",
}


def command_for(order: Order) -> click.Command:
    """The command `tuner study pause` and the like."""

    @click.command(order.name, short_help=order.short_help, help=order.help)
    @click.argument("name")
    @pass_context
    def steer(context: Context, name: str) -> None:
        with context.connect() as db:
            from tuner.cli.snapshot import SnapshotReader
            from tuner.cli.summary import next_commands
            from tuner.states import StudyState
            from tuner.storage.steering import set_state

            study = set_state(db, name, StudyState(order.state))
            following = next_commands(context, SnapshotReader(db, name).look())
        context.note(f"study {name}: {study.state}; {EFFECTS[study.state]}; next: {next(iter(following.values()))}")

    return steer
