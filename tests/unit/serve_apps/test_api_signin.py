"""The way in: a link, once, becomes a cookie that foreign pages cannot use."""

from tests.fakes_api import ORIGIN, ApiFloor


async def test_a_link_signs_in_once(api: ApiFloor) -> None:
    """The cookie is HttpOnly and Strict, works on the API, and the link is dead afterwards."""
    key = api.signin_key()
    async with api.caller() as browser:
        first = await browser.get("/signin", params={"key": key})
        page = await browser.get("/")
        config = await browser.get("/api/v1/config")
    async with api.caller() as thief:
        second = await thief.get("/signin", params={"key": key})

    cookie = first.headers["set-cookie"].lower()
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert cookie.startswith("watchfloor_session_8000=")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert 'id="rows"' in page.text
    assert config.json()["user"]["id"] == "nora"
    assert second.status_code == 401
    assert "used before" in second.text


async def test_a_link_followed_from_another_site_still_leads_to_the_page(api: ApiFloor) -> None:
    """A Strict cookie is kept back on a redirect that another site began, so no redirect is sent then."""
    async with api.caller(headers={"sec-fetch-site": "cross-site"}) as browser:
        answer = await browser.get("/signin", params={"key": api.signin_key()})

    assert answer.status_code == 200
    assert 'http-equiv="refresh"' in answer.text


async def test_a_bad_link_says_how_to_get_a_good_one(api: ApiFloor) -> None:
    """Nothing of the key comes back in the page, and the command stands there."""
    async with api.caller() as browser:
        answers = [await browser.get("/signin"), await browser.get("/signin", params={"key": "<script>alert(1)"})]

    assert [answer.status_code for answer in answers] == [401, 401]
    assert all("watchfloor token --link" in answer.text for answer in answers)
    assert not any("<script>" in answer.text for answer in answers)


async def test_without_a_cookie_the_page_tells_how_to_sign_in(api: ApiFloor) -> None:
    """No data, no script: one sentence and one command."""
    async with api.caller() as browser:
        answer = await browser.get("/")

    assert "watchfloor token --link" in answer.text
    assert "<script" not in answer.text


async def test_a_foreign_page_cannot_act_with_the_cookie(api: ApiFloor) -> None:
    """The browser would send it; the origin gives the request away."""
    async with api.caller() as browser:
        await browser.get("/signin", params={"key": api.signin_key()})
        foreign = await browser.post(
            "/api/v1/runs", json={"task": "train_model"}, headers={"origin": "http://evil.example"}
        )
        own = await browser.post("/api/v1/runs", json={"task": "nothing"}, headers={"origin": ORIGIN})

    assert foreign.status_code == 403
    assert own.status_code == 422
