"""Optuna's storage interface over Optuna's own tables, at the fewest messages to the server.

changes       what is to be written of a trial
statements    the SQL, each text one message to the server
cache         the trials of a study, held in memory and brought up to date
connected     the connection: shared by threads, made anew in forked processes, patient when lost
studies       studies and their attributes
reading       trials as they are read
making        trials as they are made and started
storage       PostgresStorage, which Optuna talks to: trials as they are written
"""

from tuner.storage.postgres_storage.storage import PostgresStorage

__all__ = ["PostgresStorage"]
