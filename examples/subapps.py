"""An application made of others, whose labels carry their prefixes.

hr-prometheus run examples/subapps.py:app --fixed-route user=user_id
"""

from aiohttp import web


async def user(request: web.Request) -> web.Response:
    """Return a user."""
    return web.json_response({"user": request.match_info["user_id"]})


async def health(_request: web.Request) -> web.Response:
    """Say that all is well."""
    return web.Response(text="ok\n")


users = web.Application()
users.router.add_get("/{user_id}", user, name="user")

api = web.Application()
api.add_subapp("/users", users)

app = web.Application()
app.router.add_get("/health", health)
app.add_subapp("/api/v1", api)
