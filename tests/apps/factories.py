"""Factories, each broken in one way, and values that are no applications."""

import argparse

from aiohttp import web


def raises():
    raise RuntimeError("no database")


async def raises_async():
    raise RuntimeError("no database")


def wants_two(config, database):
    return web.Application()


def wants_keyword(*, database):
    return web.Application()


def returns_nothing():
    web.Application()


def helps():
    argparse.ArgumentParser().parse_args(["--no-such-option"])


def exits():
    raise SystemExit(0)


async def returns_nothing_async():
    web.Application()


number = 42
