"""Rate limiter, circuit breaker and failover: wrappers around a provider. Each is itself a `Provider`."""
