"""The schema of what a page sends: whatever does not fit it is refused, and no more is kept than a benchmark needs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# A page sends what it has four times a second; one that sends more is none of ours.
MOST_BYTES = 1 << 20
MOST_EVENTS = 250
MOST_SAMPLES = 2000

Text = Annotated[str, Field(max_length=500)]
Word = Annotated[str, Field(max_length=120)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Moment = Annotated[float, Field(ge=0, le=1e11)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]


class Sent(BaseModel):
    """What every part has in common: no unknown keys, no other types, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Facts(Sent):
    """What the browser says about itself and the device."""

    browser: Word
    system: Word
    architecture: Word
    model: Word
    cores: Annotated[int, Field(ge=1, le=4096)]
    memory_gb: Annotated[float, Field(gt=0, le=65_536)] | None
    gpu: Word
    isolated: bool
    user_agent: Text


class Hello(Sent):
    """The page begins, at this moment of its clock."""

    event: Literal["hello"]
    time_s: Moment
    facts: Facts


class Conditions(Sent):
    """How the device is doing."""

    event: Literal["conditions"]
    time_s: Moment
    battery_percent: Annotated[float, Field(ge=0, le=100)] | None
    on_battery: bool | None


class OfSubject(Sent):
    """One file on one accelerator with a number of threads."""

    subject: Text
    accelerator: Literal["wasm", "webgpu", "webnn"]
    threads: Annotated[int, Field(ge=1, le=256)]

    def key(self) -> tuple[str, str, int]:
        """Return what it is about."""
        return (self.subject, self.accelerator, self.threads)


class Opened(OfSubject):
    """A file was opened twice and run once; ``accelerator`` in ``ran`` is what computes."""

    event: Literal["opened"]
    runtime: Word
    ran: Literal["wasm", "webgpu", "webnn"]
    notes: Annotated[list[Text], Field(max_length=4)]
    process_s: Seconds
    cold_load_s: Seconds
    first_inference_s: Seconds
    warm_load_s: Seconds


class Checked(OfSubject):
    """How many pixels have the host's class, on the host's tensor and on the page's own; how far these are apart."""

    event: Literal["checked"]
    agreement: Share
    own_agreement: Share
    levels: Annotated[float, Field(ge=0, le=1e9)]


class Warm(OfSubject):
    """The warm-up ended; a sample is the mean of ``repeats`` inferences, the clock steps by ``granularity_s``."""

    event: Literal["warm"]
    runs: Count
    seconds: Seconds
    stable: bool
    repeats: Annotated[int, Field(ge=1, le=1_000_000)]
    granularity_s: Seconds


class Samples(OfSubject):
    """One block of samples and when each began."""

    event: Literal["samples"]
    starts_s: Annotated[list[Moment], Field(min_length=1, max_length=MOST_SAMPLES)]
    samples_s: Annotated[list[Annotated[float, Field(gt=0, le=3600)]], Field(min_length=1, max_length=MOST_SAMPLES)]

    @model_validator(mode="after")
    def _as_many(self) -> Samples:
        if len(self.starts_s) != len(self.samples_s):
            raise ValueError("starts_s and samples_s differ in length")
        return self


class Stopped(OfSubject):
    """The page has enough of a file."""

    event: Literal["stopped"]


class Problem(OfSubject):
    """Something did not work, in one phase."""

    event: Literal["problem"]
    phase: Literal["opening", "check", "steady"]
    message: Text


class End(Sent):
    """The page is done, or was ended."""

    event: Literal["end"]
    complete: bool
    ended: Text


Event = Annotated[
    Hello | Conditions | Opened | Checked | Warm | Samples | Stopped | Problem | End, Field(discriminator="event")
]


class Batch(Sent):
    """One request."""

    events: Annotated[list[Event], Field(min_length=1, max_length=MOST_EVENTS)]


class Token(Sent):
    """What a device shows to be let in."""

    token: Annotated[str, Field(min_length=1, max_length=200)]
