"""The label of a request's method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import View

if TYPE_CHECKING:
    from aiohttp.web import Request

#: The label of a method that neither the IANA registry nor the application has registered.
UNKNOWN = "unknown"

#: The methods that are labels, https://www.iana.org/assignments/http-methods/http-methods.xhtml
METHODS = frozenset(
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "
    "MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT "
    "QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF "
    "VERSION-CONTROL".split()
)


def custom_method_label(request: Request) -> str:
    """Return the label of a method outside the registry: itself if the application has a route for it, else ``unknown``."""
    method = request.method
    return method if request.match_info.route.method == method != hdrs.METH_ANY else UNKNOWN


def lacks_method(request: Request) -> bool:
    """Whether a class-based view will answer 405, because its class does not define the request's method."""
    handler = getattr(request.match_info, "handler", None)
    is_view = isinstance(handler, type) and issubclass(handler, View)
    return is_view and not (request.method in hdrs.METH_ALL and hasattr(handler, request.method.lower()))
