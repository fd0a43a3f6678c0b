"""Rate limiter, circuit breaker and failover: wrappers around a provider."""
