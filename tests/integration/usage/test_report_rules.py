"""What a report on usage is asked by: its order, its filters, its groups; and the list of events (spec §5)."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from latchkey.v1 import key_pb2, key_service_pb2, usage_pb2, usage_service_pb2
from tests.integration.keys.test_keys import update
from tests.integration.usage.test_usage import NEW, NOW, Event, asking, at, event, nanos, query, report, usd
from tests.support.service import Client

TICK = timedelta(microseconds=1)
MEASURES: dict[str, Callable[[usage_pb2.UsageMeasures], int]] = {
    "SPEND": lambda sums: nanos(sums.spend),
    "ADJUSTMENTS": lambda sums: nanos(sums.adjustments),
    "NET_SPEND": lambda sums: nanos(sums.net_spend),
    "REQUESTS": lambda sums: sums.requests,
    "INPUT_TOKENS": lambda sums: sums.input_tokens,
    "OUTPUT_TOKENS": lambda sums: sums.output_tokens,
    "CACHED_TOKENS": lambda sums: sums.cached_tokens,
    "TOTAL_TOKENS": lambda sums: sums.total_tokens,
}
# Requests, input, output and cached tokens, spend and adjustments of a model: each measure has an order of its own.
MODELS = {
    "a": (1, 90, 10, 50, 400, -30),
    "b": (2, 80, 60, 10, 100, 300),
    "c": (3, 10, 70, 5, 300, -900),
    "d": (4, 40, 20, 30, 200, 120),
}


async def _of_models(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    events = []
    for model, (requests, input_tokens, output_tokens, cached, spend, adjusted) in MODELS.items():
        consumed = event(key_id, f"{model}-consume", cost=spend)
        consumed.model, consumed.requests = model, requests
        consumed.input_tokens, consumed.output_tokens, consumed.cached_tokens = input_tokens, output_tokens, cached
        adjustment = Event(
            source="tests",
            event_id=f"{model}-adjustment",
            key_id=key_id,
            type=usage_pb2.USAGE_TYPE_ADJUSTMENT,
            model=model,
            cost=usd(adjusted),
            occurred_time=at(NOW),
        )
        events += [consumed, adjustment]
    assert await report(owner, events) == [NEW] * len(events)


async def test_groups_are_ordered_by_the_measure_asked_for_and_the_rest_is_summed_behind_the_top(
    owner: Client,
) -> None:
    await _of_models(owner)
    orders = set()
    for name, measure in MEASURES.items():
        request = asking("MODEL", days=1)
        request.order_by = usage_pb2.UsageMeasure.Value(f"USAGE_MEASURE_{name}")
        whole = await query(owner, request)
        request.top = 2
        cut = await query(owner, request)

        values = [measure(row.measures) for row in whole.rows]
        assert values == sorted(values, reverse=True), name
        assert list(cut.rows[:2]) == list(whole.rows[:2]), name
        rest = cut.rows[2]
        assert (len(cut.rows), rest.other, rest.group) == (3, True, usage_pb2.UsageGroup()), name
        for each in MEASURES.values():
            assert each(rest.measures) == sum(each(row.measures) for row in whole.rows[2:]), name
        assert cut.totals == whole.totals, name
        orders.add(tuple(row.group.model for row in whole.rows))

    assert len(orders) > 4


async def test_the_top_groups_are_those_of_the_whole_range_in_every_bucket(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    yesterday, costs = NOW - timedelta(days=1), {"steady": (50, 50), "once": (90, 0), "late": (0, 60), "small": (9, 1)}
    events = []
    for model, per_day in costs.items():
        for day, cost in zip((yesterday, NOW), per_day, strict=True):
            if cost:
                events.append(event(key_id, f"{model}-{day.date()}", cost=cost, moment=day))
                events[-1].model = model
    await report(owner, events)
    request = asking("MODEL", days=2)
    request.bucket_width, request.top = usage_pb2.BUCKET_WIDTH_1D, 2

    rows = (await query(owner, request)).rows

    told = [(row.group.model, row.other, nanos(row.measures.spend)) for row in rows]
    assert told == [
        ("once", False, 90),
        ("steady", False, 50),
        ("", True, 9),
        ("steady", False, 50),
        ("", True, 61),
    ]
    assert [row.start_time for row in rows[:3]] == [rows[0].start_time] * 3
    assert rows[0].end_time == rows[3].start_time


async def test_all_filters_hold_together_one_value_of_each_is_enough_and_the_empty_text_stands_for_none(
    owner: Client,
) -> None:
    with_identity = (await owner.create_key(key_pb2.Key(external_id="acme"))).key.key_id
    without = (await owner.create_key()).key.key_id
    events: dict[tuple[str, str, str, str], Event] = {}
    for number in range(16):
        texts = tuple(text if number >> bit & 1 else "" for bit, text in enumerate(("m", "p", "t", "acme")))
        model, member, task, external_id = texts
        item = event(with_identity if external_id else without, str(number), cost=1 << number)
        item.model, item.member, item.task = model, member, task
        events[(model, member, task, external_id)] = item
    await report(owner, events.values())

    none, given, both = [""], ["given"], ["given", ""]
    wanted: list[Sequence[Sequence[str]]] = [
        *[[chosen if index == at_ else [] for index in range(4)] for at_ in range(4) for chosen in (none, given, both)],
        [none, none, none, none],
        [given, given, given, given],
        [given, none, both, []],
        [none, given, [], given],
        [["unheard"], [], [], []],
    ]
    for choice in wanted:
        values = [
            [text and ("unheard" if text == "unheard" else known) for text in chosen]
            for chosen, known in zip(choice, ("m", "p", "t", "acme"), strict=True)
        ]
        selected = usage_pb2.UsageFilter(models=values[0], members=values[1], tasks=values[2], external_ids=values[3])
        expected = [
            item
            for texts, item in events.items()
            if all(not asked or text in asked for text, asked in zip(texts, values, strict=True))
        ]
        request = asking(days=1)
        request.filter.CopyFrom(selected)
        total = (await query(owner, request)).totals.spend
        listed = await owner.usage.ListUsageEvents(usage_service_pb2.ListUsageEventsRequest(filter=selected))

        assert nanos(total) == sum(nanos(item.cost) for item in expected), values
        assert {record.event.event_id for record in listed.events} == {item.event_id for item in expected}, values


async def test_only_the_dimensions_asked_for_are_told_of_a_group(owner: Client) -> None:
    key = (await owner.create_key(key_pb2.Key(name="n", environment="prod", external_id="acme"))).key
    item = event(key.key_id, "1")
    item.model, item.member, item.task = "m", "p", "t"
    await report(owner, [item])
    told = {
        "ENVIRONMENT": usage_pb2.UsageGroup(environment="prod"),
        "KEY": usage_pb2.UsageGroup(key=usage_pb2.UsageKey(key_id=key.key_id, name="n")),
        "MODEL": usage_pb2.UsageGroup(model="m"),
        "MEMBER": usage_pb2.UsageGroup(member="p"),
        "TASK": usage_pb2.UsageGroup(task="t"),
        "IDENTITY": usage_pb2.UsageGroup(external_id="acme"),
        "API": usage_pb2.UsageGroup(api_id=key.api_id),
    }
    together = usage_pb2.UsageGroup()
    for group in told.values():
        together.MergeFrom(group)
    told |= {"": usage_pb2.UsageGroup(), " ".join(told): together}

    for grouping, group in told.items():
        answer = await query(owner, asking(*grouping.split(), days=1))
        assert [(row.group, row.other, row.measures) for row in answer.rows] == [(group, False, answer.totals)]


async def test_renames_rotations_and_a_change_of_the_identity_never_split_a_series(owner: Client) -> None:
    key_id = (await owner.create_key(key_pb2.Key(name="old", external_id="before"))).key.key_id
    await report(owner, [event(key_id, "1", cost=1)])
    await update(owner, key_pb2.Key(key_id=key_id, name="new", external_id="after"))
    await owner.keys.RotateKey(key_service_pb2.RotateKeyRequest(key_id=key_id))
    await report(owner, [event(key_id, "2", cost=2)])

    (row,) = (await query(owner, asking("KEY", "IDENTITY", days=1))).rows

    key = usage_pb2.UsageKey(key_id=key_id, name="new")
    assert (row.group, nanos(row.measures.spend)) == (usage_pb2.UsageGroup(key=key, external_id="after"), 3)


async def test_events_are_listed_from_the_first_instant_of_a_range_to_before_its_last_by_type(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    start, end = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    consumed = [
        event(key_id, name, moment=moment)
        for name, moment in (("before", start - TICK), ("first", start), ("last", end - TICK), ("after", end))
    ]
    failed = Event(
        source="tests", event_id="error", key_id=key_id, type=usage_pb2.USAGE_TYPE_ERROR, occurred_time=at(start)
    )
    await report(owner, [*consumed, failed])

    async def listed(*types: usage_pb2.UsageType.ValueType) -> set[str]:
        request = usage_service_pb2.ListUsageEventsRequest(start_time=at(start), end_time=at(end), event_types=types)
        return {record.event.event_id for record in (await owner.usage.ListUsageEvents(request)).events}

    assert await listed() == {"first", "last", "error"}
    assert await listed(usage_pb2.USAGE_TYPE_CONSUME) == {"first", "last"}
    assert await listed(usage_pb2.USAGE_TYPE_ERROR, usage_pb2.USAGE_TYPE_REFUND) == {"error"}
    assert await listed(usage_pb2.USAGE_TYPE_BLOCKED) == set()
