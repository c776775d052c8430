"""Labels over HTTP: leases, answers with the user of the token, and nobody else's questions."""

from typing import Any

import httpx
import pytest

from tests.fakes_api import ApiFloor
from training.labelling.labels import Question


@pytest.fixture
def asked(api: ApiFloor) -> None:
    """Two questions of a tenant and one of another."""
    questions = [
        Question(
            subject=f"window:{tenant}/pump/x:{number}",
            asked_by="least_confidence",
            priority=float(number),
            tenant=tenant,
            proposal="anomalous",
            confidence=0.6,
            model_id="anomaly_detector@v1",
        )
        for number, tenant in enumerate(("demo", "demo", "other"))
    ]
    (count,) = api.labels.queue.together([api.labels.queue.ask(questions)])
    assert count == 3


async def call(caller: httpx.AsyncClient, name: str, **body: Any) -> Any:
    answer = await caller.post(f"/api/v1/labels/{name}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def people(api: ApiFloor) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
    return api.caller("operator", tenant="demo", user="ann"), api.caller("operator", tenant="demo", user="bob")


@pytest.mark.usefixtures("asked")
async def test_a_question_is_with_one_person_and_its_label_names_them(api: ApiFloor) -> None:
    """The most important first; a second person gets the next one, and a repeated answer is one label."""
    ann, bob = people(api)
    async with ann, bob:
        (first,) = (await call(ann, "lease", session="visit-of-ann"))["items"]
        (second,) = (await call(bob, "lease", session="visit-of-bob", count=9))["items"]
        said = {"id": first["id"], "token": first["token"], "value": "normal", "saw_proposal": True}
        label = (await call(ann, "answer", **said))["label"]
        again = (await call(ann, "answer", **said))["label"]
        stolen = await bob.post("/api/v1/labels/answer", json=said)
        listed = (await ann.get("/api/v1/labels")).json()

    assert (first["subject"], second["subject"]) == ("window:demo/pump/x:1", "window:demo/pump/x:0")
    assert (label["user_id"], label["provenance"], label["model_id"]) == ("ann", "assisted", "anomaly_detector@v1")
    assert again == label
    assert stolen.status_code == 409
    assert [one["id"] for one in listed["items"]] == [label["id"]]
    assert listed["counts"] == {}


@pytest.mark.usefixtures("asked")
async def test_what_is_skipped_or_given_back_goes_to_others(api: ApiFloor) -> None:
    """A person is not asked again about what they skipped, and only the session's own questions go back."""
    ann, bob = people(api)
    async with ann, bob:
        one, two = (await call(ann, "lease", session="same-name", count=2))["items"]
        assert (await call(bob, "release", session="same-name"))["released"] == 0
        assert (await call(ann, "renew", session="same-name"))["held"] == 2
        await call(ann, "skip", id=one["id"], token=one["token"], reason="blurred")
        assert (await call(ann, "release", session="same-name"))["released"] == 1
        (mine,) = (await call(ann, "lease", session="same-name", count=2))["items"]
        (his,) = (await call(bob, "lease", session="same-name", count=2))["items"]

    assert (mine["id"], his["id"]) == (two["id"], one["id"])
    assert mine["token"] == two["token"] + 1


@pytest.mark.usefixtures("asked")
async def test_a_tenant_is_asked_about_its_own_devices_only(api: ApiFloor) -> None:
    async with api.caller("operator", tenant="third") as stranger, api.caller("operator") as everybody:
        assert (await call(stranger, "lease", session="a-visit-of-mine", count=9))["items"] == []
        assert len((await call(everybody, "lease", session="a-visit-of-mine", count=9))["items"]) == 3
        assert (await everybody.get("/api/v1/labels")).json()["counts"]["leased"] == 3


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("lease", {"session": "short"}),
        ("lease", {"session": "long-enough", "count": 21}),
        ("answer", {"id": "q", "token": 0, "value": "normal"}),
        ("answer", {"id": "q", "token": 1, "value": ""}),
        ("answer", {"id": "q", "token": 1, "value": "normal", "user_id": "mallory"}),
        ("skip", {"id": "q", "token": 1, "reason": "x" * 201}),
    ],
)
async def test_bad_calls_are_refused(api: ApiFloor, name: str, body: dict[str, Any]) -> None:
    async with api.caller("operator") as caller:
        assert (await caller.post(f"/api/v1/labels/{name}", json=body)).status_code == 422
