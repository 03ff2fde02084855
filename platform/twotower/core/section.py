"""Base of every config section, and number types that several sections use."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]


class Section(BaseModel):
    """Base of every section: frozen, closed, keys documented by the string under each field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def only_for(self, name: str, key: str, *values: str) -> None:
        """Refuse a key that is set where nothing reads it.

        Args:
            name: the key; at its default it may stand anywhere.
            key: another, which says whether it is read.
            values: of that one, where it is.

        Raises:
            ValueError: the key is set and not read.
        """
        own, other = getattr(self, name), getattr(self, key)
        if other in values or own == type(self).model_fields[name].default:
            return
        told = f"{own:g}" if isinstance(own, float) else own
        raise ValueError(
            f"{name}: {told} is for `{key}: {' or '.join(values)}`, not {other}; set that, "
            "or leave it out"
        )
