"""What requests and answers look like; FastAPI makes the OpenAPI document of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from entailor.errors import near_miss
from entailor.serving.registry import NAME


def whole_characters(text: str) -> str:
    """Refuse half a character, which JSON can write and UTF-8 cannot."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("an unpaired surrogate was found, expected whole characters")
    return text


def whole_number(value: object) -> object:
    """Return 3 for 3.0, which is an integer to JSON Schema and not to Python."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = AfterValidator(whole_characters)  # comes behind limits, or they would be missing in the document
Text = Annotated[str, Whole, Field(description="One text.")]
Pair = Annotated[list[Text], Field(min_length=2, max_length=2, description="Two texts, e.g. premise and hypothesis.")]


class Asked(BaseModel):
    """A request. Of what does not fit the first is named: a body of 4 MB has room for a million mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: object) -> object:
        unknown = (
            next((key for key in values if key not in cls.model_fields), None) if isinstance(values, dict) else None
        )
        if unknown is not None:
            told = {"key": repr(unknown[:40]), "known": ", ".join(cls.model_fields)}
            told["hint"] = near_miss(unknown, cls.model_fields)
            raise PydanticCustomError("extra_forbidden", "{key} is no key, expected some of {known}.{hint}", told)
        return values


class ClassifyRequest(Asked):
    """Texts or pairs for one classifier."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "reviews", "inputs": ["A fine film."], "min_confidence": 0.6}]},
    )

    model: Annotated[str, Field(max_length=100, description="Name of a classifier, see GET /v1/models."), Whole]
    inputs: Annotated[
        list[Text | Pair],
        Field(min_length=1, description="Texts, or pairs where the classifier was trained on pairs."),
        FailFast(),
    ]
    top_k: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(whole_number)] | None,
        Field(description="Give only so many labels. Default: all of them."),
    ] = None
    calibrated: Annotated[bool, Field(description="At the temperature that was fitted on validation.")] = False
    min_confidence: Annotated[
        float, Field(ge=0, le=1, description="Below this probability of the most probable label there is no label.")
    ] = 0.0


class Score(BaseModel):
    """One label and its probability."""

    label: str
    probability: Annotated[float, Field(ge=0, le=1)]


class Result(BaseModel):
    """The answer to one input."""

    label: Annotated[str | None, Field(description="Null where the classifier abstains.")]
    abstained: bool
    scores: Annotated[list[Score], Field(description="Most probable first.")]


class ClassifyResponse(BaseModel):
    """One result an input, in order."""

    model: str
    calibrated: bool
    min_confidence: float
    results: list[Result]


class ModelCard(BaseModel):
    """A classifier that is served."""

    name: str
    candidate: Annotated[str, Field(description="As it was called in the comparison.")]
    base_model: Annotated[str | None, Field(description="Null where the folder holds all there is.")]
    labels: list[str]
    is_pair: Annotated[bool, Field(description="Whether an input is two texts.")]
    can_calibrate: Annotated[bool, Field(description="Whether a temperature was fitted.")]
    shares_base: Annotated[bool, Field(description="Whether it shares one copy of its base model with others.")]


class ModelList(BaseModel):
    """The classifiers that are served."""

    models: list[ModelCard]


class LoadRequest(Asked):
    """A classifier to load."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    path: Annotated[str, Field(max_length=4096, description="Below the server's --models-folder."), Whole]


class Status(BaseModel):
    """Whether the server works."""

    status: str


class Problem(BaseModel):
    """What went wrong, and what to do."""

    type: Annotated[str, Field(description="One word for programs.")]
    message: str


class ErrorResponse(BaseModel):
    """The body of every answer that is no success."""

    error: Problem
