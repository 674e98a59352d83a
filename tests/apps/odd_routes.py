"""Routes as nobody should write them, each with a name and what to ask it for."""

from pathlib import Path

from aiohttp import web

#: Paths to ask for, by the name of the route which answers.
REQUESTS = {
    "quote": ["/q%22uote%5Cback"],
    "unicode": ["/%C3%BCn%C3%AF/%F0%9F%92%A5/1", "/%C3%BCn%C3%AF/%F0%9F%92%A5/a%22b%5Cc"],
    "dots": ["/sp%20ace/a-b.json", "/sp%20ace/c(d)-e%7Cf.json"],
    "braces": ["/br%7B%7Bx%7D%7D/$job/%5B%5By%5D%5D"],
    "control": ["/ctl%01%7F%E2%80%A8x"],
    "digits": ["/re/12/a/b/c", "/re/345/"],
    "choice": ["/choice/left", "/choice/right"],
    "user": ["/api/users/ada", "/api/users/grace%0Ahopper"],
    "me": ["/api/users/me"],
    "files": ["/files/odd_routes.py", "/files/script.py"],
    "a.b-c:d": ["/plus+star*"],
    "any": ["/any"],
    "rest": ["/", "/somewhere/else"],
}


async def handler(_request):
    return web.Response(text="ok")


def create_app():
    app = web.Application()
    add = app.router.add_get
    add("/{tail:.*}", handler, name="rest")
    add('/q"uote\\back', handler, name="quote")
    add("/ünï/💥/{value}", handler, name="unicode")
    add("/sp ace/{a}-{b}.json", handler, name="dots")
    add("/br%7B%7Bx%7D%7D/$job/[[y]]", handler, name="braces")
    add("/ctl%01%7F%E2%80%A8x", handler, name="control")
    add(r"/re/{n:\d{2,3}}/{rest:(?=.?).*}", handler, name="digits")  # a pattern that RE2 does not know
    add("/choice/{side:left|right}", handler, name="choice")
    add("/plus+star*", handler, name="a.b-c:d")
    app.router.add_route("*", "/any", handler, name="any")
    app.router.add_static("/files", Path(__file__).parent, name="files")
    api = web.Application()
    api.router.add_get("/users/{user}", handler, name="user")
    api.router.add_get("/users/me", handler, name="me")
    app.add_subapp("/api", api)
    return app
