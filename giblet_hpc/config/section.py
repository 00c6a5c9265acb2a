"""What every part of the config is made of: closed sections, and numbers with bounds."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0.0)]


def whole_trs(seconds: float, tr: float) -> int:
    """Return how many TRs of ``tr`` seconds cover a time."""
    return math.ceil(seconds / tr - 1e-6)


class Section(BaseModel):
    """A part of the config: unknown fields are refused, values cannot be changed."""

    # Checks are built when something is checked: most commands only look.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    after_preprocess: ClassVar[frozenset[str]] = frozenset()
    """Fields that preprocess does not read: runs that differ in them alone share its work."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the fields by their docstrings, which pydantic itself would read at import."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, text in _field_docstrings(cls).items():
            if name in properties:
                properties[name]["description"] = text
        return schema


def _field_docstrings(section: type[Section]) -> dict[str, str]:
    """Return the string below each field, of this section or of one that it extends."""
    found: dict[str, str] = {}
    for base in section.__bases__:
        if issubclass(base, Section) and base is not Section:
            found |= _field_docstrings(base)
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(below.value, ast.Constant)
            found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found
