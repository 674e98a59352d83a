#!/bin/sh
# Makes dashboard.json, rules.yml and rules-tests.yml again, after a change of the service or of hr-prometheus.
set -eu
cd "$(dirname "$0")"
service="../service.py:create_app --fixed-route get_cell_neighbour=cell_id --exclude /health --job cells"
hr-prometheus dashboard $service --output dashboard.json
hr-prometheus rules $service --objective 99.9 --objective report=85 --latency 0.5 --output rules.yml --tests rules-tests.yml
