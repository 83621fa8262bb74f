"""Who is asked again, who is asked instead, who is left alone, and how many may ask at once."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace

import pytest
import stamina
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loremesh_agent.adapters.memory import Pause, ScriptedProvider
from loremesh_agent.domain.breakers import Breaker
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.rates import Bucket
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.engine.lanes import Lanes, Traffic
from loremesh_agent.errors import (
    AttachmentUnsupported,
    ModelOutputInvalid,
    ProviderError,
    ProviderNotConfigured,
    ProviderRateLimited,
    ProviderRefused,
    ProviderStreamCut,
    ProviderTimeout,
    ProviderUnavailable,
)
from loremesh_agent.ports import ModelEvent, ModelFinish, ModelProgress, ModelRequest, ModelSwitched, ModelText

pytestmark = pytest.mark.unit

PATIENCE = Patience(first_token=30, idle=30, total=90, attempts=3)
REQUEST = ModelRequest(model="openai/big", messages=(PromptMessage("user", "?"),), max_output_tokens=10)
OTHERS = replace(REQUEST, fallback_models=("cohere/other", "local/small"))
NAMED = {"provider": "openai", "model": "big"}
FINISH = ModelFinish(reason=FinishReason.STOP)
ANSWER = [ModelText("a"), FINISH]
DOWN = ProviderUnavailable("down", **NAMED)
REFUSED = ProviderRefused("no", **NAMED)

Script = list[ModelEvent | Pause | Exception]


class ByModel:
    """Answers as each model's script says, with progress where it says None."""

    name = "openai"

    def __init__(self, **scripts: Script) -> None:
        self._sources = {name: ScriptedProvider(script) for name, script in scripts.items()}
        self.asked: list[str] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        self.asked.append(request.model)
        async for event in self._sources[request.model.split("/")[1]].stream(request):
            yield event


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=PATIENCE.attempts, cap=True):
        yield


def patient(source: object, *, patience: Patience = PATIENCE, traffic: Traffic | None = None) -> PatientProvider:
    return PatientProvider(provider=source, patience=patience, lanes=Lanes(traffic))  # type: ignore[arg-type]


async def events_of(provider: PatientProvider, request: ModelRequest = REQUEST) -> list[ModelEvent]:
    return [event async for event in provider.stream(request)]


async def failure_of(provider: PatientProvider, request: ModelRequest = REQUEST) -> ProviderError:
    with pytest.raises(ProviderError) as failed:
        await events_of(provider, request)
    return failed.value


@pytest.mark.parametrize(
    ("failure", "tries"),
    [
        (DOWN, 3),
        (ProviderRateLimited("slow", retry_after=600, **NAMED), 1),
        (REFUSED, 1),
        (ProviderStreamCut("cut", **NAMED), 3),
        (ModelOutputInvalid("no JSON", **NAMED), 3),
        (ProviderTimeout("slow", limit="connect", **NAMED), 3),
        (ProviderTimeout("slow", limit="first_token", **NAMED), 1),
        (ProviderNotConfigured("openai", variable="OPENAI_API_KEY"), 1),
    ],
)
async def test_another_model_takes_over_while_nothing_is_there(failure: ProviderError, tries: int) -> None:
    models = ByModel(big=[failure], other=[failure], small=list(ANSWER))
    assert await events_of(patient(models), OTHERS) == [
        ModelSwitched(before="openai/big", after="cohere/other", reason=failure.reason),
        ModelSwitched(before="cohere/other", after="local/small", reason=failure.reason),
        *ANSWER,
    ]
    assert models.asked == [*["openai/big"] * tries, *["cohere/other"] * tries, "local/small"]


async def test_the_last_failure_is_told_where_nobody_answers() -> None:
    models = ByModel(big=[DOWN], other=[DOWN], small=[ProviderRefused("no", provider="local", model="small")])
    error = await failure_of(patient(models), OTHERS)
    assert (error.reason, error.metadata["provider"]) == ("PROVIDER_REFUSED", "local")


@pytest.mark.parametrize("reason", [FinishReason.REFUSAL, FinishReason.CONTENT_FILTER, FinishReason.LENGTH])
async def test_a_model_that_will_not_is_not_replaced(reason: FinishReason) -> None:
    models = ByModel(big=[ModelFinish(reason=reason)], other=list(ANSWER))
    assert await events_of(patient(models), OTHERS) == [ModelFinish(reason=reason)]


async def test_a_wrong_attachment_is_nobodys_elses_business() -> None:
    models = ByModel(big=[AttachmentUnsupported("image/png", model="openai/big")], other=list(ANSWER))
    with pytest.raises(AttachmentUnsupported):
        await events_of(patient(models), OTHERS)


async def test_nobody_takes_over_once_something_is_there() -> None:
    models = ByModel(big=[ModelText("a"), DOWN], other=list(ANSWER))
    assert (await failure_of(patient(models), OTHERS)).reason == "PROVIDER_UNAVAILABLE"
    assert models.asked == ["openai/big"]


async def test_nobody_takes_over_when_the_time_is_up() -> None:
    models = ByModel(big=[Pause(60)], other=list(ANSWER))
    error = await failure_of(patient(models, patience=replace(PATIENCE, total=0.1)), OTHERS)
    assert (error.metadata["limit"], models.asked) == ("total", ["openai/big"])


async def test_thinking_is_no_silence_and_no_answer() -> None:
    thinking = [step for _ in range(5) for step in (ModelProgress(), Pause(0.3))]
    source = ScriptedProvider([*thinking, DOWN], [ModelProgress(), *ANSWER])  # type: ignore[list-item]
    assert await events_of(patient(source, patience=replace(PATIENCE, first_token=1.2, idle=1.2))) == ANSWER


async def test_a_provider_that_fails_again_and_again_is_left_alone() -> None:
    source = ScriptedProvider([DOWN])
    provider = patient(source, traffic=Traffic(failures=3, rest=600))
    assert (await failure_of(provider)).retry_after is None
    left = await failure_of(provider)
    assert (left.reason, len(source.requests)) == ("PROVIDER_UNAVAILABLE", 3)
    assert 500 < (left.retry_after or 0) <= 600


async def test_after_a_rest_one_request_finds_out() -> None:
    source = ScriptedProvider([DOWN], [DOWN], ANSWER)
    provider = patient(source, patience=replace(PATIENCE, attempts=1), traffic=Traffic(failures=1, rest=0.05))
    for _ in range(2):
        await failure_of(provider)
        await asyncio.sleep(0.06)
    assert await events_of(provider) == await events_of(provider) == ANSWER


async def test_a_probe_that_nobody_waits_for_lets_the_next_one_try() -> None:
    source = ScriptedProvider([DOWN], [Pause(60)], ANSWER)
    provider = patient(source, patience=replace(PATIENCE, attempts=1), traffic=Traffic(failures=1, rest=0.05))
    await failure_of(provider)
    await asyncio.sleep(0.06)
    probing = asyncio.ensure_future(events_of(provider))
    async with asyncio.timeout(10):
        while len(source.requests) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await failure_of(provider)).reason == "PROVIDER_UNAVAILABLE"
    probing.cancel()
    await asyncio.wait({probing})
    assert await events_of(provider) == ANSWER


@pytest.mark.parametrize("failure", [REFUSED, ModelOutputInvalid("no JSON", **NAMED), FINISH])
async def test_who_answers_at_all_is_not_left_alone(failure: Exception | ModelFinish) -> None:
    source = ScriptedProvider(*[[failure]] * 9, ANSWER)
    provider = patient(source, traffic=Traffic(failures=2, rest=60))
    for _ in range(9):
        with pytest.raises((ProviderError, ModelOutputInvalid)):
            await events_of(provider)
        if len(source.requests) >= 9:
            break
    assert await events_of(provider) == ANSWER


async def test_everybody_waits_when_one_is_told_to() -> None:
    source = ScriptedProvider([ProviderRateLimited("slow", retry_after=0.4, **NAMED)], ANSWER)
    provider = patient(source, patience=replace(PATIENCE, attempts=1))
    began = time.monotonic()
    await failure_of(provider)
    assert await events_of(provider) == ANSWER
    assert time.monotonic() - began > 0.39
    # Other providers' keys are other keys.
    lanes = Lanes()
    lanes.of("openai").pause(600)
    other = PatientProvider(provider=ScriptedProvider(ANSWER), patience=PATIENCE, lanes=lanes)
    assert await events_of(other, replace(REQUEST, model="cohere/other")) == ANSWER
    error = await failure_of(other)
    assert (error.reason, error.metadata["model"]) == ("PROVIDER_RATE_LIMITED", "big")
    assert 590 < (error.retry_after or 0) <= 600


@pytest.mark.parametrize(
    "traffic", [Traffic(requests_per_minute={"openai": 2}), Traffic(tokens_per_minute={"openai": 30})]
)
async def test_no_more_is_asked_than_a_minute_allows(traffic: Traffic) -> None:
    used = [ModelText("a"), ModelFinish(reason=FinishReason.STOP, usage=Usage(input_tokens=5, output_tokens=10))]
    source = ScriptedProvider(used)
    provider = patient(source, traffic=traffic)
    for _ in range(2):
        assert await events_of(provider) == used
    error = await failure_of(provider)
    assert (error.reason, len(source.requests)) == ("PROVIDER_RATE_LIMITED", 2)
    assert 5 < (error.retry_after or 0) <= 60


TIMES = st.floats(min_value=0, max_value=60)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(TIMES, st.integers(1, 200)), max_size=30))
def test_a_bucket_never_gives_more_than_a_minute_and_what_has_come_since(asked: list[tuple[float, int]]) -> None:
    bucket, now, given_ = Bucket(per_minute=100), 1000.0, 0.0
    for later, amount in asked:
        now += later
        if bucket.wait(amount, now) == 0:
            bucket.take(amount, now)
            given_ += min(amount, 100)
        assert given_ <= 100 + (now - 1000) * 100 / 60 + 1e-6


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["enter", "succeeded", "failed", "abandoned", "wait"]), max_size=60))
def test_an_open_breaker_lets_one_try_at_a_time(steps: list[str]) -> None:
    breaker, now, failures, probing = Breaker(failures=2, seconds=10), 0.0, 0, False
    actions: dict[str, Callable[[], object]] = {
        "succeeded": breaker.succeeded,
        "failed": lambda: breaker.failed(now),
        "abandoned": breaker.abandoned,
    }
    for step in steps:
        if step == "enter":
            passed = breaker.enter(now) == 0
            assert not (passed and probing)
            assert passed or failures >= 2
            probing = probing or (passed and failures >= 2)
        elif step == "wait":
            now += 11
        else:
            actions[step]()
            failures = {"succeeded": 0, "failed": failures + 1}.get(step, failures)
            probing = False
