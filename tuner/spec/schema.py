"""The JSON schema of a study file, for editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import CoreSchema

from tuner.spec.study_file import StudyFile


class _Schema(GenerateJsonSchema):
    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        generated = {"$schema": self.schema_dialect, **super().generate(schema, mode)}
        for record in generated["$defs"].values():
            for name, key in record["properties"].items():
                if "const" in key:  # it tells one record from another: a file cannot do without
                    del key["default"]
                    record["required"] = [name, *record.get("required", [])]
        return generated

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # "Learning Rate" says no more than its key


def json_schema() -> dict[str, Any]:
    """What `tuner schema` prints."""
    return StudyFile.model_json_schema(schema_generator=_Schema)
