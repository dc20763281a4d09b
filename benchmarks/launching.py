"""`tuner launch` as somebody types it, in a TUNER_HOME of its own with an embedded PostgreSQL, fsync on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from processes import output, start

from tuner.errors import DatabaseError
from tuner.settings import read_settings
from tuner.storage.connection import Database
from tuner.storage.server import EmbeddedServer
from tuner.storage.studies import get_study
from tuner.storage.trials import TrialRecord, list_trials

POLL_SECONDS = 0.02

_REPORTED = """
SELECT 1 FROM public.trial_intermediate_values JOIN public.trials USING (trial_id) JOIN public.studies USING (study_id)
WHERE study_name = %(study)s LIMIT 1"""


class Home:
    """A TUNER_HOME, and the server in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = EmbeddedServer(folder / "postgres")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNER_")}
        self._environment["TUNER_HOME"] = str(folder)

    def start(
        self, file: Path, sets: Sequence[str], *, name: str, options: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        words = [word for override in sets for word in ("--set", override)]
        command = [sys.executable, "-m", "tuner", "launch", str(file), "--name", name, *words, *options]
        return start([*command, "--format", "json"], self._environment)

    def launch(self, file: Path, sets: Sequence[str], *, name: str, options: Sequence[str] = ()) -> float:
        """Seconds of the whole command."""
        began = time.perf_counter()
        output(self.start(file, sets, name=name, options=options))
        return time.perf_counter() - began

    def first_epoch(self, file: Path, sets: Sequence[str], *, name: str, options: Sequence[str] = ()) -> float:
        """Seconds from the command to its first epoch in the database; the command is waited for."""
        began = time.perf_counter()
        process = self.start(file, sets, name=name, options=options)
        with ExitStack() as stack:
            db = None
            while not (db and reported(db, name)):
                if process.poll() is not None:
                    raise SystemExit(f"{name}: it ended before an epoch was seen\n{output(process)}")
                time.sleep(POLL_SECONDS)
                if db is None and (url := self.server.status().url):
                    db = stack.enter_context(Database(url))
        seconds = time.perf_counter() - began
        output(process)
        return seconds

    def trials(self, study: str) -> list[TrialRecord]:
        with Database(self.server.status().url or "") as db:
            return list_trials(db, get_study(db, study))


def reported(db: Database, study: str) -> bool:
    try:
        return bool(db.execute(_REPORTED, study=study))
    except DatabaseError:  # the tables are being made
        return False


@contextmanager
def fresh_home(*, with_data: bool = True) -> Iterator[Home]:
    """Without a database; with the data sets that were prepared before."""
    with tempfile.TemporaryDirectory(prefix="tuner-benchmark-") as folder:
        path = Path(folder)
        path.chmod(0o711)  # root's PostgreSQL runs as another user
        if with_data:
            (path / "data").symlink_to(read_settings().cache)
        home = Home(path)
        try:
            yield home
        finally:
            home.server.stop()
