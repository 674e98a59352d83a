"""What Prometheus and Grafana need to know of an application: rules, dashboards and scrape configurations."""
