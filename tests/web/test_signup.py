import httpx


async def test_accepted(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", json={"site": "bikes", "email": "a@example.com", "colour": "Red"})
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
