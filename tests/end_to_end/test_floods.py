"""Clients that invent paths, values, methods and hosts without end: no more series, exact counts."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession
from conftest import counts, samples

FLOOD = 2000


async def flood(url: str, requests: list[bytes]) -> None:
    """Send requests on some connections, one behind the other, and take all answers."""
    host, port = url.removeprefix("http://").split(":")

    async def send(some: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for begin in range(0, len(some), 16):
            writer.write(b"".join(some[begin : begin + 16]))
            for _ in some[begin : begin + 16]:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
        writer.close()

    await asyncio.gather(*(send(requests[begin::4]) for begin in range(4)))


def request(path: str, method: str = "GET", host: str = "x") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


NORTH = "/cell_neighbour/{}/direction/north"
TEMPLATE = "/cell_neighbour/{cell_id}/direction/{direction}"


@pytest.mark.parametrize("no_extensions", ["", "1"], ids=["C parser", "Python parser"])
async def test_a_flood_of_everything(serve, no_extensions):
    """Each kind of invention has a bounded number of labels, and every request is counted."""
    service = serve(
        "served:create_app", "--port", "0", "--path-budget", "10",
        is_measured=False, AIOHTTP_NO_EXTENSIONS=no_extensions,
    )  # fmt: skip
    await flood(service.url, [request(f"/no/such/path/{number}") for number in range(FLOOD)])
    await flood(service.url, [request(NORTH.format(number)) for number in range(FLOOD)])
    await flood(service.url, [request("/", host=f"host{number}.example.org") for number in range(FLOOD)])
    await flood(service.url, [request(f"/?query={number}") for number in range(FLOOD)])
    expected = {
        ("GET", "unmatched", "404"): FLOOD,
        ("GET", TEMPLATE, "200"): FLOOD - 10,
        ("GET", "/", "200"): 2 * FLOOD,
        **{("GET", NORTH.format(number), "200"): 1 for number in range(10)},
    }
    if no_extensions:  # aiohttp's C parser answers 400 to a method that it does not know, and hangs up
        await flood(service.url, [request("/", method=f"M{number}") for number in range(FLOOD)])
        expected["unknown", "unmatched", "405"] = FLOOD
    async with ClientSession() as session, session.get(service.metrics_url) as response:
        text = await response.text()
    found = counts(text)
    concrete = {
        key: value for key, value in found.items() if key[1].startswith("/cell_neighbour/") and "{" not in key[1]
    }
    assert len(concrete) == 10
    assert sum(concrete.values()) == 10
    assert {key: value for key, value in found.items() if key not in concrete} == {
        key: value for key, value in expected.items() if key[1] == TEMPLATE or not key[1].startswith("/cell_neighbour/")
    }
    assert samples(text)[f'hr_prometheus_folded_requests_total{{route="{TEMPLATE}"}}'] == FLOOD - 10
