"""`tuner schema`: the study file's JSON schema, for editors."""

from __future__ import annotations

import json

import click


@click.command("schema")
def command() -> None:
    """Print the study file's JSON schema."""
    from tuner.spec.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, allow_nan=False))
