"""The label of a request's method."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import View

from hr_prometheus.errors import SettingError

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


def check_methods(methods: object) -> None:
    """Raise :exc:`~hr_prometheus.errors.ConfigurationError` unless *methods* are methods to leave out.

    A method is case-sensitive (RFC 9110, 9.1), and those of the registry are in capitals.
    """
    is_list = isinstance(methods, Collection) and not isinstance(methods, str)
    for method in methods if is_list else [None]:  # type: ignore[attr-defined]  # mypy forgets what is_list says
        if not isinstance(method, str) or not re.fullmatch("[A-Z][A-Z-]*", method):
            raise SettingError(
                "exclude_methods",
                f"exclude_methods={methods!r}",
                " is not understood. Expected methods in capitals, for example ",
                (str(method),),
                advice='["OPTIONS"].',
                command_advice="OPTIONS.",
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
