"""`tuner study evaluate`: opens a study's test part, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import emit_one, format_option
from tuner.errors import InvalidInput

if TYPE_CHECKING:
    from tuner.storage.connection import Database
    from tuner.storage.studies import StudyRecord
    from tuner.storage.trials import TrialRecord


@click.command("evaluate", short_help="Score the best trial on the test part.")
@click.argument("name")
@format_option
@pass_context
def command(context: Context, name: str, format: str) -> None:
    """Score the best trial of the study NAME on the held-out test part, once.

    The opening is recorded. Asked again, this prints the recorded scores and opens nothing: a test part that is looked
    at repeatedly becomes a second validation part.
    """
    with context.connect() as db:
        from tuner.storage.evaluations import list_evaluations
        from tuner.storage.studies import get_study
        from tuner.storage.trials import find_trial
        from tuner.training.data import info, prepare

        study = get_study(db, name)
        best = find_trial(db, study, "best")
        data_folder = prepare(study.spec.data, context.settings)
        if not list_evaluations(db, study.study_id):
            _open_test_part(context, db, study, best)
        first = list_evaluations(db, study.study_id)[0]
        trial = find_trial(db, study, first.number)
    if trial.number != best.number:
        context.note(f"the test part was opened for trial {trial.number}; trial {best.number} is the best by now")
    emit_one(
        {
            "study": name,
            "trial": trial.number,
            "validation": {study.spec.objective.metric: trial.value},
            "test": first.scores,
            "baselines": info(data_folder).baselines,
            "opened_at": first.opened_at,
        },
        format,
    )


def _open_test_part(context: Context, db: Database, study: StudyRecord, best: TrialRecord) -> None:
    """Scores and records. Raises InvalidInput while the study may still choose another trial."""
    from tuner.cli.trial import checkpoint_of
    from tuner.storage.evaluations import log_evaluation
    from tuner.training.data import location
    from tuner.training.evaluation import score

    if not study.state.ended:
        raise InvalidInput(
            f"study {study.name!r} is {study.state}: its test part is opened once, when the search has ended; to end "
            f"it: {context.command_line('study', 'stop', study.name)}"
        )
    spec = study.spec
    kept = checkpoint_of(context, best)
    scores = score(spec.space.resolve(best.params), kept, location(spec.data, context.settings), "test")
    log_evaluation(db, study.study_id, best.number, scores)
