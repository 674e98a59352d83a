from __future__ import annotations

from unittest.mock import Mock

import pytest
from aiohttp import web

from hr_prometheus.labels.resources import UNMATCHED
from hr_prometheus.monitors import BaseRequestMonitor, RequestMonitor


@pytest.fixture
def request_mock():
    """A request as unit tests of hr-prometheus 0.2.0's users have it: every attribute is there, and true."""
    return Mock(method="GET", path="/path")


def test_a_response_must_be_observed(request_mock, registry):
    """Leaving a monitor without having shown it the response is an error."""
    with pytest.raises(RuntimeError, match="has not been observed"), RequestMonitor(request_mock, registry=registry):
        pass


def test_observing_a_response(request_mock, registry):
    """The status is the response's, and the request is counted with it."""
    with RequestMonitor(request_mock, registry=registry) as monitor:
        monitor.observe(Mock(status=200))
        assert monitor.response_status == 200
        assert registry.get_sample_value("requests_in_progress", {"method": "GET", "path": "/path"}) == 1
    labels = {"method": "GET", "path": "/path", "status": "200"}
    assert registry.get_sample_value("request_count_total", labels) == 1
    assert registry.get_sample_value("requests_in_progress", {"method": "GET", "path": "/path"}) == 0


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError(), 500), (web.HTTPNotFound(), 404), (web.HTTPFound("/"), 302)]
)
def test_an_exception_has_a_status(request_mock, registry, error, status):
    """An exception is a 500 even after a response was observed; an HTTP exception is its own status."""
    monitor = RequestMonitor(request_mock, registry=registry)
    with pytest.raises(type(error)), monitor:
        monitor.observe(Mock(status=200))
        raise error
    assert monitor.response_status == status


def test_the_label_without_fixed_parameters_is_the_path(request_mock, registry):
    """A monitor made by hand labels with the request's path."""
    assert RequestMonitor(request_mock, registry=registry).request_description == ("GET", "/path")


@pytest.mark.parametrize("wrong", [["resource_id"], (23,), {"route": {"some": "dict"}}, {"route": 16}])
def test_fixed_parameters_of_a_wrong_type(request_mock, wrong):
    """A monitor refuses them when it is made."""
    request_mock.match_info.route.name = "route"
    with pytest.raises(ValueError, match="Expected"):
        RequestMonitor(request_mock, fixed_routes_parameters=wrong)


def request_to(formatter, values, name="route"):
    """Make a stand-in for a request to a named route with parameters."""
    request = Mock(method="GET", path="/real/path")
    request.match_info.route.name = name
    request.match_info.route.resource.get_info.return_value = {"formatter": formatter, "pattern": Mock()}
    request.match_info.__getitem__ = lambda _self, key: values[key]
    return request


def test_fixed_parameters_of_a_monitor_made_by_hand(registry):
    """Outside a middleware the monitor fixes parameters itself."""
    fixed = {"route": ["resource_id"]}
    for resource in ("1234", "4321"):
        request = request_to("/{version}/resource/{resource_id}", {"version": "v1", "resource_id": resource})
        monitor = RequestMonitor(request, fixed_routes_parameters=fixed, registry=registry)
        assert monitor.request_description == ("GET", "/v1/resource/{resource_id}")


def test_a_plain_route_has_nothing_to_fix(request_mock, registry):
    """A named route without parameters keeps its path instead of failing."""
    request_mock.match_info.route.name = "plain"
    request_mock.match_info.route.resource.get_info.return_value = {"path": "/path"}
    monitor = RequestMonitor(request_mock, fixed_routes_parameters={"plain": ["x"]}, registry=registry)
    assert monitor.request_description == ("GET", "/path")


def test_an_unmatched_request_has_its_own_label(request_mock, registry):
    """A client cannot make series with paths that no route knows, even without a middleware."""
    request_mock.match_info.http_exception = web.HTTPNotFound()
    assert RequestMonitor(request_mock, registry=registry).request_description == ("GET", UNMATCHED)


class Recording(BaseRequestMonitor):
    calls: list

    def update_init_metrics(self):
        self.calls = [("init", self.init_time is not None, self.response_status)]

    def update_end_metrics(self):
        self.calls.append(("end", self.request_description, self.response_status))


def test_what_a_custom_monitor_can_read(request_mock):
    """The published attributes are there at the beginning and at the end."""
    with Recording(request_mock) as monitor:
        monitor.observe(Mock(status=201))
    assert monitor.calls == [("init", True, None), ("end", ("GET", "/path"), 201)]


def test_each_half_can_be_switched_off(request_mock, registry):
    """init_metrics and end_metrics leave out a call; the default monitor stays balanced."""
    monitor = RequestMonitor(request_mock, init_metrics=False, registry=registry)
    with monitor:
        monitor.observe(Mock(status=200))
    assert registry.get_sample_value("requests_in_progress", {"method": "GET", "path": "/path"}) == 0
    calls = []
    with Recording(request_mock, False, False) as monitor:
        monitor.calls = calls
        monitor.observe(Mock(status=200))
    assert calls == []


def test_a_base_monitor_wants_its_methods(request_mock):
    """The two methods are for the inheriting class to write."""
    with pytest.raises(NotImplementedError), BaseRequestMonitor(request_mock):
        pass
    with pytest.raises(NotImplementedError):
        BaseRequestMonitor(request_mock).update_end_metrics()


def test_a_subclass_of_the_default_monitor_keeps_its_metrics(request_mock, registry):
    """What is added in a subclass comes on top of the default metrics."""

    class More(RequestMonitor):
        extra = 0

        def update_end_metrics(self):
            super().update_end_metrics()
            type(self).extra += 1

    with More(request_mock, registry=registry) as monitor:
        monitor.observe(Mock(status=200))
    assert More.extra == 1
    assert registry.get_sample_value("request_latency_count", {"method": "GET", "path": "/path"}) == 1
