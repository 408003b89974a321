"""What every group of settings is, and the ranges of their numbers. Nothing here imports torch."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A checked, immutable group of settings. Every number is finite: infinity and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


# Upper bounds catch typing errors: no tensor of such a model can be made anywhere.
Size = Annotated[int, Field(ge=1, le=65_536)]
# Numbers of tokens or rounds that are computed one after the other, or with a product of each with each.
Chunk = Annotated[int, Field(ge=1, le=4096)]
Rounds = Annotated[int, Field(ge=1, le=64)]
