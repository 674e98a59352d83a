"""The status page: an application's metrics as moving charts, without a Prometheus."""
