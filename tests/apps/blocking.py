"""Blocks its event loop in every way, each for BLOCK seconds."""

import asyncio
import ctypes
import gc
import json
import signal
import time

from aiohttp import web

BLOCK = 0.4
MANY = list(range(4_000_000))
background = set()


async def handler(request):
    time.sleep(BLOCK)
    return web.Response()


async def nested(request):
    async def inner():
        await asyncio.sleep(0.01)
        time.sleep(BLOCK)

    await inner()
    return web.Response()


async def computes(request):
    end = time.thread_time() + BLOCK
    while time.thread_time() < end:
        pass
    return web.Response()


async def dumps(request):
    numbers, end = list(range(200_000)), time.thread_time() + BLOCK
    while time.thread_time() < end:
        json.dumps(numbers)
    return web.Response()


async def keeps_the_lock(request):
    """Call a function in C that does not let other threads run, as a badly written extension does."""
    ctypes.PyDLL(None).usleep(int(BLOCK * 1e6))
    return web.Response()


async def in_background(request):
    async def refresh():
        time.sleep(BLOCK)

    task = asyncio.create_task(refresh(), name="refresher")
    background.add(task)
    return web.Response()


async def waits_for_a_task(request):
    """Wait for a task that has the request in hand, as one does that answers many at a time."""

    async def publish(waiting):
        for _request, future in waiting:
            time.sleep(BLOCK)
            future.set_result(None)

    future = asyncio.get_running_loop().create_future()
    background.add(asyncio.create_task(publish([(request, future)])))
    await future
    return web.Response()


async def in_callback(request):
    asyncio.get_running_loop().call_soon(time.sleep, BLOCK)
    return web.Response()


async def in_c_callback(request):
    """Have the loop itself call a function in C that does not let other threads run."""
    asyncio.get_running_loop().call_soon(ctypes.PyDLL(None).usleep, int(BLOCK * 1e6))
    return web.Response()


async def in_sleeping_thread(request):
    await asyncio.to_thread(ctypes.PyDLL(None).usleep, int(BLOCK * 1e6))
    return web.Response()


async def in_thread(request):
    await asyncio.to_thread(json.dumps, MANY)
    return web.Response()


async def streamed(request):
    async def body():
        yield b"one"
        time.sleep(BLOCK)
        yield b"two"

    return web.Response(body=body())


async def after_its_end(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write_eof(b"all")
    time.sleep(BLOCK)
    return response


class View(web.View):
    async def get(self):
        await self.work()
        return web.Response()

    async def work(self):
        time.sleep(BLOCK)


class Cycle:
    def __del__(self):
        time.sleep(BLOCK)


async def collects(request):
    cycle = Cycle()
    cycle.itself = cycle
    del cycle
    gc.collect()
    return web.Response()


async def in_turns(request):
    """Wait for many tasks, of which none holds the loop for long."""

    async def step():
        time.sleep(0.004)

    await asyncio.gather(*[step() for _ in range(100)])
    return web.Response()


async def plain(request):
    return web.Response()


async def waits(request):
    await asyncio.sleep(BLOCK)
    return web.Response()


@web.middleware
async def blocks_before(request, handler):
    if request.path == "/in_middleware":
        time.sleep(BLOCK)
    return await handler(request)


@web.middleware
async def gives_a_task(request, handler):
    """Run the handler in a task of its own, as a limit of time may do."""
    return await asyncio.shield(asyncio.create_task(handler(request)))


async def on_prepare(request, response):
    if request.path == "/on_prepare":
        time.sleep(BLOCK)


def on_signal(number, frame):
    time.sleep(BLOCK)


HANDLERS = (
    handler,
    nested,
    computes,
    dumps,
    keeps_the_lock,
    in_background,
    in_callback,
    waits_for_a_task,
    in_c_callback,
    in_sleeping_thread,
    in_thread,
    streamed,
    after_its_end,
    collects,
    in_turns,
    plain,
    waits,
)


def create_app():
    signal.signal(signal.SIGUSR1, on_signal)
    app = web.Application(middlewares=[blocks_before])
    app.on_response_prepare.append(on_prepare)
    app.router.add_get("/in_middleware", plain)
    app.router.add_get("/on_prepare", plain)
    app.router.add_get("/view", View)
    app.router.add_get("/excluded", handler)
    for each in HANDLERS:
        app.router.add_get(f"/{each.__name__}", each)
    with_tasks = web.Application(middlewares=[gives_a_task])
    with_tasks.router.add_get("/{name}", handler, name="task")
    app.add_subapp("/task", with_tasks)
    return app
