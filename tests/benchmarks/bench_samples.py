"""Measurements as the load generator would give them."""

from benchmarks.measurement import Measurement

TLS = {"version": "TLSv1.3", "suite": "TLS_AES_256_GCM_SHA384", "group": "X25519"}


def measured(server, load="bursts", **figures):
    """One measurement; figures that are not given are the same for all."""
    given = {
        "pinned": False,
        "round": 1,
        "per_second": 1000.0,
        "p50_us": 100.0,
        "p99_us": 200.0,
        "load_cpu_share": 0.5,
        "server_cpu_share": 1.0,
        "server_cpu_us": 10.0,
        "processes": 1,
        "tls": TLS,
    }
    return Measurement(load=load, server=server, **(given | figures))
