"""A NIC is changed as Azure Resource Manager wants it, whatever else happens to it in between."""

from __future__ import annotations

import copy
import json
from collections import Counter

import pytest

from ipam import nic_counts as counts
from ipam.errors import StoreUnavailable
from ipam.provision import nic_document, nic_writer, refusals
from ipam.provision.conversation import Conversation
from ipam.provision.nic_writer import NicTarget, NicWriter
from ipam.provision.pace import Bucket
from ipam.provision.refusals import Kind, Refusal
from ipam.provision.tally import Tally
from ipam.sources.arm_answer import ArmAnswer, NotAnswered
from ipam.sources.managed_identity import NoToken
from tests.unit.ipam.arm_service import INSTANCE, NIC, RETRY_AFTER, ArmService, refusal

ONE, TWO = "azvnet-0000000000000001", "azvnet-0000000000000002"
PLENTY = 10**6


class Waiting:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.now += seconds
        if seconds:
            self.waits.append(seconds)

    def clock(self) -> float:
        return self.now


def writer(
    arm: ArmService,
    waiting: Waiting | None = None,
    size: int = PLENTY,
    counted: Counter[str] | None = None,
    first_poll: float = 0.0,
) -> NicWriter:
    counted = Counter() if counted is None else counted
    waiting = waiting or Waiting()
    instance = INSTANCE["id"] if arm.uniform else ""
    target = NicTarget(NIC["id"], arm.nic["name"], instance)
    buckets = [Bucket(size, 30.0, waiting.clock) for _ in range(2)]
    talk = Conversation(arm.ask, waiting, Tally(counted.update, waiting.clock), *buckets)
    return NicWriter(talk, target, first_poll)


@pytest.fixture(params=["nic", "instance"])
def arm(request: pytest.FixtureRequest) -> ArmService:
    return ArmService(uniform=request.param == "instance")


def test_new_configurations_are_there_when_the_operation_has_ended(arm: ArmService) -> None:
    nic = writer(arm).add([ONE, TWO], blocks=False)
    ours = [each for each in nic_document.configurations(nic) if each.is_ours]
    assert [each.name for each in ours] == [ONE, TWO]
    assert all(each.state == "Succeeded" and len(each.addresses) == 1 for each in ours)
    assert arm.puts == 1


def test_blocks_have_sixteen_addresses(arm: ArmService) -> None:
    nic = writer(arm).add([ONE], blocks=True)
    (ours,) = [each for each in nic_document.configurations(nic) if each.is_ours]
    assert len(ours.addresses) == 16


def test_a_block_that_became_an_address_is_read_as_what_it_is(arm: ArmService) -> None:
    """As instances of scale sets did before API 2026-04-01 (azure-cli#32553)."""
    arm.ignores_lengths = True
    nic = writer(arm).add([ONE], blocks=True)
    (ours,) = [each for each in nic_document.configurations(nic) if each.is_ours]
    assert len(ours.addresses) == 1


def test_only_what_we_named_is_removed_and_everything_else_stays(arm: ArmService) -> None:
    before = json.dumps({**arm.nic, "etag": ""})
    writer(arm).add([ONE, TWO], blocks=False)
    writer(arm).remove([ONE, TWO, "ipconfig1", "vmss1"])
    assert json.dumps({**arm.nic, "etag": ""}) == before


def test_it_asks_again_when_it_is_told_to_and_not_sooner(arm: ArmService) -> None:
    waiting = Waiting()
    writer(arm, waiting).add([ONE], blocks=False)
    assert waiting.waits == [RETRY_AFTER] * 3


def test_the_tag_is_that_of_a_read_after_the_last_operation(arm: ArmService) -> None:
    writing = writer(arm)
    writing.add([ONE], blocks=False)
    writing.add([TWO], blocks=False)
    tags = [etag for method, _, etag in arm.requests if method == "PUT"]
    assert tags == ['W/"1"', 'W/"3"'], "it changes when an operation begins, and when it ends"


def test_a_configuration_that_another_writer_added_in_between_stays() -> None:
    arm = ArmService()
    arm.before_put = [lambda: arm.add_foreign("theirs")]
    writer(arm).add([ONE], blocks=False)
    assert arm.names == ["ipconfig1", "theirs", ONE]
    assert arm.puts == 2


def test_a_nic_that_never_stops_changing_is_left_alone_for_a_while() -> None:
    arm = ArmService()
    arm.before_put = [lambda: arm.add_foreign("theirs")] * 100
    with pytest.raises(Refusal) as refused:
        writer(arm).add([ONE], blocks=False)
    assert refused.value.kind is Kind.CHANGED
    assert arm.puts == nic_writer.MOST_CHANGES


def test_an_operation_that_fails_after_it_was_accepted_is_a_failure(arm: ArmService) -> None:
    message = "Subnet pods does not have enough capacity for 1 IP addresses."
    arm.outcome = {"status": "Failed", "error": {"code": "SubnetIsFull", "message": message, "details": []}}
    with pytest.raises(Refusal, match="does not have enough capacity") as refused:
        writer(arm).add([ONE], blocks=False)
    assert refused.value.kind is Kind.SUBNET_FULL
    assert ONE not in arm.names


class KilledError(Exception):
    """The agent's end."""


def test_the_operation_of_an_agent_that_was_killed_is_waited_for(arm: ArmService) -> None:
    def killed(seconds: float) -> None:
        if seconds:
            raise KilledError

    counted: Counter[str] = Counter()
    buckets = [Bucket(PLENTY, 1.0, lambda: 0.0) for _ in range(2)]
    instance = INSTANCE["id"] if arm.uniform else ""
    target = NicTarget(NIC["id"], arm.nic["name"], instance)
    dead = NicWriter(Conversation(arm.ask, killed, Tally(counted.update, lambda: 0.0), *buckets), target)
    with pytest.raises(KilledError):
        dead.add([ONE], blocks=False)
    waiting = Waiting()
    nic = writer(arm, waiting).read()
    assert waiting.waits, "it is not asked for again and again"
    assert set(waiting.waits) == {nic_writer.POLL_SECONDS}
    (ours,) = [each for each in nic_document.configurations(nic) if each.is_ours]
    assert (ours.name, ours.state, len(ours.addresses)) == (ONE, "Succeeded", 1)
    assert arm.puts == 1
    assert counted[counts.writes_ended(counts.INTERRUPTED)] == 1


def test_an_answer_that_is_lost_does_not_make_it_twice(arm: ArmService) -> None:
    carried_out = arm.ask
    lost = False

    def losing(method: str, where: str, body: nic_document.Document | None, etag: str) -> ArmAnswer:
        nonlocal lost
        answer = carried_out(method, where, body, etag)
        if method == "PUT" and not lost:
            lost = True
            raise NotAnswered("the connection broke")
        return answer

    arm.ask = losing  # type: ignore[method-assign]
    with pytest.raises(Refusal) as refused:
        writer(arm).add([ONE], blocks=False)
    assert refused.value.kind is Kind.UNREACHABLE
    writer(arm).add([ONE], blocks=False)
    assert arm.puts == 1
    assert arm.names.count(ONE) == 1


@pytest.mark.parametrize(
    "answer",
    [
        refusal(429, "TooManyRequests", retry_after="17"),
        refusal(500, "InternalServerError"),
        refusal(503, "ServiceUnavailable"),
        NotAnswered("timed out"),
    ],
)
def test_a_poll_that_fails_is_not_the_end_of_the_operation(
    arm: ArmService, answer: ArmAnswer | Exception
) -> None:
    waiting = Waiting()
    arm.polls = 1
    path = "/subscriptions/s/providers/Microsoft.Network/locations/westus/operations/2"
    arm.instead.append((path, answer))
    writer(arm, waiting).add([ONE], blocks=False)
    assert ONE in arm.names
    assert waiting.waits[1] == (17 if isinstance(answer, ArmAnswer) and answer.status == 429 else 10)


def test_an_operation_that_is_forgotten_is_judged_by_the_nic(arm: ArmService) -> None:
    path = "/subscriptions/s/providers/Microsoft.Network/locations/westus/operations/2"
    arm.instead.append((path, refusal(404, "ResourceNotFound")))
    writer(arm).add([ONE], blocks=False)
    assert ONE in arm.names


@pytest.mark.parametrize("failures", [nic_writer.MOST_FAILED_POLLS, nic_writer.MOST_FAILED_POLLS + 1])
def test_an_operation_that_cannot_be_asked_for_is_given_up_some_time(arm: ArmService, failures: int) -> None:
    path = "/subscriptions/s/providers/Microsoft.Network/locations/westus/operations/2"
    arm.instead.extend([(path, refusal(503, "ServiceUnavailable"))] * failures)
    writing = writer(arm)
    if failures > nic_writer.MOST_FAILED_POLLS:
        with pytest.raises(Refusal) as refused:
            writing.add([ONE], blocks=False)
        assert refused.value.kind is Kind.SERVER_ERROR
    else:
        writing.add([ONE], blocks=False)
        assert ONE in arm.names


def test_an_operation_that_nobody_may_ask_for_is_given_up_at_once(arm: ArmService) -> None:
    path = "/subscriptions/s/providers/Microsoft.Network/locations/westus/operations/2"
    arm.instead.append((path, refusal(403, "AuthorizationFailed")))
    with pytest.raises(Refusal) as refused:
        writer(arm).add([ONE], blocks=False)
    assert refused.value.kind is Kind.FORBIDDEN


@pytest.mark.parametrize(("accepted", "ended"), [(201, 200), (202, 204)])
def test_an_operation_may_have_a_location_alone_whose_status_says_how_it_goes(
    arm: ArmService, accepted: int, ended: int
) -> None:
    plain = arm.ask
    polled = []

    def by_location(method: str, where: str, body: nic_document.Document | None, etag: str) -> ArmAnswer:
        answer = plain(method, where, body, etag)
        if method == "PUT":
            headers = {"location": answer.headers["azure-asyncoperation"], "retry-after": str(RETRY_AFTER)}
            return ArmAnswer(accepted, answer.document, headers)
        if "/operations/" not in where:
            return answer
        polled.append(answer.document["status"])
        return ArmAnswer(202 if polled[-1] == "InProgress" else ended, {}, answer.headers)

    arm.ask = by_location  # type: ignore[method-assign]
    waiting = Waiting()
    writer(arm, waiting).add([ONE], blocks=False)
    assert ONE in arm.names
    assert polled == ["InProgress"] * arm.polls + ["Succeeded"]
    assert waiting.waits == [RETRY_AFTER] * 3


@pytest.mark.parametrize("place", ["header", "document"])
def test_the_tag_may_be_in_the_header_or_in_the_document(arm: ArmService, place: str) -> None:
    plain = arm.ask

    def tagged(method: str, where: str, body: nic_document.Document | None, etag: str) -> ArmAnswer:
        answer = plain(method, where, body, etag)
        if method == "GET" and "etag" in answer.headers:
            if place == "document":
                return ArmAnswer(answer.status, answer.document)
            without = {key: value for key, value in answer.document.items() if key != "etag"}
            return ArmAnswer(answer.status, without, answer.headers)
        return answer

    arm.ask = tagged  # type: ignore[method-assign]
    writer(arm).add([ONE], blocks=False)
    assert [etag for method, _, etag in arm.requests if method == "PUT"] == ['W/"1"']


def test_a_nic_is_written_where_it_is_and_that_of_an_instance_through_the_instance(arm: ArmService) -> None:
    writer(arm).add([ONE], blocks=False)
    where = INSTANCE["id"] if arm.uniform else NIC["id"]
    assert {path for method, path, _ in arm.requests if method == "PUT"} == {where}


def test_a_change_that_something_undoes_at_once_is_told() -> None:
    arm = ArmService(uniform=True)
    profile = arm.vm["properties"]["networkProfileConfiguration"]["networkInterfaceConfigurations"][0]
    model = copy.deepcopy(profile)
    plain = arm.ask

    def wiping(method: str, where: str, body: nic_document.Document | None, etag: str) -> ArmAnswer:
        answer = plain(method, where, body, etag)
        if answer.document == {"status": "Succeeded"}:
            arm.vm["properties"]["networkProfileConfiguration"]["networkInterfaceConfigurations"] = [model]
        return answer

    arm.ask = wiping  # type: ignore[method-assign]
    with pytest.raises(Refusal) as refused:
        writer(arm).add([ONE], blocks=False)
    assert refused.value.kind is Kind.WIPED


REFUSALS = [
    (refusal(429, "TooManyRequests", retry_after="30"), Kind.THROTTLED),
    (refusal(429, "RetryableErrorDueToAnotherOperation"), Kind.BUSY),
    (refusal(409, "AnotherOperationInProgress"), Kind.BUSY),
    (refusal(409, "Conflict"), Kind.BUSY),
    (refusal(400, "SubnetIsFull"), Kind.SUBNET_FULL),
    (
        refusal(
            400,
            "PrivateIPAddressesPerVnetLimitReached",
            "Virtual network pods can't have more than 65536 private IP addresses.",
        ),
        Kind.VNET_FULL,
    ),
    (
        refusal(400, "LimitReached", "The virtual network exceeds the maximum of private IP addresses."),
        Kind.VNET_FULL,
    ),
    (refusal(400, "LimitReached", "Cannot create more than 9 public IP addresses."), Kind.REFUSED),
    (refusal(400, "PrivateIPAddressIsAllocated"), Kind.ADDRESS_TAKEN),
    (refusal(400, "LimitExceeded", "A NIC cannot have more than 256 IP configurations."), Kind.NIC_FULL),
    (refusal(403, "AuthorizationFailed"), Kind.FORBIDDEN),
    (refusal(403, "LinkedAuthorizationFailed"), Kind.FORBIDDEN),
    (refusal(401, "InvalidAuthenticationToken"), Kind.NO_IDENTITY),
    (refusal(404, "ResourceNotFound"), Kind.NOT_FOUND),
    (refusal(503, "ServiceUnavailable"), Kind.SERVER_ERROR),
    (ArmAnswer(500, {}), Kind.SERVER_ERROR),
    (ArmAnswer(499, {}), Kind.REFUSED),
    (ArmAnswer(400, {"error": "invalid_grant"}), Kind.REFUSED),
    (refusal(403, "AuthorizationFailed", "over the limit of IP configurations"), Kind.FORBIDDEN),
    (refusal(400, "SomethingNew"), Kind.REFUSED),
    (NotAnswered("timed out"), Kind.UNREACHABLE),
    (NoToken("Identity not found"), Kind.NO_IDENTITY),
]


@pytest.mark.parametrize(("answer", "kind"), REFUSALS, ids=lambda each: str(getattr(each, "value", "")))
def test_refusals_are_told_apart_and_say_what_to_do(answer: ArmAnswer | Exception, kind: Kind) -> None:
    arm = ArmService()
    arm.instead.append(("PUT", answer))
    with pytest.raises(Refusal) as refused:
        writer(arm).add([ONE], blocks=False)
    assert refused.value.kind is kind
    assert refused.value.remedy.endswith(".")
    assert refused.value.retry_after == (30 if kind is Kind.THROTTLED else 0)
    assert arm.puts == 1, "whoever asked decides when to try again"


@pytest.mark.parametrize("code", ["SubnetIsFull", "NoAvailableIPAddressesInSubnet", "PrefixUnavailable"])
def test_no_room_for_a_block_is_not_a_full_subnet(code: str) -> None:
    arm = ArmService()
    arm.instead.append(("PUT", refusal(400, code)))
    with pytest.raises(Refusal) as refused:
        writer(arm).add([ONE], blocks=True)
    assert refused.value.kind is Kind.NO_BLOCK


def test_other_refusals_of_a_block_are_what_they_are() -> None:
    arm = ArmService()
    arm.instead.append(("PUT", refusal(409, "AnotherOperationInProgress")))
    with pytest.raises(Refusal) as refused:
        writer(arm).add([ONE], blocks=True)
    assert refused.value.kind is Kind.BUSY


def test_a_refusal_names_the_request_and_the_object_and_the_words_of_azure_if_there_are_any() -> None:
    for answer, words in ((refusal(400, "New", "Why."), " New: Why."), (ArmAnswer(400, {}), "")):
        arm = ArmService()
        arm.instead.append(("PUT", answer))
        with pytest.raises(Refusal) as refused:
            writer(arm).add([ONE], blocks=False)
        name = NIC["id"].rsplit("/", 1)[-1]
        assert str(refused.value) == f"PUT networkInterfaces/{name}: 400{words}"
        arm.instead.append(("GET", answer))
        with pytest.raises(Refusal) as refused:
            writer(arm).read()
        assert str(refused.value) == f"GET networkInterfaces/{name}: 400{words}"


def test_an_operation_that_ends_with_a_new_code_is_refused() -> None:
    ended = refusals.of_operation("x", {"status": "Failed", "error": {"code": "New", "message": "Why."}})
    assert (ended.kind, str(ended)) == (Kind.REFUSED, "x: the operation ended as Failed: New: Why.")


def test_a_code_in_the_details_counts_more_than_the_one_around_it() -> None:
    arm = ArmService()
    inner = {"code": "SubnetIsFull", "message": "full"}
    body = {"error": {"code": "MultipleErrorsOccurred", "message": "see details", "details": [inner]}}
    arm.instead.append(("PUT", ArmAnswer(409, body)))
    with pytest.raises(Refusal) as refused:
        writer(arm).add([ONE], blocks=False)
    assert refused.value.kind is Kind.SUBNET_FULL


def test_no_secret_is_in_a_refusal() -> None:
    arm = ArmService()
    arm.instead.append(("PUT", refusal(400, "Bad", "token eyJhbGciOiJIUzI1NiJ9.abc.def was sent")))
    with pytest.raises(Refusal) as refused:
        writer(arm).add([ONE], blocks=False)
    assert "eyJ" not in str(refused.value)


def test_a_write_is_counted_by_how_it_ends_and_how_long_it_takes(arm: ArmService) -> None:
    counted: Counter[str] = Counter()
    waiting = Waiting()
    made = writer(arm, waiting, counted=counted)
    made.add([ONE], blocks=False)
    assert counted[counts.writes_ended(counts.OK)] == 1
    assert counted[counts.WRITE_SECONDS] == waiting.now == 30
    assert counted[counts.bucket_of(30)] == 1
    assert counted[counts.READS] == len(arm.requests) - 1


def test_a_write_that_fails_later_and_one_that_is_throttled_are_counted_as_that(arm: ArmService) -> None:
    counted: Counter[str] = Counter()
    arm.outcome = {"status": "Failed", "error": {"code": "SubnetIsFull", "message": "full"}}
    arm.instead.append(("PUT", refusal(429, "TooManyRequests", retry_after="1")))
    for _ in range(2):
        with pytest.raises(Refusal):
            writer(arm, counted=counted).add([ONE], blocks=False)
    arm.instead.append(("GET", refusal(429, "TooManyRequests", retry_after="1")))
    with pytest.raises(Refusal):
        writer(arm, counted=counted).read()
    assert counted[counts.writes_ended("throttled")] == counted[counts.writes_ended("subnet-full")] == 1
    assert counted[counts.THROTTLED] == 2, "of a write, and of a read"
    assert counted[counts.writes_ended(counts.OK)] == counted[counts.WRITE_SECONDS] == 0


def test_waiting_for_the_budget_is_not_part_of_a_write() -> None:
    counted: Counter[str] = Counter()
    waiting = Waiting()
    arm = ArmService()
    writing = writer(arm, waiting, size=PLENTY, counted=counted)
    writing.add([ONE], blocks=False)
    first, seconds = counted[counts.WRITE_SECONDS], waiting.now
    tally = Tally(counted.update, waiting.clock)
    reads, writes = Bucket(PLENTY, 1.0, waiting.clock), Bucket(1, 500.0, waiting.clock)
    assert writes.take() == 0
    tight = Conversation(arm.ask, waiting, tally, reads, writes)
    NicWriter(tight, NicTarget(NIC["id"], arm.nic["name"], "")).remove([ONE])
    assert waiting.now - seconds >= 500
    assert counted[counts.WRITE_SECONDS] == 2 * first


def test_a_count_that_cannot_be_kept_costs_no_operation() -> None:
    def full(events: object) -> None:
        raise StoreUnavailable("the disk is full")

    arm, waiting = ArmService(), Waiting()
    buckets = [Bucket(PLENTY, 1.0, waiting.clock) for _ in range(2)]
    tally = Tally(full, waiting.clock)
    NicWriter(Conversation(arm.ask, waiting, tally, *buckets), NicTarget(NIC["id"], "nic1", "")).add(
        [ONE], blocks=False
    )
    assert ONE in arm.names


def test_requests_stay_within_the_budget() -> None:
    waiting = Waiting()
    arm = ArmService()
    writing = writer(arm, waiting, size=3)
    for _ in range(3):
        writing.read()
    assert waiting.now == 0
    writing.read()
    writing.read()
    assert waiting.now == 60.0, "one every thirty seconds after three at once"


def test_it_is_not_asked_whether_an_operation_has_ended_before_it_can_have(arm: ArmService) -> None:
    waiting = Waiting()
    writer(arm, waiting, first_poll=50.0).add([ONE], blocks=False)
    assert waiting.waits[0] == 50.0
    assert set(waiting.waits[1:]) <= {float(RETRY_AFTER)}


def test_a_nic_that_is_written_back_as_it_is_ends_writes_that_were_prepared_before(arm: ArmService) -> None:
    writer(arm).add([ONE], blocks=False)
    before, tag = copy.deepcopy(arm.nic), arm.etag
    nic = writer(arm).rewrite()
    assert {e.name for e in nic_document.configurations(nic)} == set(arm.names)
    assert arm.nic["properties"]["ipConfigurations"] == before["properties"]["ipConfigurations"]
    assert arm.ask("PUT", NIC["id"], copy.deepcopy(arm.target), tag).status == 412


def test_a_nic_that_somebody_changes_meanwhile_is_written_back_as_they_left_it(arm: ArmService) -> None:
    arm.before_put.append(lambda: arm.add_foreign("theirs"))
    writer(arm).rewrite()
    assert arm.uniform or "theirs" in arm.names
    assert arm.puts == 2
